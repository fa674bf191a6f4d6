"""What stands on top of the report? Of what it is and when, the answer in a sentence, and what to run next."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from html import escape
from typing import Any

from structlin.drawing.names import short, titled
from structlin.drawing.sheet import Rows, table
from structlin.host import code
from structlin.laws.approaches.laws import Laws

LADDER = 3.0
"""The next budget over the largest compute measured."""


def about(laws: Laws) -> dict[str, str]:
    """Date, data and code of a report."""
    choices, facts = laws.choices, laws.points.choices
    where = {"runs": f"runs in {choices.runs}", "table": choices.table, "wandb": f"W&B project {choices.project}",
             "wandb_offline": f"W&B files in {choices.dir}"}  # fmt: skip
    frame = laws.points.frame
    low, high = float(frame["C"].min()), float(frame["C"].max())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "data": f"{where[choices.source]}: {facts['rows']} evaluations of {facts['runs']} runs, "
        f"{low:.2g} to {high:.2g} FLOPs",
        "chosen": choices.where,
        "code": code.said(),
    }


def title(laws: Laws) -> str:
    """Scaling laws of what."""
    variants = laws.points.variants
    names = [short(variant, variants) for variant in variants]
    said = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return titled(f"Scaling laws of {said}", variants)


def sentences(found: dict[str, Any]) -> list[str]:
    """The answer: one sentence a variant."""
    said = found.get("verdict")
    if said:
        return list(said.values())
    base = found["choices"]["baseline_used"]
    lines = []
    for variant, m in found["multipliers"].items():
        ends = m["interval"]["mean"]
        is_known = all(ends[key] is not None and math.isfinite(ends[key]) for key in ("low", "high"))
        span = f" [{ends['low']:.2f}, {ends['high']:.2f}]" if is_known else ""
        side = ""
        if is_known:
            side = "; better" if ends["low"] > 1 else "; worse" if ends["high"] < 1 else f"; not told apart from {base}"
        lines.append(f"{variant}: {base} needs {m['mean']:.2f} times its compute for the same loss{span}{side}")
    return lines or ["No structure could be compared: there is no baseline, or no loss in common."]


def verdict(found: dict[str, Any]) -> str:
    """The answer on top of the page."""
    lines = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences(found))
    return f"<section id=verdict><h2>Verdict</h2><ul>{lines}</ul></section>"


def next_runs(laws: Laws, found: dict[str, Any]) -> str:
    """What to run next: the command, where these are runs of this project, and what is known so far."""
    known = found.get("design") or {}
    rows: Rows = []
    for variant, pilot in known.items():
        half = (pilot.get("expected_interval") or {}).get("compute_exponent")
        rows.append([variant, "-" if half is None or not math.isfinite(half) else f"± {half:.3g}"])
    if not rows:
        return ""
    note = "Half of the interval of the frontier's exponent that these runs allow (-: they leave it open)."
    if laws.choices.source == "runs":
        names = ",".join(dict.fromkeys(variant.split("+")[0] for variant in known))
        budget = LADDER * float(laws.points.frame["C"].max())
        note += (
            f" The runs that narrow it most, within a budget: structlin sweep structure={names} grid=design "
            f"budget={budget:.1g} grid.laws={laws.choices.out.rstrip('/')}/laws.json runs={laws.choices.runs} "
            "dry_run=true"
        )
    return table("What to run next", note, ["variant", "exponent known to"], rows)
