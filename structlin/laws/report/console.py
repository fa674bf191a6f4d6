"""What does a person read in the terminal? The laws, the multipliers, the optima, and the warnings."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from structlin.drawing.names import shared, shortened
from structlin.drawing.terminal import Columns, terminal
from structlin.drawing.terminal import show as fitting
from structlin.laws.approaches.multiplier import MEANS
from structlin.laws.approaches.parametric import FORMS
from structlin.laws.caution import CAUTIONS
from structlin.laws.checks.resources import RESOURCES
from structlin.laws.verdict import TOUCHING

# Budgets of one variant in the terminal; all of them stand in laws.json.
_MAX_BUDGETS = 5


def show(found: dict[str, Any], console: Console | None = None) -> None:
    """Print a record (``record.record``) as tables."""
    console = console or terminal()
    common, found = shared(found["data"]), shortened(found, found["data"])
    confidence = f"{100 * found['choices']['confidence']:.0f}%"
    for sentence in found["verdict"].values():
        console.print(Text(sentence), soft_wrap=True)
    if common:
        console.print(Text(common), soft_wrap=True)
    for table in (_multipliers(found, confidence), _predictions(found), _frontier(found, confidence),
                  _parametric(found, confidence), _forms(found), _optima(found), _resources(found),
                  _backtest(found), _rates(found), _mixtures(found), _scores(found)):  # fmt: skip
        fitting(table, console)
    if found.get("score"):
        console.print(Text(score_said(found["score"])), soft_wrap=True)
    for name, items in grouped(found["warnings"]).items():
        text = f" {name}: {CAUTIONS[name]} ({', '.join(of or 'all' for of in items)})"
        console.print(Text.assemble(("warning", "yellow"), text), soft_wrap=True)
        for about, said in items.items():
            for one in said:
                console.print(Text(f"    {about or 'all'}: {one}"), soft_wrap=True)


def grouped(warnings: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Warnings by name, those that touch a verdict first, then by variant (empty for all)."""
    found: dict[str, dict[str, list[str]]] = {}
    for item in sorted(warnings, key=lambda one: one["name"] not in TOUCHING):
        found.setdefault(item["name"], {}).setdefault(item["variant"] or "", []).append(item["text"])
    return found


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
    return "-" if ends is None else f"[{number(ends['low'], digits)}, {number(ends['high'], digits)}]"


def thin(found: dict[str, Any], variant: str) -> bool:
    """Whether a variant has too few runs, or too short a range of compute, for anything but multipliers."""
    return "optima" in found["withheld"].get(variant, ())


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
            number((law["corrected"] or {}).get("a")), span(law["interval"]["a"]), str(law["n"]), str(law["runs"]),
            f"{low:.1e} .. {high:.1e}",
        )  # fmt: skip
    return table


def _multipliers(found: dict[str, Any], confidence: str) -> Columns:
    base = found["choices"]["baseline_used"]
    title = f"Compute multiplier  C_{base}(L) / C_x(L)\nmean and std {mean_over(found)}"
    table = _table(
        title, "variant", "mean", "std", f"mean, {confidence}",
        "at lowest loss", confidence, "to FLOPs", "P(better)", "crossing FLOPs",
    )  # fmt: skip
    for variant, m in found["multipliers"].items():
        table.add(
            variant, number(m["mean"]), number(m["std"], 2), span(m["interval"]["mean"]), number(m["at_end"]),
            span(m["interval"]["at_end"]), f"{m['flops_range'][1]:.1e}", number(m["better"], 2),
            number(m["crossing_flops"]),
        )  # fmt: skip
    return table


def _predictions(found: dict[str, Any]) -> Columns:
    table = _table(
        "Predicted at the compute-optimal size", "variant", "FLOPs", "beyond", "loss", "interval", "N", "tokens",
        "width", "multiplier", "interval",
    )  # fmt: skip
    for one in found["predictions"]:
        ends = one["interval"] or {}
        beyond = "-" if one["reach"] is None else f"{one['reach']:.3g}x"
        table.add(
            one["variant"], number(one["flops"]), beyond, number(one["loss"], 4), span(ends.get("loss"), 4),
            number(one["params"]), number(one["tokens"]), number(one["width"]), number(one["multiplier"]),
            span(ends.get("multiplier")),
        )  # fmt: skip
    return table


def _forms(found: dict[str, Any]) -> Columns:
    table = _table("Forms of L(N, D): error of the largest computes, foretold from those below", "variant",
                   *FORMS, "chosen")  # fmt: skip
    for variant, forms in found["forms"].items():
        errors = [forms[form]["held_out"] if form in forms else None for form in FORMS]
        if any(error is not None for error in errors):
            cells = ["-" if error is None else f"{100 * error:.2f}%" for error in errors]
            table.add(variant, *cells, found["form"][variant])
    return table


