"""What does a person read in the terminal? The laws, the multipliers, the optima, and the warnings."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from structlin.drawing.terminal import Columns, terminal
from structlin.drawing.terminal import show as fitting
from structlin.laws.approaches.multiplier import MEANS
from structlin.laws.caution import Caution

# Budgets of one variant in the terminal; all of them stand in laws.json.
_MAX_BUDGETS = 5


def show(found: dict[str, Any], console: Console | None = None) -> None:
    """Print a record (``record.record``) as tables."""
    console = console or terminal()
    confidence = f"{100 * found['choices']['confidence']:.0f}%"
    for table in (_frontier(found, confidence), _multipliers(found, confidence), _parametric(found, confidence),
                  _optima(found), _resources(found), _backtest(found)):  # fmt: skip
        fitting(table, console)
    for item in found["warnings"]:
        caution = Caution(item["name"], item["text"], item["variant"])
        console.print(Text.assemble(("warning", "yellow"), f" {caution.line()}"), soft_wrap=True)


def _table(title: str, *columns: str) -> Columns:
    """A table that loses no digit at any width (drawing/terminal.py)."""
    return Columns(columns, f"\n{title}", texts=("best run", "where"))


def number(value: float | None, digits: int = 3) -> str:
    """A number of few digits; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.{digits}g}"


def share(score: dict[str, Any]) -> str:
    """``93% of 14``: rows inside the stated interval, or that none was stated."""
    return "-" if score["coverage"] is None else f"{100 * score['coverage']:.0f}% of {score['rows']}"


def span(ends: dict[str, float] | None, digits: int = 3) -> str:
    """``[low, high]``."""
    return "" if ends is None else f"[{number(ends['low'], digits)}, {number(ends['high'], digits)}]"


def mean_over(found: dict[str, Any]) -> str:
    """What the mean of a multiplier goes over, by the chosen procedure."""
    return MEANS[found["choices"]["procedure"]]


def _frontier(found: dict[str, Any], confidence: str) -> Columns:
    table = _table(
        "Frontier  L = E + A C^-a  (approach 1)",
        "variant",
        "E",
        "A",
        "a",
        "corrected",
        f"a, {confidence}",
        "points",
        "runs",
        "FLOPs",
    )
    for variant, law in found["frontier"].items():
        low, high = law["flops_range"]
        table.add(
            variant, number(law["E"], 4), number(law["A"], 4), number(law["a"]),
            number(law["corrected"]["a"]), span(law["interval"]["a"]), str(law["n"]), str(law["runs"]),
            f"{low:.1e} .. {high:.1e}",
        )  # fmt: skip
    return table


def _multipliers(found: dict[str, Any], confidence: str) -> Columns:
    base = found["choices"]["baseline_used"]
    title = f"Compute multiplier  C_{base}(L) / C_x(L)\nmean and std {mean_over(found)}"
    table = _table(
        title, "variant", "mean", "std", f"mean, {confidence}",
        "at lowest loss", confidence, "P(better)", "crossing FLOPs",
    )  # fmt: skip
    for variant, m in found["multipliers"].items():
        table.add(
            variant, number(m["mean"]), number(m["std"], 2), span(m["interval"]["mean"]), number(m["at_end"]),
            span(m["interval"]["at_end"]), number(m["better"], 2), number(m["crossing_flops"]),
        )  # fmt: skip
    return table


def _parametric(found: dict[str, Any], confidence: str) -> Columns:
    title = "Parametric  L = E + A/N^alpha + B/D^beta  (approach 3)"
    if found["choices"]["form"] == "powered":
        title = "Parametric  L = E + (A/N^alpha + B/D^beta)^gamma  (approach 3)"
    table = _table(
        title, "variant", "E", "alpha", confidence, "beta", confidence, "N_opt ~ C^", "objective", "condition"
    )
    for variant, law in found["parametric"].items():
        ends = law["interval"]
        table.add(
            variant, number(law["E"], 4), number(law["alpha"]), span(ends["alpha"], 2), number(law["beta"]),
            span(ends["beta"], 2), number(law["size_exponent"]), number(law["objective"], 4),
            number(law["condition"], 2),
        )  # fmt: skip
    return table


def _optima(found: dict[str, Any]) -> Columns:
    table = _table("Optimum per budget  (approach 2)", "variant", "FLOPs", "width", "N", "tokens", "best run", "where")
    for variant, law in found["isoflop"].items():
        rows = law["budgets"]
        step = max(1, -(-len(rows) // _MAX_BUDGETS))
        for row in rows[len(rows) - 1 :: -step][::-1]:
            place = "interior" if row["edge"] is None else f"edge: {row['edge']} model"
            best = f"N {row['best_size']:.3g}" if row["best_width"] is None else f"width {row['best_width']:g}"
            table.add(
                variant, f"{row['budget']:.2e}", number(row["optimal_width"]), number(row["optimal_size"]),
                number(row["optimal_tokens"]), best, place,
            )  # fmt: skip
    return table


def _resources(found: dict[str, Any]) -> Columns:
    names = ["FLOPs", "wall-clock", "parameters", "memory"]
    table = _table(
        f"Mean multiplier against {found['choices']['baseline_used']} by resource (-: not measured, or too few points)",
        "variant",
        *names,
    )
    for variant, row in found.get("resources", {}).items():
        cells = [f"{number(m['mean'])} {span(m['interval']['mean'])}" if (m := row[name]) else "-" for name in names]
        table.add(variant, *cells)
    return table


def _backtest(found: dict[str, Any]) -> Columns:
    table = _table(
        "Backtest: fitted below a cut, predicted above it", "variant", "cut, FLOPs", "reach", "frontier error", "bias",
        "in interval", "L(N, D) error", "bias", "in interval",
    )  # fmt: skip
    for variant, cuts in found.get("backtest", {}).get("variants", {}).items():
        for row in cuts[-2:]:
            cells = []
            for score in (row["frontier"], row["parametric"]):
                if score is None:
                    cells += ["-", "-", "-"]
                else:
                    shown = [f"{100 * score[key]:{form}}%" for key, form in (("error", ".2f"), ("bias", "+.2f"))]
                    cells += [*shown, share(score)]
            table.add(variant, f"{row['cut']:.1e}", f"{row['reach']:.1f}x", *cells)
    return table
