"""What do the laws look like on paper? Frontier, multipliers and isoFLOP curves as PNG and PDF.

Colours are Okabe and Ito's, told apart by colour-blind readers; variants differ by marker too, and dense is black with
triangles wherever it stands. The same hold for the figures of analysis/. No text is below 7 pt
at the size of the file. Axes carry their unit and the FLOP convention. Matplotlib is imported here only, without
pyplot: no window system, no global state.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structlin.drawing.paint import power_label
from structlin.drawing.style import colour_of, marker_of, ordered
from structlin.laws.approaches.fit import Laws

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# TrueType fonts (42) in the PDFs: publishers refuse Type 3. Titles at a fixed height, and text without $...$: laying
# out titles and reading mathematics would take as long as drawing everything else.
_STYLE = {"font.size": 8.0, "axes.titlesize": 9.0, "axes.titley": 1.0, "legend.fontsize": 7.5, "xtick.labelsize": 7.5,
          "ytick.labelsize": 7.5, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42,
          "savefig.dpi": 150}  # fmt: skip
# Runs drawn faintly behind a frontier; more are no longer told apart.
_MAX_FAINT = 150
# Room that a label of the compute axis takes.
_INCHES_PER_LABEL = 0.42
# Budgets drawn in a panel of isoFLOP curves.
_MAX_SLICES = 8


def flops_label(laws: Laws) -> str:
    """Axis label of compute with its convention."""
    return f"compute, FLOPs ({laws.points.choices['flops']})"


def _new(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots(1, columns, squeeze=False, sharey=True)
    # Fixed margins in inches: an automatic layout takes longer than drawing the figure.
    figure.subplots_adjust(0.55 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.3 / height, wspace=0.08)
    return figure, list(axes[0])


def draw_frontier(laws: Laws, found: dict[str, Any]) -> Figure:
    """Loss against compute: runs faint, frontier points and hull solid, law dashed."""
    from matplotlib.collections import LineCollection

    figure, (axes,) = _new(5.5, 3.8)
    variants = ordered(laws.points.variants)
    for variant in variants:
        frame, own = laws.points.of(variant), colour_of(variants, variant)
        runs = laws.points.runs_of(variant, _MAX_FAINT)
        lines = [np.column_stack([c, y]) for _, c, y in runs if len(c) > 1]
        axes.add_collection(LineCollection(lines, colors=own, alpha=0.22, lw=0.7, zorder=1))
        dots = np.array([(c[0], y[0]) for _, c, y in runs if len(c) == 1]).reshape(-1, 2)
        axes.plot(*dots.T, ".", color=own, alpha=0.22, ms=2.5, zorder=1)
        law = laws.frontiers.get(variant)
        if law is None:
            axes.plot([], [], color=own, label=f"{variant} (no law: too few points)")
            continue
        c, y = frame["C"].to_numpy()[law.members], frame["L"].to_numpy()[law.members]
        axes.plot(c, y, color=own, marker=marker_of(variants, variant), ms=3, lw=1.3, zorder=3, label=variant)
        fine = np.geomspace(law.span[0] / 1.3, law.span[1] * 3, 120)
        axes.plot(fine, law.loss(fine), color=own, ls="--", lw=1, zorder=2)
    axes.set(xscale="log", yscale="log", xlabel=flops_label(laws), ylabel="validation loss, nats per token")
    axes.autoscale_view()
    _plain_ticks(axes)
    _sparse_decades(axes)
    axes.set_title("Frontier: runs faint, lower hull solid, E + A C^-a dashed", loc="left")
    axes.legend(frameon=False)
    return figure


def _plain_ticks(axes: Axes) -> None:
    """Losses span less than a decade: write them as plain numbers."""
    from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())


def _sparse_decades(axes: Axes, subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """Label these parts of each decade, as 2e18: matplotlib labels every minor tick of a short axis, one over another.

    Where they are too many for the axis, whole decades, or every second or third.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    low, high = (float(np.log10(end)) for end in axes.get_xlim())
    width = axes.get_window_extent().width / axes.figure.dpi
    most = max(int(width / _INCHES_PER_LABEL), 2)
    every = 1
    while len(ticks := _log_ticks(low, high, subs, every)) > most:
        every, subs = (every, (1.0,)) if len(subs) > 1 else (every + 1, subs)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: power_label(value)))
    axes.xaxis.set_minor_locator(FixedLocator(_log_ticks(low, high, tuple(range(1, 10)), 1)[:200]))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _log_ticks(low: float, high: float, subs: tuple[float, ...], every: int) -> list[float]:
    """The given parts of every ``every``-th decade between two base-10 logarithms."""
    decades = [d for d in range(int(np.floor(low)), int(np.ceil(high)) + 1) if d % every == 0]
    ticks = [part * 10.0**decade for decade in decades for part in subs]
    return [tick for tick in ticks if low - 1e-9 <= np.log10(tick) <= high + 1e-9]


