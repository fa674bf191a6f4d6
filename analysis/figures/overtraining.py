"""Is the gap of structured feed-forward networks to dense ones larger after 20, 60 or 200 tokens a parameter?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import colour_of, marker_of, ordered

from .gaps import NAMES, Gap, gap, mean_of, with_kinds
from .lines import curve, ends

STUDY = "overtraining"
LAWS = False
X = "tokens a parameter of the dense model"


def draw(runs: pd.DataFrame) -> Drawing:
    """Loss over tokens a parameter of dense, and the gap to it of every structure at the same tokens."""
    last = _with_ratio(with_kinds(ends(runs)))
    families = ordered(last["family"].unique())
    losses, gaps, said = [], [], []
    for family in families:
        look = (colour_of(families, family), marker_of(families, family))
        part, words = last[last["family"] == family], NAMES.get(family, family)
        losses.append(curve(part, "ratio", "val_loss", words, family, look))
        found = {} if family == "dense" else _gaps(part, last[last["family"] == "dense"])
        if found:
            gaps.append(_line(words, family, found, look))
            said.append(f"{words} {', '.join(f'{one.said} at {ratio:.0f}' for ratio, one in found.items())}")
            said += _growth(part, last[last["family"] == "dense"])
    ratios = tuple(sorted(float(one) for one in last["ratio"].unique()))
    return Drawing(
        name="overtraining",
        title="The gap to dense over the length of training",
        caption=(
            f"{last['run_id'].nunique()} runs of width {', '.join(map(str, sorted(last['d_model'].unique())))} on "
            f"data={last['data'].iloc[0]}, each with its own cosine; structures at 32% of a feed-forward network's "
            f"parameters. Left: mean and range of {last['seed'].nunique()} seeds. Right: mean difference to the dense "
            "run of the same seed and tokens, with 90% intervals: " + "; ".join(said) + "."
        ),
        panels=(
            Panel("loss", X, "nats per token", tuple(one for one in losses if one is not None), ticks=ratios),
            Panel("gap to dense", X, "nats above dense", tuple(gaps), y_log=False, level=0.0, ticks=ratios),
        ),
        shared_legend=True,
    )


def _with_ratio(last: pd.DataFrame) -> pd.DataFrame:
    """The rows with the tokens per parameter of the dense model of their width, rounded to fives."""
    size = last[last["family"] == "dense"].groupby("d_model")["params_total"].first()
    return last.assign(ratio=5.0 * (last["tokens"] / last["d_model"].map(size) / 5.0).round())


def _gaps(part: pd.DataFrame, dense: pd.DataFrame) -> dict[float, Gap]:
    found = {ratio: gap(part[part["ratio"] == ratio], dense[dense["ratio"] == ratio]) for ratio in _ratios(part)}
    return {ratio: one for ratio, one in found.items() if one is not None}


def _ratios(part: pd.DataFrame) -> list[float]:
    return [float(one) for one in sorted(part["ratio"].unique())]


def _line(words: str, family: str, found: dict[float, Gap], look: tuple[str, str]) -> Series:
    mean = np.array([one.mean for one in found.values()])
    half = np.nan_to_num(np.array([one.half for one in found.values()]))
    return Series(words, family, np.array(list(found)), mean, "joined", *look, mean - half, mean + half)


def _growth(part: pd.DataFrame, dense: pd.DataFrame) -> list[str]:
    """How much the gap of each seed grows from the shortest to the longest runs."""
    ratios = [ratio for ratio in _ratios(part) if (dense["ratio"] == ratio).any()]
    if len(ratios) < 2:
        return []
    shortest, longest = (
        part[part["ratio"] == ratio].groupby("seed")["val_loss"].mean()
        - dense[dense["ratio"] == ratio].groupby("seed")["val_loss"].mean()
        for ratio in (ratios[0], ratios[-1])
    )
    changes = (longest - shortest).dropna().to_numpy(float)
    change = mean_of(changes) if len(changes) else None
    return [] if change is None else [f"it changes by {change.said} from {ratios[0]:.0f} to {ratios[-1]:.0f}"]
