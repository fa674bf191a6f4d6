"""The algebra of two-factor einsum layers: theta, sizes, equation, cost, taxonomy, scale. Standard library only.

The layer, the planner, a run's record and a figure all ask these functions; nothing is counted or rounded twice.
"""

from structlin.structure.catalog import CATALOG, PAPER_IDS, lookup, name_of, resolve
from structlin.structure.sizes import ROUNDINGS, Sizes, factorise
from structlin.structure.theta import Theta

__all__ = ["CATALOG", "PAPER_IDS", "ROUNDINGS", "Sizes", "Theta", "factorise", "lookup", "name_of", "resolve"]