def _rates(found: dict[str, Any]) -> Columns:
    table = _table(
        "Optimal rate and batch  x = K N^n D^d", "variant", "what", "n", "interval", "d", "interval", "optima"
    )
    for variant, laws in found.get("rates", {}).items():
        for what, law in laws.items():
            ends = law["interval"]
            table.add(
                variant, what, number(law["size"]), span(ends["size"]), number(law["tokens"]),
                span(ends["tokens"]), str(len(law["optima"])),
            )  # fmt: skip
    return table


def _mixtures(found: dict[str, Any]) -> Columns:
    title = "Mixtures  L = E + A (T/N)^-zeta N^-alpha + B/D^beta: active size that a plain model would need"
    table = _table(title, "mixture", "experts", "total / active", "multiplier", "interval", "zeta", "interval")
    for law in found.get("mixtures", {}).values():
        for one in law["multipliers"]:
            table.add(
                one["variant"], number(one["experts"]), number(one["ratio"]), number(one["multiplier"]),
                span(one["interval"]), number(law["zeta"]), span(law["interval"]["zeta"]),
            )  # fmt: skip
    return table


def _scores(found: dict[str, Any]) -> Columns:
    table = _table(
        "Forecast against measured", "variant", "FLOPs", "predicted", "measured", "error", "in the interval",
        "multiplier predicted", "multiplier measured", "in its interval",
    )  # fmt: skip
    for one in (found.get("score") or {}).get("scores", []):
        gain = one["multiplier"] or {"predicted": None, "measured": None, "inside": None}
        table.add(one["variant"], number(one["flops"]), number(one["predicted"], 4),
                  number(one["measured"], 4), f"{100 * one['error']:+.2f}%", _in_or_out(one["inside"]),
                  number(gain["predicted"]), number(gain["measured"]), _in_or_out(gain["inside"]))  # fmt: skip
    return table


def _in_or_out(inside: bool | None) -> str:
    return "-" if inside is None else "in" if inside else "out"


def score_said(score: dict[str, Any]) -> str:
    """A forecast's score and the running record in one line."""
    judged = [one for one in score["scores"] if one["inside"] is not None]
    held = f"{sum(one['inside'] for one in judged)} of {len(judged)} in their intervals"
    waiting = f", {len(score['waiting'])} not reached yet" if score["waiting"] else ""
    gains = [one["multiplier"] for one in score["scores"] if (one["multiplier"] or {}).get("inside") is not None]
    held += f", of multipliers {sum(one['inside'] for one in gains)} of {len(gains)}" if gains else ""
    named = sum(one["predicted"] == one["measured"] for one in score["winners"])
    held += f", the best foretold at {named} of {len(score['winners'])} computes" if score["winners"] else ""
    record = score["record"]
    error = "-" if record["median_error"] is None else f"{100 * record['median_error']:.2f}%"
    return (
        f"forecast {score['forecast']} of {score['date']}: {len(score['scores'])} scored, {held}{waiting}; all "
        f"{record['forecasts']} forecasts: {record['inside']} of {record['with_interval']} in, median error {error}"
    )


def _parametric(found: dict[str, Any], confidence: str) -> Columns:
    title = "Parametric  L = E + A/N^alpha + B/D^beta  (approach 3), or its form powered or coupled"
    table = _table(
        title, "variant", "form", "E", "alpha", confidence, "beta", confidence, "N_opt ~ C^", "objective", "condition"
    )
    for variant, law in found["parametric"].items():
        if thin(found, variant):
            continue
        ends = law["interval"]
        table.add(
            variant, law["form"], number(law["E"], 4), number(law["alpha"]), span(ends["alpha"], 2),
            number(law["beta"]), span(ends["beta"], 2), number(law["size_exponent"]), number(law["objective"], 4),
            number(law["condition"], 2),
        )  # fmt: skip
    return table


def _optima(found: dict[str, Any]) -> Columns:
    table = _table("Optimum per budget  (approach 2)", "variant", "FLOPs", "width", "N", "tokens", "best run", "where")
    for variant, law in found["isoflop"].items():
        if thin(found, variant):
            continue
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
    names = list(RESOURCES.values())
    table = _table(
        f"Mean multiplier against {found['choices']['baseline_used']} by resource (-: not measured, or too few points)",
        "variant",
        *names,
    )
    for variant, row in found.get("resources", {}).items():
        cells = [
            f"{number(m['mean'])} {span(m['interval']['mean'])}" if (m := row.get(name)) else "-" for name in names
        ]
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
