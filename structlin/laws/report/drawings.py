"""Which drawings do the laws allow? Frontier, multipliers and isoFLOP curves on paper; on the page the checks too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from structlin.drawing.drawing import Drawing
from structlin.drawing.names import titled
from structlin.drawing.paint import render
from structlin.drawing.style import ordered
from structlin.host.files import write_atomically
from structlin.laws.approaches.laws import Laws
from structlin.laws.report import curves

# Panels of isoFLOP curves on paper; the page has all.
MOST_PANELS = 4


def drawings(laws: Laws) -> list[Drawing]:
    """All that stands on the page, in its order."""
    return [frontier(laws), *_multipliers(laws), *_isoflop(laws), *_backtest(laws), *_residuals(laws)]


def write(laws: Laws, out: Path) -> list[Path]:
    """frontier, multipliers and isoflop as PNG and PDF under ``out``, those that the laws allow; the paths written."""
    paths = []
    for drawing in (frontier(laws), *_multipliers(laws), *_isoflop(laws, MOST_PANELS)):
        drawing = replace(drawing, title=titled(drawing.title, laws.points.variants))
        for ending, content in zip(("png", "pdf"), render(drawing, "png", "pdf", captioned=True), strict=True):
            path = out / f"{drawing.name}.{ending}"
            write_atomically(path, content)
            paths.append(path)
    return paths


def frontier(laws: Laws) -> Drawing:
    """Loss over compute: runs, frontiers, laws."""
    variants = ordered(laws.points.variants)
    return Drawing(
        name="frontier",
        title="Frontier",
        caption=(
            f"Runs faint, evaluations on the lower hull joined (not over gaps of more than half a decade), the law "
            f"L = E + A C^-a dashed to twice the largest compute; {curves.runs_said(laws)}."
        ),
        panels=(curves.frontier_panel(laws, variants, "loss over compute"),),
        wide=True,
        missing=curves.without_law(laws, variants),
    )


def _multipliers(laws: Laws) -> Iterator[Drawing]:
    """Compute multipliers with their bands, and their means in the legend."""
    if not laws.multipliers:
        return
    variants, base = ordered(laws.points.variants), curves.called(laws)
    panel = curves.multiplier_panel(laws, variants, ordered(laws.multipliers), f"compute of {base} over compute")
    means = {variant: f"mean {found.mean:.2f} ± {found.std:.2f}" for variant, found in laws.multipliers.items()}
    series = tuple(replace(one, label=f"{one.label}: {means[one.variant]}", said=one.label) for one in panel.series)
    yield Drawing(
        name="multipliers",
        title=f"Compute multiplier against {base}",
        caption=(
            f"Above 1 a structure needs less compute than {base} for the same loss. Bands: "
            f"{100 * laws.choices.confidence:.0f}% over resampled runs. {curves.mean_said(laws)}."
        ),
        panels=(replace(panel, series=series),),
        wide=True,
    )


def _isoflop(laws: Laws, most: int | None = None) -> Iterator[Drawing]:
    """IsoFLOP curves of all variants that have them, or of the first ``most``."""
    variants = ordered(laws.isoflops)
    if not variants:
        return
    shown = variants[:most]
    rest = f" {len(shown)} of {len(variants)} variants; report.html has all." if len(shown) < len(variants) else ""
    yield Drawing(
        name="isoflop",
        title="IsoFLOP curves",
        caption=(
            f"Loss over model size at equal compute, one colour a budget (FLOPs: {curves.counted(laws)}), with a "
            "parabola through the models of each and a large mark at its optimum. Without one the smallest or the "
            f"largest model has the lowest loss: the optimum lies outside the sizes that were trained.{rest}"
        ),
        panels=curves.isoflop_panels(laws, shown),
        columns=min(len(shown), 2),
        wide=True,
        shared_y=True,
    )


def _backtest(laws: Laws) -> Iterator[Drawing]:
    panel = curves.backtest_panel(laws, ordered(laws.points.variants), "error above the cut")
    if panel.series:
        caption = "Laws fitted below a compute cut, asked about all above it. Frontier law solid, L(N, D) dashed."
        yield Drawing(name="backtest", title="Backtest", caption=caption, panels=(panel,))


def _residuals(laws: Laws) -> Iterator[Drawing]:
    panel = curves.residual_panel(laws, ordered(laws.points.variants), "predicted against measured")
    if panel.series:
        trends = sorted({c.variant or "" for c in laws.cautions if c.name == "misfit"})
        caption = "A law that fits leaves no trend: points scatter evenly about zero."
        if trends:
            named = ", ".join(curves.called(laws, variant) for variant in trends)
            caption += f" Here it does not fit {named}: see the warnings."
        yield Drawing(name="residuals", title="Residuals of L(N, D)", caption=caption, panels=(panel,))
