"""The fixtures of the tests of figures."""

from tests.analysis.planted import heads, mixtures, taxonomy

__all__ = ["heads", "mixtures", "taxonomy"]