def draw_multipliers(laws: Laws, found: dict[str, Any]) -> Figure:
    """Compute multiplier of every variant over the baseline's compute, with its band."""
    figure, (axes,) = _new(5.5, 3.4)
    variants = laws.points.variants
    axes.axhline(1.0, color="0.5", lw=0.8)
    for variant in ordered(laws.multipliers):
        m = laws.multipliers[variant]
        own = colour_of(variants, variant)
        axes.fill_between(m.flops, m.low, m.high, color=own, alpha=0.18, lw=0)
        axes.plot(m.flops, m.value, color=own, lw=1.4, label=f"{variant}: mean {m.mean:.2f} ± {m.std:.2f}")
    axes.set(
        xscale="log",
        xlabel=f"compute of {laws.baseline} at equal loss, FLOPs ({laws.points.choices['flops']})",
        ylabel=f"compute multiplier against {laws.baseline}",
    )
    _sparse_decades(axes)
    title = f"C of {laws.baseline} / C at equal loss, {100 * laws.choices.confidence:.0f}% bands over runs"
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    return figure


def draw_isoflop(laws: Laws, found: dict[str, Any]) -> Figure:
    """Loss against model size at each budget, one panel per variant, with its parabola."""
    from matplotlib import colormaps

    shown = ordered(laws.isoflops)[:4]
    figure, panels = _new(2.6 * len(shown) + 0.8, 3.2, len(shown))
    for axes, variant in zip(panels, shown, strict=True):
        slices = laws.isoflops[variant].slices
        slices = slices[:: -(-len(slices) // _MAX_SLICES)]
        for k, s in enumerate(slices):
            own = colormaps["viridis"](0.9 * k / max(len(slices) - 1, 1))
            axes.plot(s.size, s.loss, color=own, marker="o", ms=3, lw=0)
            x = np.linspace(np.log(s.size[0]), np.log(s.size[-1]), 60)
            centred = x - np.log(s.size).mean()
            axes.plot(np.exp(x), np.polyval(s.parabola[::-1], centred), color=own, lw=0.9)
            if s.edge is None and np.isfinite(s.optimum):
                low = np.polyval(s.parabola[::-1], np.log(s.optimum) - np.log(s.size).mean())
                axes.plot([s.optimum], [low], color=own, marker="*", ms=7, mec="black", mew=0.4)
        axes.set(xscale="log", xlabel="model size N", title=variant)
        _sparse_decades(axes, (1.0, 3.0))
    panels[0].set_ylabel("loss, nats per token")
    return figure


def write(laws: Laws, found: dict[str, Any], out: Path) -> list[Path]:
    """All figures that the laws allow, as PNG and PDF under ``out``; the paths written."""
    import matplotlib

    drawn: dict[str, Callable[[Laws, dict[str, Any]], Figure]] = {"frontier": draw_frontier}
    if laws.multipliers:
        drawn["multipliers"] = draw_multipliers
    if laws.isoflops:
        drawn["isoflop"] = draw_isoflop
    paths = []
    out.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        for name, draw in drawn.items():
            figure = draw(laws, found)
            for ending in ("png", "pdf"):
                path = out / f"{name}.{ending}"
                # No date in the file: the same laws give the same bytes.
                figure.savefig(path, metadata={"CreationDate": None} if ending == "pdf" else None)
                paths.append(path)
    return paths
