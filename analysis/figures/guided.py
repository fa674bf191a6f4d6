"""Does a dense matrix that guides the beginning help structured feed-forward networks? Gaps to dense at equal FLOPs.

Source: arXiv 2406.16450, its tables of perplexities and of self-guided training.
"""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import COLOURS

from .gaps import NAMES, gap, of_gaps, published_gap, with_kinds
from .lines import ends

STUDY = "guided"
LAWS = False
KINDS = tuple((family, percent) for percent in (63, 32) for family in ("low_rank", "block_dense", "block_shuffle"))
GUIDES = {"none": "no guide", "stochastic": "stochastic guide", "full": "full guide"}
LOOKS = {"none": (COLOURS[2], "o"), "stochastic": (COLOURS[1], "s"), "full": (COLOURS[3], "D")}
LARGEST = "xl"


def draw(runs: pd.DataFrame) -> Drawing:
    """Loss above the dense runs of the same width and seeds, by structure and guide, beside the published gaps."""
    last = with_kinds(ends(runs))
    widths = sorted(last["d_model"].unique())
    panels = tuple(_panel(last[last["d_model"] == width], f"width {width}") for width in widths)
    dense = last[last["family"] == "dense"]
    return Drawing(
        name="guided",
        title="Structured feed-forward networks with and without guide",
        caption=(
            f"Validation loss above that of dense at the end of {last['run_id'].nunique()} runs on "
            f"data={last['data'].iloc[0]}, {_flops(last)}: mean of the differences to the dense run of the same seed, "
            f"with 90% intervals ({dense['seed'].nunique()} seeds; dense: {_losses(dense)} nats). A guide is counted, "
            f"so its runs have fewer steps. What a guide changes, by seed: {'; '.join(_changes(last))}. Published: ln "
            "of the perplexities' ratio to dense of the models of 1.3 billion parameters on RefinedWeb (arXiv "
            "2406.16450), without guide at equal tokens, with guide at equal FLOPs and to one digit of perplexity; "
            "tokens there are of a vocabulary of 32,000, here characters."
        ),
        panels=panels,
        shared_legend=True,
        wide=True,
    )


def _panel(last: pd.DataFrame, title: str) -> Panel:
    base = last[last["family"] == "dense"]
    series = []
    for place, (guide, words) in enumerate(GUIDES.items()):
        found = [(index, gap(_of(last, *kind, guide), base)) for index, kind in enumerate(KINDS)]
        kept = [(index, one) for index, one in found if one is not None]
        if kept:
            at = [index + 0.2 * (place - 1) for index, _ in kept]
            series.append(of_gaps(words, words, at, [one for _, one in kept], LOOKS[guide]))
    series += [_published(guide, place) for place, guide in enumerate(("none", "stochastic"))]
    names = tuple(f"{NAMES[family]} {percent}%" for family, percent in KINDS)
    return Panel(title, "", "nats above dense", tuple(series), x_log=False, y_log=False, level=0.0, names=names)


def _published(guide: str, place: int) -> Series:
    found = [(index, published_gap(LARGEST, *kind, guide)) for index, kind in enumerate(KINDS)]
    kept = [(index + 0.3 + 0.1 * place, value) for index, value in found if value is not None]
    x, y = pd.DataFrame(kept).to_numpy(float).T
    words = f"published, {LARGEST}, {GUIDES[guide]}"
    return Series(words, words, x, y, "points", "#777777", ("v", "^")[place])


def _of(last: pd.DataFrame, family: str, percent: int, guide: str) -> pd.DataFrame:
    return last[(last["family"] == family) & (last["percent"] == percent) & (last["guide"] == guide)]


def _changes(last: pd.DataFrame) -> list[str]:
    """low rank 63%, stochastic: -0.010 ± 0.003."""
    said = []
    for family, percent in KINDS:
        for guide in ("stochastic", "full"):
            found = gap(_of(last, family, percent, guide), _of(last, family, percent, "none"))
            said += [] if found is None else [f"{NAMES[family]} {percent}%, {guide} {found.said}"]
    return said


def _losses(dense: pd.DataFrame) -> str:
    return ", ".join(f"{loss:.3f}" for loss in dense.sort_values("seed")["val_loss"])


def _flops(last: pd.DataFrame) -> str:
    low, high = last["training_flops"].min(), last["training_flops"].max()
    return f"{high:.2g} training FLOPs each" if high < 1.05 * low else f"{low:.2g} to {high:.2g} training FLOPs"
