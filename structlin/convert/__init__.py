"""How does a trained model become one of another structure? Its matrices, one by one, by the nearest of each theta."""

from structlin.convert.aware import nearest_on
from structlin.convert.model import Converted, convert_model
from structlin.convert.nearest import Nearest, nearest

__all__ = ["Converted", "Nearest", "convert_model", "nearest", "nearest_on"]
