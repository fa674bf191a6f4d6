"""How far is the loss of a run from that of its twin, which has the same seed and data? Gaps with 90% intervals.

Runs of one seed share their first weights, as far as these can be shared, and their batches. Most of the luck of a seed
cancels in the difference, so intervals are those of the mean of paired differences (Student's t over seeds).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Series

from .lines import STUDENT, Array

PUBLISHED = Path(__file__).resolve().parents[1] / "published_ffn.csv"
PERCENT = {
    "low_rank-d:2": 63, "low_rank-d:4": 32, "block_shuffle-b2": 63, "block_shuffle-b4": 32, "block_dense-b2-2d:3": 63,
    "block_dense-b4-3d:4": 63, "block_dense-b2-d:3": 32, "block_dense-b4-3d:8": 32,
}  # fmt: skip
"""Name of a structure -> the published share of a feed-forward network's parameters."""
NAMES = {"dense": "dense", "low_rank": "low rank", "block_dense": "BlockDense", "block_shuffle": "BlockShuffle"}


@dataclass(frozen=True)
class Gap:
    """A mean of paired differences."""

    mean: float
    half: float
    """Half of the 90% interval; NaN of one pair."""
    pairs: int

    @property
    def said(self) -> str:
        """+0.012 ± 0.003."""
        return f"{self.mean:+.3f}" + (f" ± {self.half:.3f}" if math.isfinite(self.half) else "")


def mean_of(values: Array) -> Gap:
    """The mean of values with its interval."""
    n = len(values)
    half = math.nan
    if n > 1:
        half = STUDENT[min(n - 1, len(STUDENT)) - 1] * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Gap(float(np.mean(values)), half, n)


def gap(part: pd.DataFrame, base: pd.DataFrame, column: str = "val_loss") -> Gap | None:
    """Of a column, part minus base, over the seeds that both have; each has one row a seed. None without any."""
    one, other = (table.groupby("seed")[column].mean() for table in (part, base))
    differences = (one - other).dropna().to_numpy(float)
    return mean_of(differences) if len(differences) else None


def with_kinds(last: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``family`` (low_rank), ``percent`` (63, 32; 0 of dense and others) and ``guide`` (none, ..)."""
    plain = last["structure"].astype(str).str.split("/").str[0]
    guides = last["config.guide.kind"] if "config.guide.kind" in last else pd.Series("none", index=last.index)
    return last.assign(
        family=plain.str.split("-").str[0],
        percent=[PERCENT.get(name, 0) for name in plain],
        guide=guides.astype(object).fillna("none").astype(str),
    )


def of_gaps(label: str, variant: str, places: list[float], found: list[Gap], look: tuple[str, str]) -> Series:
    """Gaps as points with intervals."""
    mean, half = (np.array([getattr(one, name) for one in found], dtype=float) for name in ("mean", "half"))
    half = np.nan_to_num(half)
    return Series(label, variant, np.array(places, dtype=float), mean, "points", *look, mean - half, mean + half)


@cache
def published() -> pd.DataFrame:
    """The published numbers, a row each; texts are empty where nothing is said."""
    texts = ("size", "structure", "percent", "note")
    table = pd.read_csv(PUBLISHED, dtype={"percent": str}).fillna(dict.fromkeys(texts, ""))
    return table.assign(percent=[int(text) if text else 0 for text in table["percent"]])


def published_gap(size: str, structure: str, percent: int = 0, guide: str = "none") -> float | None:
    """ln(perplexity / that of dense), nats per token; None where it is not published."""
    table = published()
    own = table[(table["size"] == size) & (table["structure"] == structure) & (table["percent"] == percent)]
    own = own[own["guide"] == guide]
    (dense,) = table.loc[_is(table, size, "dense", "perplexity"), "value"]
    for quantity, above in (("perplexity", 0.0), ("perplexity above dense", dense)):
        for value in own.loc[own["quantity"] == quantity, "value"]:
            return math.log((value + above) / dense)
    return None


def _is(table: pd.DataFrame, size: str, structure: str, quantity: str) -> pd.Series:
    return (table["size"] == size) & (table["structure"] == structure) & (table["quantity"] == quantity)
