"""How does a sweep stand, as a page? Progress, loss curves, what is left and what has failed, from the run store alone.

One file, written whole or not at all: a browser reloads it, from this machine or over a shared file system, without a
server. A run that nobody has begun is known by its id in the manifest alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from time import sleep, strftime
from typing import Any

import numpy as np

from structlin.anatomy.compute import flops_at, flops_between, step_flops
from structlin.config.science import Science
from structlin.drawing.charts import charts_in, section
from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.names import readable, short, titled
from structlin.drawing.sheet import Rows, boxes_of, sheet, table
from structlin.drawing.style import look_of, ordered
from structlin.errors import UserError, suggest
from structlin.host import code
from structlin.host.files import read_json, write_atomically
from structlin.planning.bill import count, counted, duration
from structlin.runs.store import RunFolder

FINAL = ("done", "diverged")
WAITING = "waiting"
MOST_FAILED = 40
MOST_ROWS = 200


@dataclass(frozen=True)
class Seen:
    """One run of a sweep as the store has it."""

    run_id: str
    target: int
    """The last step that the sweep wants."""
    science: Science | None
    """None where nobody has begun it."""
    state: str
    """done, diverged, running, failed, interrupted, or waiting where it has not begun."""
    step: int
    reason: str
    evaluations: Sequence[dict[str, Any]]
    last: dict[str, Any]
    """The newest row of training."""
    budget: float | None

    @property
    def flops(self) -> float:
        """Training FLOPs of all of it; by its budget where nobody has begun it."""
        if self.science is None:
            return self.budget or 0.0
        return flops_between(self.science, 0, self.target)

    @property
    def done_flops(self) -> float:
        """Of what is trained."""
        if self.science is None:
            return 0.0
        return flops_between(self.science, 0, min(self.step, self.target))

    @property
    def title(self) -> str:
        """For people."""
        if self.science is None:
            return self.run_id
        return f"{readable(self.science.variant)}, width {self.science.model.d_model}, seed {self.science.seed}"


def keep(runs: Path, name: str, path: Path, every: int) -> int:
    """Write the page of a sweep (the last one without a name), anew every so many seconds until nothing is open.

    0 where every run is done, 1 where some are not. UserError where there is no such sweep.
    """
    manifest = find(runs, name)
    while True:
        seen = look(runs, manifest)
        write_atomically(path, page(manifest, seen, runs, every).encode())
        is_open = any(one.state in ("running", WAITING) for one in seen)
        if not every or not is_open:
            break
        sleep(every)
    print(f"{path}  {said(seen)}")
    return 0 if all(one.state in FINAL for one in seen) else 1


def find(runs: Path, name: str) -> dict[str, Any]:
    """The manifest of a sweep by its name; the newest without one."""
    found = [path for path in (runs / "sweeps").glob("*.json") if not path.name.endswith(".wandb.json")]
    if not found:
        raise UserError(f"runs={runs} holds no sweep; name the store: runs=...")
    by_name = {path.name.removesuffix(".json"): path for path in found}
    if name and name not in by_name:
        raise UserError(f"runs={runs} holds no sweep '{name}'; {suggest(name, by_name)}")
    chosen = by_name[name] if name else max(found, key=lambda path: path.stat().st_mtime)
    manifest = read_json(chosen)
    if not isinstance(manifest, dict) or "cells" not in manifest:
        raise UserError(f"{chosen} is no manifest of a sweep")
    return manifest


def look(runs: Path, manifest: dict[str, Any]) -> list[Seen]:
    """Every run of a sweep as it stands now."""
    wanted: dict[str, dict[str, Any]] = {}
    for cell in manifest["cells"]:
        known = wanted.get(cell["run_id"])
        if known is None or cell["step"] > known["step"]:
            wanted[cell["run_id"]] = cell
    return [_seen(RunFolder(runs / run), cell) for run, cell in wanted.items()]


def _seen(folder: RunFolder, cell: dict[str, Any]) -> Seen:
    target, budget = int(cell["step"]), cell.get("budget_flops")
    try:
        science = folder.science()
    except (UserError, OSError):
        return Seen(folder.run_id, target, None, WAITING, 0, "", (), {}, budget)
    status, journal = folder.status(), folder.journal
    evaluations = [row for row in journal.evaluations() if row["step"] <= target]
    rows = journal.rows("train")
    last = rows[-1] if rows else {}
    step = max([int(last.get("step", 0)), *(int(row["step"]) for row in evaluations)], default=0)
    state = str(status["state"])
    if state == "done" and step < target:
        state = "interrupted"
    step = target if state == "done" else min(step, target)
    return Seen(folder.run_id, target, science, state, step, str(status.get("reason") or ""), evaluations, last, budget)


def said(seen: Sequence[Seen]) -> str:
    """``5 of 8 runs done, 2 running, 1 waiting; 71% of the FLOPs, about 3 min left``."""
    states = Counter(one.state for one in seen)
    parts = [f"{states['done']} of {counted(len(seen), 'run')} done"]
    parts += [f"{number} {state}" for state, number in sorted(states.items()) if state != "done"]
    left = seconds_left(seen)
    eta = "" if left is None else f", about {duration(left)} left"
    return f"{', '.join(parts)}; {share(seen):.0%} of the FLOPs{eta}"


def share(seen: Sequence[Seen]) -> float:
    """Part of all FLOPs that is done."""
    return sum(one.done_flops for one in seen) / max(1.0, sum(one.flops for one in seen))


def seconds_left(seen: Sequence[Seen]) -> float | None:
    """By the speeds of what runs now; None where nothing runs."""
    speeds = [_flops_a_second(one) for one in seen if one.state == "running"]
    left = sum(one.flops - one.done_flops for one in seen if one.state in ("running", WAITING, "interrupted"))
    return left / sum(speeds) if sum(speeds) > 0 else None


def _flops_a_second(one: Seen) -> float:
    speed = one.last.get("tokens_per_second")
    if one.science is None or not isinstance(speed, int | float) or not np.isfinite(speed):
        return 0.0
    return step_flops(one.science) / one.science.optim.batch_tokens * float(speed)


# --- the page -----------------------------------------------------------------------------------------------------


def page(manifest: dict[str, Any], seen: Sequence[Seen], runs: Path, every: int) -> str:
    """The page as text."""
    drawing = curves(seen)
    variants = ordered({one.science.variant for one in seen if one.science is not None})
    looks = {variant: look_of(tuple(variants), variant)[0] for variant in variants}
    part = share(seen)
    bar = (
        f'<div class="progress" role="progressbar" aria-label="FLOPs done" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * part:.0f}"><div style="width:{100 * part:.1f}%"></div></div>'
    )
    has_curves = bool(drawing.panels[0].series)
    return sheet(
        title=titled(f"Sweep {manifest.get('name', '')}", variants),
        summary=said(seen),
        about={
            "written": strftime("%Y-%m-%d %H:%M:%S %Z"),
            "runs": str(runs),
            "command": str(manifest.get("command", "")),
            "code": code.said(),
        },
        before=bar + failures(seen),
        toggles=boxes_of(looks, {variant: short(variant, variants) for variant in variants}) if has_curves else "",
        charts=charts_in([drawing]) if has_curves else [],
        after=(section(drawing) if has_curves else "") + _table(seen),
        reload_seconds=every,
    )


def curves(seen: Sequence[Seen]) -> Drawing:
    """Validation loss over training FLOPs, a line a run."""
    variants = ordered({one.science.variant for one in seen if one.science is not None})
    series, named = [], set()
    for one in seen:
        rows = [row for row in one.evaluations if row.get("val_loss") is not None]
        if one.science is None or not rows:
            continue
        variant = one.science.variant
        flops = np.array([flops_at(one.science, row["tokens"]) for row in rows], float)
        loss = np.array([row["val_loss"] for row in rows], float)
        label = "" if variant in named else readable(variant, variants)
        named.add(variant)
        look = look_of(tuple(variants), variant)
        series.append(Series(label, variant, flops, loss, "joined", *look, said=one.title))
    panel = Panel("validation loss over compute", "training FLOPs", "validation loss", tuple(series))
    return Drawing("losses", "Losses", "Every evaluation so far, a line a run.", (panel,), wide=True)


def failures(seen: Sequence[Seen]) -> str:
    """What has failed, and why."""
    failed = [one for one in seen if one.state in ("failed", "diverged")]
    if not failed:
        return ""
    lines = "".join(
        f"<li><b>{escape(one.state)}</b> {escape(one.title)} <code>{escape(one.run_id)}</code>"
        f"{f': {escape(one.reason)}' if one.reason else ''}</li>"
        for one in failed[:MOST_FAILED]
    )
    more = f"<p>and {len(failed) - MOST_FAILED} more</p>" if len(failed) > MOST_FAILED else ""
    return f'<section class="failed"><h2>Failures ({len(failed)})</h2><ul>{lines}</ul>{more}</section>'


def _table(seen: Sequence[Seen]) -> str:
    """A row a run, what runs first."""
    order = {"running": 0, "failed": 1, "interrupted": 2, WAITING: 3}
    variants = {one.science.variant for one in seen if one.science is not None}
    rows: Rows = []
    for one in sorted(seen, key=lambda one: order.get(one.state, 4))[:MOST_ROWS]:
        losses = [row["val_loss"] for row in one.evaluations if row.get("val_loss") is not None]
        speed = one.last.get("tokens_per_second")
        running = one.state == "running" and isinstance(speed, int | float)
        left = (one.flops - one.done_flops) / _flops_a_second(one) if running and _flops_a_second(one) > 0 else None
        rows.append(
            [
                short(one.science.variant, variants) if one.science is not None else "?",
                "-" if one.science is None else str(one.science.model.d_model),
                "-" if one.science is None else str(one.science.seed),
                one.state,
                f"{one.step:,} / {one.target:,}",
                f"{losses[-1]:.4f}" if losses else "-",
                count(float(speed)) if running and speed is not None else "-",
                duration(left) if left is not None else "-",
                one.run_id,
            ]
        )
    names = ["variant", "width", "seed", "state", "step", "loss", "tokens/s", "left", "run"]
    note = "What runs stands first." + (f" The first {MOST_ROWS} of {len(seen)}." if len(seen) > MOST_ROWS else "")
    return table("Runs", note, names, rows)
