"""Which published numbers stand beside ours? Rows of published.csv, each with its source and compute convention.

A ratio of two computes is the same under every convention. An amount of compute counted as forward
multiply-accumulates x tokens (``paper``) becomes training FLOPs by a factor of 6 (docs/conventions.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("published.csv")
TRAINING_FLOPS_PER_MAC = 6.0
CONVENTIONS = ("ratio", "paper", "training")


@dataclass(frozen=True)
class Published:
    """One published number."""

    figure: str
    """The figure of ours that it belongs to."""
    variant: str
    quantity: str
    value: float
    """In the convention below."""
    convention: str
    """ratio, paper (forward MACs x tokens) or training (6 x)."""
    source: str
    note: str
    """A few words for a legend."""

    def __post_init__(self) -> None:
        assert self.convention in CONVENTIONS, self.convention

    def under(self, convention: str) -> float:
        """The value under a convention of FLOPs (training or paper)."""
        if self.convention in ("ratio", convention):
            return self.value
        return self.value * (TRAINING_FLOPS_PER_MAC if convention == "training" else 1 / TRAINING_FLOPS_PER_MAC)


def load(path: Path = FILE) -> list[Published]:
    """All published numbers."""
    rows = pd.read_csv(path).astype({"value": float}).to_dict("records")
    return [Published(**{str(key): value for key, value in row.items()}) for row in rows]


def of(figure: str) -> list[Published]:
    """Those of a figure."""
    return [row for row in load() if row.figure == figure]
