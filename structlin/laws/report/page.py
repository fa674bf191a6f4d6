"""What do the laws say, for a person who opens one file? Warnings, tables and charts to look into (sheet.py)."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from structlin.drawing.charts import charts_in, section
from structlin.drawing.names import short, shortened
from structlin.drawing.sheet import Rows, boxes_of, sheet, table
from structlin.drawing.style import colour_of, ordered
from structlin.host.files import write_atomically
from structlin.laws.approaches.laws import Laws
from structlin.laws.caution import CAUTIONS
from structlin.laws.checks.resources import RESOURCES
from structlin.laws.report import head
from structlin.laws.report.console import grouped, mean_over, number, share, span, thin
from structlin.laws.report.drawings import drawings


def tables(found: dict[str, Any]) -> str:
    """Multipliers, frontier, parametric law, optima."""
    confidence = f"{100 * found['choices']['confidence']:.0f}%"
    base = found["choices"]["baseline_used"]
    multiplier: Rows = [
        [v, number(m["mean"]), number(m["std"], 2), span(m["interval"]["mean"]), number(m["at_end"]),
         span(m["interval"]["at_end"]), number(m["better"], 2), number(m["crossing_flops"])]
        for v, m in found["multipliers"].items()
    ]  # fmt: skip
    frontier: Rows = [
        [
            v,
            number(m["E"], 4),
            number(m["A"], 4),
            number(m["a"]),
            number((m["corrected"] or {}).get("a")),
            span(m["interval"]["a"]),
            str(m["n"]),
            str(m["runs"]),
        ]
        for v, m in found["frontier"].items()
    ]
    parametric: Rows = [
        [v, m["form"], number(m["E"], 4), span(m["interval"]["E"]), number(m["alpha"]), span(m["interval"]["alpha"]),
         number(m["beta"]), span(m["interval"]["beta"]), number(m["size_exponent"]), number(m["objective"], 5),
         number(m["condition"], 2), "yes" if m["converged"] else "no"]
        for v, m in found["parametric"].items() if not thin(found, v)
    ]  # fmt: skip
    optima: Rows = [
        [v, f"{r['budget']:.2e}", number(r["optimal_width"]), number(r["optimal_size"]), number(r["optimal_tokens"]),
         "interior" if r["edge"] is None else f"edge: {r['edge']} model"]
        for v, m in found["isoflop"].items() if not thin(found, v) for r in m["budgets"]
    ]  # fmt: skip
    return (
        table(f"Compute multiplier against {base}",
               f"Compute of the baseline over that of the structure, at equal loss. Mean and std {mean_over(found)}.",
               ["variant", "mean", "std", confidence, "at lowest loss", confidence, "P(better)", "crossing FLOPs"],
               multiplier)
        + table("Frontier law (approach 1)", "L = E + A C^-a through the lower hull; corrected for gaps "
                 "between the sizes and for lucky runs, as the interval is.",
                 ["variant", "E", "A", "a", "a corrected", f"a, {confidence}", "points", "runs"], frontier)
        + table("Parametric law (approach 3)", "The lowest minimum of the objective, with its certificate.",
                 ["variant", "form", "E", confidence, "alpha", confidence, "beta", confidence, "N_opt ~ C^",
                  "objective",
                  "condition", "converged"], parametric)
        + table("Optimum per budget (approach 2)", "Interior: the best size lies between sizes that were trained.",
                 ["variant", "FLOPs", "width", "N", "tokens", "where"], optima)
    )  # fmt: skip


def more_tables(found: dict[str, Any]) -> str:
    """Resources, agreement, backtest, joint laws, sensitivity."""
    names = list(RESOURCES.values())
    resources: Rows = [
        [v, *(f"{number(m['mean'])} {span(m['interval']['mean'])}" if (m := row.get(n)) else "-" for n in names)]
        for v, row in found.get("resources", {}).items()
    ]
    agreement: Rows = [
        [v, r["quantity"], r["approach"], number(r["value"]), span(r["interval"])]
        for v, rows in found.get("agreement", {}).items() for r in rows
    ]  # fmt: skip
    backtest: Rows = [
        [v, f"{r['cut']:.2e}", f"{r['reach']:.1f}x", fit,
         f"{100 * r[fit]['error']:.2f}%", f"{100 * r[fit]['bias']:+.2f}%",
         share(r[fit])]
        for v, cuts in found.get("backtest", {}).get("variants", {}).items()
        for r in cuts for fit in ("frontier", "parametric") if r[fit]
    ]  # fmt: skip
    joint: Rows = [
        [name, str(m["parameters"]), number(m["residual_std"]), number(m["aicc"], 5), number(m["held_out"]),
         number(m.get("likelihood_ratio")), number(m.get("p_value"), 2), number(m["condition"], 2)]
        for name, m in found.get("joint", {}).get("models", {}).items()
    ]  # fmt: skip
    sensitivity: Rows = [
        [v, r["change"], *(number(r[n]) for n in ("E", "alpha", "beta", "size_exponent", "compute_exponent"))]
        for v, rows in found.get("sensitivity", {}).items() if v != "multipliers" for r in rows
    ]  # fmt: skip
    changes = found.get("sensitivity", {}).get("multipliers", [])
    variants = [name for name in changes[0] if name != "change"] if changes else []
    multiplier: Rows = [[r["change"], *(number(r[v]) for v in variants)] for r in changes]
    forms: Rows = [
        [v, form, "-" if m["held_out"] is None else f"{100 * m['held_out']:.2f}%", number(m["objective"], 5),
         "yes" if m["chosen"] else ""]
        for v, every in found["forms"].items() for form, m in every.items()
    ]  # fmt: skip
    base, chosen = found["choices"]["baseline_used"], found.get("joint", {}).get("chosen", "")
    means = f"Means {mean_over(found)}"
    return (
        table(f"Multiplier against {base} by resource",
               f"{means}, with the resource for C; - where it was not measured or has too few points.",
               ["variant", *names], resources)
        + table("Agreement of the approaches", "What approaches 1, 2 and 3 say on the same data.",
                 ["variant", "quantity", "approach", "value", "interval"], agreement)
        + table("Backtest", "Fitted below a compute cut, compared with what was measured above it.",
                 ["variant", "cut, FLOPs", "reach", "law", "error", "bias", "in the interval"], backtest)
        + table("Forms of L(N, D)", "Each was fitted below the top decade of compute and asked about all above it.",
                 ["variant", "form", "error above", "objective", "chosen"], forms)
        + table("Joint laws over structures", f"Nested from all shared to free; AICc chooses {chosen}.",
                 ["law", "parameters", "residual", "AICc", "held-out error", "LR", "p", "condition"], joint)
        + table("Sensitivity of L(N, D)", "The same fit under other conventions, objectives and floors.",
                 ["variant", "change", "E", "alpha", "beta", "N_opt ~ C^", "L ~ C^-"], sensitivity)
        + table("Sensitivity of the multipliers",
                 f"{means}, and with other tolerances of the hull, procedures, frontiers and FLOPs.",
                 ["change", *variants], multiplier)
    )  # fmt: skip


def verdict(found: dict[str, Any]) -> str:
    """The sentences on top of the page, and what was predicted."""
    lines = "".join(f"<li>{escape(sentence)}</li>" for sentence in found["verdict"].values())
    predictions: Rows = [
        [one["variant"], number(one["flops"]), number(one["loss"], 4), span((one["interval"] or {}).get("loss"), 4),
         number(one["params"]), number(one["tokens"]), number(one["width"]), number(one["multiplier"]),
         span((one["interval"] or {}).get("multiplier"))]
        for one in found["predictions"]
    ]  # fmt: skip
    shown = table(
        "Predictions", "At the compute-optimal size; intervals join resampling and the backtest's error.",
        ["variant", "FLOPs", "loss", "interval", "N", "tokens", "width", "multiplier", "interval"], predictions,
    ) if predictions else ""  # fmt: skip
    return f"<section id=verdict><h2>Verdict</h2><ul>{lines}</ul></section>{shown}"


def warnings(found: dict[str, Any]) -> str:
    """All warnings by name, folded; those that touch a verdict first."""
    if not found["warnings"]:
        return "<section id=warnings class=calm><h2>Warnings</h2><p>None.</p></section>"
    items = ""
    for name, variants in grouped(found["warnings"]).items():
        lines = "".join(
            f"<li>{f'<b>{escape(variant)}</b>: ' if variant else ''}{escape(text)}</li>"
            for variant, texts in variants.items()
            for text in texts
        )
        title = f"<b>{escape(name.replace('_', ' '))}</b> <small>{escape(CAUTIONS[name])}</small>"
        items += f"<li>{title}<ul>{lines}</ul></li>"
    return (
        f"<section id=warnings><h2>Warnings ({len(found['warnings'])})</h2>"
        f"<details><summary>Show</summary><ul>{items}</ul></details></section>"
    )


def render(laws: Laws, found: dict[str, Any]) -> str:
    """The page as text."""
    facts, variants = laws.points.choices, laws.points.variants
    choices, shown = escape(json.dumps(found["choices"], indent=1)), drawings(laws)
    first, rest = shown[:2], shown[2:]
    called = {variant: short(variant, variants) for variant in ordered(variants)}
    found = shortened(found, variants)
    return sheet(
        title=head.title(laws),
        summary=f"FLOPs: {facts['flops']} · model size: {facts['size']}",
        about=head.about(laws),
        before=verdict(found),
        toggles=boxes_of({variant: colour_of(variants, variant) for variant in called}, called),
        charts=charts_in(shown),
        after="".join(section(drawing) for drawing in first)
        + head.next_runs(laws, found)
        + "".join(section(drawing) for drawing in rest)
        + tables(found)
        + more_tables(found)
        + warnings(found)
        + "<section><h2>Choices</h2><p>Everything that led to these numbers; laws.json has them in full precision.</p>"
        f"<details><summary>Show</summary><pre tabindex=0>{choices}</pre></details></section>",
    )


def write(laws: Laws, found: dict[str, Any], path: Path) -> None:
    """Write the page."""
    write_atomically(path, render(laws, found).encode())
