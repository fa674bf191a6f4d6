"""Error against compute of MLPs and ViTs on images at equal epochs, beside the published slopes (arXiv 2406.06248)."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.names import readable
from structlin.drawing.style import colour_of, marker_of, ordered

from .lines import curve, ends, family, slope

STUDY = "cifar"
LAWS = False
PUBLISHED = Path(__file__).resolve().parents[1] / "published_slopes.csv"
METRICS = {"train_error": "training error", "val_error": "validation error", "train_loss": "training loss, nats"}
MODELS = {"mlp": "MLP", "vit": "ViT"}
COMPUTE = "forward MACs x images"


@cache
def published(data: str) -> dict[str, float]:
    """Family -> published slope of log error in log MACs on a data set, CIFAR-10's where it has none."""
    table = pd.read_csv(PUBLISHED)
    own = table[table["data"] == data]
    own = table[table["data"] == "cifar10"] if own.empty else own
    return dict(zip(own["structure"], own["slope"].astype(float), strict=True))


def draw(runs: pd.DataFrame) -> Drawing:
    """A row a model: both errors over compute with the published slope dashed, and slopes here over published ones."""
    last = ends(runs).assign(family=lambda t: t["structure"].astype(str).map(family))
    families = ordered(last["family"].unique())
    data = str(last["data"].iloc[0])
    panels, said = [], []
    for model in sorted(last["model"].unique()):
        part, name = last[last["model"] == model], MODELS.get(str(model), str(model))
        first = training(part)
        for metric in (first, "val_error"):
            series = [s for one in families for s in _of(part[part["family"] == one], one, families, metric, data)]
            panels.append(Panel(f"{name}: {METRICS[metric]}", COMPUTE, METRICS[metric], tuple(series)))
        panels.append(_slopes_panel(part, families, name, data))
        said += [
            f"{name}, of {METRICS[one].split(',')[0]}: {_slopes(part, families, one)}" for one in (first, "val_error")
        ]
    epochs = float((last["tokens"] / last["train_tokens"]).median()) if "train_tokens" in last else math.nan
    theirs = "CIFAR-100" if data == "cifar100" else "CIFAR-10"
    return Drawing(
        name="cifar",
        title="Error against compute on images",
        caption=(
            f"Last evaluation of {last['run_id'].nunique()} runs on data={data} (median {epochs:.0f} epochs), mean and "
            "range over seeds; where some training error is zero, the training loss stands for it. Dashed through the "
            f"mean: published slopes of log training error on {theirs} (arXiv 2406.06248), from whose settings those "
            "of these runs differ. On the right: slopes of log validation error in log MACs, turned round, with 90% "
            f"intervals, over the published ones; dashed: equal. Slopes here: {'. '.join(said)}."
        ),
        panels=tuple(panels),
        columns=3,
        shared_legend=True,
    )


def training(part: pd.DataFrame) -> str:
    """The metric of training that has a logarithm: the error, or the loss where some error is zero."""
    return "train_error" if (part["train_error"] > 0).all() else "train_loss"


def _of(part: pd.DataFrame, name: str, families: list[str], metric: str, data: str) -> list[Series]:
    look = (colour_of(families, name), marker_of(families, name))
    found = curve(part, "paper_flops", metric, readable(name), name, look)
    if found is None:
        return []
    known = published(data).get(name)
    if known is None or len(found.x) < 2 or metric == "train_loss":
        return [found]
    centre, level = np.exp(np.log(found.x).mean()), np.exp(np.log(found.y).mean())
    line = level * (found.x / centre) ** -known
    return [found, Series("", name, found.x, line, "dashed", look[0], said=f"{name}, published slope -{known:g}")]


def _slopes_panel(part: pd.DataFrame, families: list[str], model: str, data: str) -> Panel:
    """The slope of every family, turned round so that better is higher, over the published one."""
    known, series, theirs = published(data), [], []
    for name in families:
        own = part[part["family"] == name]
        found = slope(own["paper_flops"].to_numpy(float), own["val_error"].to_numpy(float))
        if found is None or name not in known:
            continue
        half = found.half if math.isfinite(found.half) else 0.0
        at = [np.array([one]) for one in (known[name], -found.value, -found.value - half, -found.value + half)]
        look = (colour_of(families, name), marker_of(families, name))
        series.append(Series("", name, at[0], at[1], "points", *look, at[2], at[3], said=readable(name)))
        theirs.append(known[name])
    if theirs:
        equal = np.array([0.0, 1.1 * max(theirs)])
        series.append(Series("", "equal", equal, equal, "dashed", "#888888", said="equal"))
    label = "slope, validation error"
    return Panel(
        f"{model}: slopes", "published slope, training error", label, tuple(series), False, False, spread=0.004
    )


def _slopes(part: pd.DataFrame, families: list[str], metric: str) -> str:
    said = []
    for name in families:
        own = part[part["family"] == name]
        found = slope(own["paper_flops"].to_numpy(float), own[metric].to_numpy(float))
        said += [] if found is None else [f"{readable(name)} {found.said}"]
    return ", ".join(said)
