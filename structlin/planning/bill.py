"""What will a sweep cost before it starts? A line per cell, and the total of what is still to be trained."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from structlin.anatomy.compute import flops_between
from structlin.anatomy.kinds import rounding_of
from structlin.anatomy.ledger import FLOPS_PER_MAC, Ledger, ledger
from structlin.anatomy.memory import GB, advice, fitted, peak
from structlin.config.identity import run_id, to_mapping
from structlin.config.request import Site
from structlin.config.science import Science
from structlin.data import epochs, train_tokens
from structlin.drawing import terminal
from structlin.errors import UserError
from structlin.planning.grid import Cell, Plan
from structlin.planning.guess import guessed_seconds
from structlin.planning.horizon import LONG_WARMUP, warmup_share
from structlin.runs.job import Job
from structlin.runs.speeds import Throughputs

SMALL_WARMUP = 100
"""Steps of warm-up under scale=small: where they are no more, that scale is no way out."""
MOST_CELLS = 200
"""Rows of the table on a terminal."""
FAR_ROUNDED = 1.25
"""A size that rounding moves by a larger factor is named below the bill."""


@dataclass(frozen=True)
class GpuNeed:
    """A run's step on a GPU, by the memory model (anatomy/memory.py)."""

    gigabytes: float
    note: str
    """What to do where it does not fit, or what ``fit`` picked; empty where it fits as it is."""


