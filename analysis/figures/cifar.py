"""Error against compute of MLPs and ViTs on images at equal epochs, with the published slopes (arXiv 2406.06248)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import colour_of, marker_of, ordered

from .lines import curve, ends, family, slope

STUDY = "cifar"
LAWS = False
PUBLISHED = Path(__file__).resolve().parents[1] / "published_slopes.csv"
METRICS = {"train_error": "training error, augmented images", "val_error": "validation error"}


@cache
def published(data: str) -> dict[str, float]:
    """Family -> published slope of log error in log MACs on a data set, CIFAR-10's where it has none."""
    table = pd.read_csv(PUBLISHED)
    own = table[table["data"] == data]
    own = table[table["data"] == "cifar10"] if own.empty else own
    return dict(zip(own["structure"], own["slope"].astype(float), strict=True))


def draw(runs: pd.DataFrame) -> Drawing:
    """A panel a model and metric: mean and range over seeds at the end of each run, and the published slope dashed."""
    last = ends(runs).assign(family=lambda t: t["structure"].astype(str).map(family))
    families = ordered(last["family"].unique())
    data = str(last["data"].iloc[0])
    panels, said = [], []
    for model in sorted(last["model"].unique()):
        for metric, label in METRICS.items():
            part = last[last["model"] == model]
            series = [s for name in families for s in _of(part[part["family"] == name], name, families, metric, data)]
            panels.append(Panel(f"{str(model).upper()}: {label}", "forward MACs x images", label, tuple(series)))
        said.append(f"{str(model).upper()}: {_slopes(last[last['model'] == model], families)}")
    epochs = float((last["tokens"] / last["train_tokens"]).median()) if "train_tokens" in last else float("nan")
    return Drawing(
        name="cifar",
        title="Error against compute on images",
        caption=(
            f"Last evaluation of {last['run_id'].nunique()} runs on data={data} (median {epochs:.0f} epochs), mean and "
            "range over seeds; errors of zero leave the panel. Dashed through the mean: published slopes of log "
            f"training error on {'CIFAR-100' if data == 'cifar100' else 'CIFAR-10'} (arXiv 2406.06248). Slopes of log "
            f"validation error here, with 90% intervals: {'. '.join(said)}."
        ),
        panels=tuple(panels),
        columns=2,
        shared_legend=True,
    )


def _of(part: pd.DataFrame, name: str, families: list[str], metric: str, data: str) -> list[Series]:
    look = (colour_of(families, name), marker_of(families, name))
    found = curve(part, "paper_flops", metric, name, name, look)
    if found is None:
        return []
    known = published(data).get(name)
    if known is None or len(found.x) < 2:
        return [found]
    centre, level = np.exp(np.log(found.x).mean()), np.exp(np.log(found.y).mean())
    line = level * (found.x / centre) ** -known
    return [found, Series("", name, found.x, line, "dashed", look[0], said=f"{name}, published slope -{known:g}")]


def _slopes(part: pd.DataFrame, families: list[str]) -> str:
    said = []
    for name in families:
        own = part[part["family"] == name]
        found = slope(own["paper_flops"].to_numpy(float), own["val_error"].to_numpy(float))
        said += [] if found is None else [f"{name} {found.said}"]
    return ", ".join(said)
