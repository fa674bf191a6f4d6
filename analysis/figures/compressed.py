"""Which way leads to the lowest loss for a given compute, all of it counted: from scratch, compressed, or made dense?

Sources of the ways: dense to structured by nearest factors, on their inputs (arXiv 2309.14021, 2403.07378) or as MPO by
TT-SVD; structured to dense is the reverse sparsification of arXiv 2204.00595.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import COLOURS, MARKERS

from .gaps import NAMES, Gap, gap, mean_of, of_gaps, with_kinds
from .lines import ends

STUDY = "compressed"
LAWS = False
WAYS = {
    "dense": "dense",
    "scratch": "low rank",
    "nearest": "dense, then low rank (nearest)",
    "aware": "dense, then low rank (on its inputs)",
    "mpo": "dense, then MPO (TT-SVD)",
    "reverse": "low rank, then dense",
}
SHORT = {"scratch": "low rank alone", "nearest": "to low rank, nearest", "aware": "to low rank, on inputs",
         "mpo": "to MPO, TT-SVD", "reverse": "low rank to dense"}  # fmt: skip
LOOKS = {way: (COLOURS[place], MARKERS[place] if place else "^") for place, way in enumerate(WAYS)}


def draw(runs: pd.DataFrame) -> Drawing:
    """Loss over all training FLOPs before and after healing, and the gaps to dense from scratch at equal FLOPs."""
    table, parents = with_ways(runs), with_kinds(runs[runs["schedule"] == "constant"])
    last = ends(table)
    seeds, shares = last["seed"].nunique(), sorted(last.loc[last["share"] > 0, "share"].unique())
    base = last[last["way"] == "dense"]
    return Drawing(
        name="compressed",
        title="From scratch, compressed, or made dense",
        caption=(
            f"GPT-2 of width {last['d_model'].iloc[0]} on data={last['data'].iloc[0]}, {seeds} seeds; compute is all "
            "of it, that of the run one starts from included. Above: mean of the loss right after the "
            "conversion (no healing) and at the end; dashed, the runs that one starts from, at a constant rate. Below: "
            "loss at the end above that of dense from scratch at as many FLOPs, mean difference by seed with 90% "
            f"intervals, by the share of FLOPs before the conversion.{_one_shot(table, parents)}"
        ),
        panels=(_course(table, parents), _gap_panel(last, base, shares)),
        shared_legend=False,
        columns=1,
        wide=True,
    )


def with_ways(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of decayed runs with their ``way`` and the ``share`` of FLOPs before the conversion (0 from scratch)."""
    table = with_kinds(runs[runs["schedule"] == "cosine"])
    started = table["inherited_flops"].fillna(0.0) > 0
    way = table["config.start.conversion"].astype(object).astype(str).where(started, "scratch")
    way = way.where(table["family"] != "mpo", "mpo")
    dense = table["family"] == "dense"
    way = way.where(~dense, started.map({True: "reverse", False: "dense"}))
    share = pd.to_numeric(table["config.start.share"], errors="coerce").where(started, 0.0).fillna(0.0)
    return table.assign(way=way, share=share.round(3))


def _course(table: pd.DataFrame, parents: pd.DataFrame) -> Panel:
    """Every way's losses over all training FLOPs; those of one start are joined."""
    series = [
        _line(
            "",
            "dense" if family == "dense" else "scratch",
            part,
            "dashed",
            f"{NAMES.get(str(family), family)}, constant",
        )
        for family, part in parents.groupby("family")
    ]
    for way, words in WAYS.items():
        own = table[table["way"] == way]
        for place, share in enumerate(sorted(own["share"].unique())):
            said = f"{words}, {share:.0%} before" if share else words
            series.append(_line("" if place else words, way, own[own["share"] == share], "joined", said))
    label = "training FLOPs, inherited ones included"
    return Panel("loss over all training FLOPs", label, "nats per token", tuple(series))


def _line(label: str, way: str, part: pd.DataFrame, style: str, said: str) -> Series:
    """Mean over seeds at every step of evaluation."""
    by_step = part.groupby("step")
    x, loss = by_step["training_flops"].mean().to_numpy(float), by_step["val_loss"]
    mean = loss.mean().to_numpy(float)
    if style == "dashed":
        return Series(label, way, x, mean, style, LOOKS[way][0], said=said)
    return Series(label, way, x, mean, style, *LOOKS[way], said=said)


def _gap_panel(last: pd.DataFrame, base: pd.DataFrame, shares: list[float]) -> Panel:
    names, series = list(SHORT), []
    for place, share in enumerate([0.0, *shares]):
        found: list[tuple[float, Gap]] = []
        for index, way in enumerate(names):
            one = gap(last[(last["way"] == way) & (last["share"] == share)], base)
            offset = 0.18 * (place - 1 - (len(shares) - 1) / 2) if share else 0.0
            found += [] if one is None else [(index + offset, one)]
        if found:
            words = f"{share:.0%} before" if share else "from scratch"
            look = (COLOURS[(0, 2, 1, 3)[place % 4]], ("^", "o", "s", "D")[place % 4])
            series.append(of_gaps(words, words, [at for at, _ in found], [one for _, one in found], look))
    return Panel(
        "gap to dense at equal FLOPs", "", "nats above dense", tuple(series), x_log=False, y_log=False, level=0.0,
        names=tuple(SHORT.values()),
    )  # fmt: skip


def _one_shot(table: pd.DataFrame, parents: pd.DataFrame) -> str:
    """What a conversion alone costs: by seed, the loss before healing less the parent's; for a caption."""
    first = table[table["step"] == 0]
    known = {(row.seed, row.step): row.val_loss for row in parents[parents["family"] == "dense"].itertuples()}
    said = []
    for way in ("nearest", "aware", "mpo"):
        for share, part in first[first["way"] == way].groupby("share"):
            pairs = zip(part["seed"], part["config.start.step"], part["val_loss"], strict=True)
            lost = [loss - known[seed, step] for seed, step, loss in pairs if (seed, step) in known]
            said += [f"{SHORT[way]}, after {share:.0%} {mean_of(np.array(lost)).said}"] if lost else []
    return f" What a conversion alone costs, in nats: {'; '.join(said)}." if said else ""
