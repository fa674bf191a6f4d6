"""Which theta does a variant have, and where does it stand in (omega, psi, nu)?"""

from __future__ import annotations

import pandas as pd

from structlin.structure import Theta
from structlin.structure.taxonomy import Taxonomy


def thetas_of(runs: pd.DataFrame) -> dict[str, Theta]:
    """Variant -> theta, by the table's own column."""
    pairs = runs[["variant", "theta"]].drop_duplicates("variant")
    return {str(variant): Theta.parse(str(theta)) for variant, theta in pairs.itertuples(index=False)}


def places_of(runs: pd.DataFrame) -> dict[str, Taxonomy]:
    """Variant -> its exponents as written (not as rounding realised them)."""
    return {variant: theta.taxonomy for variant, theta in thetas_of(runs).items()}