@dataclass(frozen=True)
class Line:
    """One cell of a bill."""

    cell: Cell
    costs: Ledger
    epochs: float | None
    """Passes over the training data; None where its size is not known before it is prepared."""
    seconds: float | None
    """Time of the whole cell by the measured speed of its shape, or None: not measured."""
    guess: float | None = None
    """A guess of the same where nothing was measured; None where nothing can be guessed."""
    gpu: GpuNeed | None = None
    """What a step wants of a GPU's memory; None where none is used."""

    @property
    def flags(self) -> list[str]:
        """What makes this cell a weak observation."""
        share = warmup_share(self.cell.science, self.cell.step)
        return [f"warm-up {share:.0%} of steps"] if share > LONG_WARMUP else []

    def to_mapping(self) -> dict[str, Any]:
        """The line as plain values for format=json."""
        cell, science = self.cell, self.cell.science
        macs = self.costs.macs_per_token
        return {
            "run_id": run_id(science) if science.data.is_known else None,
            "structure": cell.alias or science.structure.name,
            "variant": science.variant,
            "theta": science.structure.theta,
            "d_model": science.model.d_model,
            "num_layers": science.model.num_layers,
            "seed": science.seed,
            "schedule": science.schedule.kind,
            "step": cell.step,
            "tokens": cell.tokens,
            "epochs": self.epochs,
            "budget_flops": cell.budget_flops,
            "macs_per_token": macs,
            "params": {**self.costs.params, "total": self.costs.params_total},
            "flops": {"training": cell.training_flops, "paper": cell.training_flops // FLOPS_PER_MAC["training"]},
            "rounding": rounding_of(science),
            "seconds": self.seconds,
            "guessed_seconds": self.guess,
            "gpu_memory_gb": None if self.gpu is None else self.gpu.gigabytes,
            "gpu_memory_note": None if self.gpu is None else self.gpu.note,
            "flags": self.flags,
            "config": to_mapping(science),
        }


@dataclass(frozen=True)
class Bill:
    """The cells of a plan with their prices."""

    lines: tuple[Line, ...]
    total_flops: float
    """Training FLOPs of all trajectories, those shared by cells counted once."""
    recomputed_flops: float
    """Forward FLOPs that they spend again under recompute=true: no useful work, so not in the total."""
    total_seconds: float | None
    """By the measured speeds, divided over the workers; None where a shape is not measured."""
    guessed_seconds: float | None = None
    """The same with guesses where nothing was measured; None where all is measured, or nothing can be guessed."""
    num_runs: int = 0
    """Trajectories of the plan."""
    num_beginnings: int = 0
    """Those of them that hold no cell: others start from them."""

    @property
    def num_flagged(self) -> int:
        """Cells with a flag."""
        return sum(bool(line.flags) for line in self.lines)


def make_bill(plan: Plan, site: Site, workers: int, pending: Sequence[Job] | None = None) -> Bill:
    """The bill of a plan, its total over ``pending`` jobs (all, where None).

    UserError for a cell that reads its data more than ``data.max_epochs`` times.
    """
    throughputs = Throughputs(site.runs, site.machine)
    lines = tuple(_line(cell, site, throughputs) for cell in plan.cells)
    planned = {job.run_id for job in plan.jobs}
    jobs = plan.jobs if pending is None else pending
    steps = [(job.science, trained_steps(job, planned)) for job in jobs]
    total_flops = sum(
        flops_between(job.science, job.target_step - count, job.target_step)
        for job, (_, count) in zip(jobs, steps, strict=True)
    )
    recomputed_flops = sum(_recomputed(science, site) * count for science, count in steps)
    seconds = [_seconds(science, count, site, throughputs) for science, count in steps]
    guesses = [
        _guess(science, count, site) if s is None else s for (science, count), s in zip(steps, seconds, strict=True)
    ]
    total, guessed = _sum(seconds, workers), _sum(guesses, workers)
    of_cells = {run_id(cell.science) for cell in plan.cells}
    beginnings = len(planned - of_cells)
    return Bill(
        lines, total_flops, recomputed_flops, total, guessed if total is None else None, len(planned), beginnings
    )


def _sum(seconds: Sequence[float | None], workers: int) -> float | None:
    """Seconds over the workers; None where one is not known."""
    known = [value for value in seconds if value is not None]
    return sum(known) / workers if len(known) == len(seconds) else None


def trained_steps(job: Job, planned: Collection[str]) -> int:
    """Steps a job trains itself; a cooldown takes those before its decay from its trunk where that is planned."""
    if job.trunk is None or run_id(job.trunk) not in planned:
        return job.target_step
    return job.target_step - job.science.schedule.cooldown_start


def check_epochs(plan: Plan, site: Site) -> None:
    """UserError for a cell that reads its data more than ``data.max_epochs`` times, as ``make_bill``."""
    for cell in plan.cells:
        _epochs(cell, site)


def _epochs(cell: Cell, site: Site) -> float | None:
    """How often a cell reads its data; None where its size is not known before it is prepared."""
    available = train_tokens(cell.science.data, site.data_root)
    # Of images after a start token a step has a position more than it takes from the data.
    share = (cell.science.data.sample_tokens or cell.science.model.context) / cell.science.model.context
    passes = None if available is None else epochs(cell.tokens * share, available)
    # Images are seen hundreds of times by design: their epochs are counted, and the augmentation makes them differ.
    if passes is not None and passes > site.max_epochs and cell.science.data.kind != "classification":
        raise UserError(
            f"{cell.science.variant} at d_model = {cell.science.model.d_model} would read "
            f"data={cell.science.data.name} {passes:.1f} times ({cell.tokens:,} of {available:,} tokens); "
            f"raise data.max_epochs = {site.max_epochs:g}, or use larger data or a smaller budget"
        )
    return passes


def _line(cell: Cell, site: Site, throughputs: Throughputs) -> Line:
    seconds = _seconds(cell.science, cell.step, site, throughputs)
    guess = _guess(cell.science, cell.step, site) if seconds is None else None
    return Line(cell, ledger(cell.science), _epochs(cell, site), seconds, guess, _gpu_need(cell.science, site))


def _gpu_need(science: Science, site: Site) -> GpuNeed | None:
    """None where a run uses no GPU, for all that is known here."""
    placement, available = site.placement, site.placement.gpu_memory_gb * GB
    if placement.device == "cpu" or not (available or placement.device == "cuda"):
        return None
    if placement.fit == "auto":
        found = fitted(science, placement, available, site.ranks)
        note, placement = found.said, found.placement
    else:
        note = advice(science, placement, available, site.ranks)
    return GpuNeed(round(peak(science, placement, site.ranks).needed / GB, 3), note)


def _recomputed(science: Science, site: Site) -> int:
    """Forward FLOPs that a step spends again."""
    macs = ledger(science).recomputed_macs_per_token if site.placement.recompute else 0
    return 2 * macs * science.optim.batch_tokens


def _seconds(science: Science, steps: int, site: Site, throughputs: Throughputs) -> float | None:
    speed = throughputs.find(science, site.placement)
    return None if speed is None else steps * science.optim.batch_tokens / speed


def _guess(science: Science, steps: int, site: Site) -> float | None:
    """A cluster's nodes are not here: nothing is guessed for them."""
    return None if site.machine else guessed_seconds(science, steps, site.placement)


# --- showing it ---------------------------------------------------------------------------------------------------


def to_json(bill: Bill, decides: Sequence[Mapping[str, Any]] = ()) -> str:
    """One JSON object: {"cells": [...], "total": {...}, "decides": [...]}: what the plan can tell (decide.py)."""
    total = {
        "training_flops": bill.total_flops,
        "recomputed_flops": bill.recomputed_flops,
        "seconds": bill.total_seconds,
        "guessed_seconds": bill.guessed_seconds,
    }
    cells = [line.to_mapping() for line in bill.lines]
    return json.dumps({"cells": cells, "total": total, "decides": list(decides)})


def show(bill: Bill, console: Console) -> None:
    """Print the table of cells and the total; at any width no number is cut."""
    names = ["structure", "width", "budget", "seed", "parameters", "tokens", "steps", "epochs", "FLOPs", "time"]
    names += ["GPU GB", "note"]
    table = terminal.Columns(names, texts=("note",), less=("epochs", "steps"), keys=3)
    for line in bill.lines[:MOST_CELLS]:
        cell = line.cell
        table.add(
            cell.shown,
            str(cell.science.model.d_model),
            "-" if cell.budget_flops is None else f"{cell.budget_flops:.3g}",
            str(cell.science.seed),
            count(line.costs.params_total),
            count(cell.tokens),
            f"{cell.step:,}",
            _passes(line.epochs),
            f"{cell.training_flops:.2e}",
            _time(line.seconds, line.guess),
            "" if line.gpu is None else f"{line.gpu.gigabytes:.3g}",
            ", ".join(line.flags),
        )
    terminal.show(table.without_empty(), console)
    if (left := len(bill.lines) - MOST_CELLS) > 0:
        console.print(f"and {counted(left, 'cell')} more (all: format=json)", highlight=False)
    for said in _remarks(bill):
        console.print(said, highlight=False)


def total_said(bill: Bill) -> str:
    """How many cells and runs, what they cost, and how long they take."""
    others = f", {bill.num_beginnings} of them for others to start from" if bill.num_beginnings else ""
    return (
        f"{counted(len(bill.lines), 'cell')} on {counted(bill.num_runs, 'run')}{others}: {bill.total_flops:.3g} "
        f"training FLOPs, {_time(bill.total_seconds, bill.guessed_seconds)}"
    )


def _remarks(bill: Bill) -> Iterator[str]:
    """The lines below the table."""
    yield total_said(bill)
    if bill.guessed_seconds is not None:
        yield "~ a guess, right within a factor of three or so: this machine has not trained such shapes yet"
    for alias, name in _aliases(bill.lines).items():
        yield f"{alias} is the theta of {name}: its runs are kept, and fitted, as {name}"
    for structure, mixture in _idle(bill.lines).items():
        yield f"{mixture} takes the place of every linear that would be {structure}: the structure is not used"
    yield from _most_rounded(bill.lines)
    if bill.recomputed_flops:
        kept = max((line.costs for line in bill.lines), key=lambda costs: costs.activation_bytes)
        yield (
            f"recompute=true: {bill.recomputed_flops:.3g} FLOPs more, in no other count; activations of a step at most "
            f"{size(kept.recomputed_activation_bytes)} instead of {size(kept.activation_bytes)}"
        )
    yield from _memory_notes(bill.lines)
    if bill.num_flagged:
        is_small = all(line.cell.science.schedule.warmup_steps <= SMALL_WARMUP for line in bill.lines)
        way_out = "A larger budget" if is_small else "A larger budget or scale=small"
        yield (
            f"{bill.num_flagged} of {counted(len(bill.lines), 'cell')} spend over {LONG_WARMUP:.0%} of their "
            f"steps in warm-up; laws leave out what lies inside it. {way_out} gives longer runs."
        )


def _aliases(lines: Sequence[Line]) -> dict[str, str]:
    """Names that were asked for -> the names that their thetas go by."""
    used = [line.cell for line in lines if line.cell.alias and not line.cell.science.structure_is_idle]
    return {cell.alias: cell.science.structure.plain_name for cell in used}


def _idle(lines: Sequence[Line]) -> dict[str, str]:
    """Structures that were asked for and that experts replace -> the mixture that does."""
    idle = [line.cell for line in lines if line.cell.science.structure_is_idle]
    return {cell.asked: cell.science.moe.label for cell in idle if cell.asked not in ("", "dense")}


def _memory_notes(lines: Sequence[Line]) -> Iterator[str]:
    """What does not fit a GPU and what was picked so that it does, once for all cells of a shape."""
    said: dict[tuple[str, int, int], str] = {}
    for line in lines:
        science = line.cell.science
        if line.gpu is not None and line.gpu.note:
            said[science.variant, science.model.d_model, science.model.num_layers] = line.gpu.note
    for (variant, width, layers), note in said.items():
        yield f"{variant} at d_model = {width}, {layers} layers: {note}"


def _most_rounded(lines: Sequence[Line]) -> Iterator[str]:
    """Of every structure what rounding changed most, where that is above ``FAR_ROUNDED``; format=json has all of it."""
    worst: dict[str, tuple[float, str]] = {}
    for line in lines:
        science = line.cell.science
        for shape, changes in rounding_of(science).items():
            for index, (asked, size) in changes.items():
                factor = max(asked / size, size / asked)
                said = f"{science.structure.name}: {index} of a {shape} layer is {size:.0f} instead of {asked:.3g}"
                worst[science.structure.name] = max(worst.get(science.structure.name, (0.0, "")), (factor, said))
    for factor, said in worst.values():
        if factor > FAR_ROUNDED:
            yield f"rounding {said} (all such: format=json)"


def _passes(epochs: float | None) -> str:
    """Passes over the data; 0 is read as samples that are made as far as they are needed."""
    if epochs is None:
        return "?"
    return f"{epochs:.2f}" if epochs else "fresh"


def count(number: float) -> str:
    """A number with a unit: 1234567 -> 1.23M."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def size(bytes_: float) -> str:
    """Bytes for people: 3.44e10 -> 34.4 GB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= scale:
            return f"{bytes_ / scale:.3g} {unit}"
    return f"{bytes_:.3g} bytes"


def counted(number: int, noun: str) -> str:
    """1 cell, 2 cells."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _time(seconds: float | None, guess: float | None) -> str:
    """A time that was measured, or a guess marked as one."""
    return duration(seconds) if seconds is not None or guess is None else f"~{duration(guess)}"


def duration(seconds: float | None) -> str:
    """Seconds for people: 3725 -> 1 h 2 min."""
    if seconds is None:
        return "not measured"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
