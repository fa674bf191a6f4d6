"""What did the user ask for? The typed requests that the doors hand to planning and training."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from structlin.config.grid import GridConfig
from structlin.config.launch import Action, LaunchConfig
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.config.search import SearchConfig
from structlin.errors import UserError, suggest
from structlin.host.umask import umask_of

MOST_NAME_LETTERS = 100
LEAST_EVALUATIONS = 10
"""Evaluations per decade that a search needs: its rungs end at them."""


def check_name(name: str) -> None:
    """UserError unless a sweep's name can be that of a file and of a job."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or name in (".", "..") or len(name) > MOST_NAME_LETTERS:
        raise UserError(
            f"name = {name!r}: the name of a sweep is made of letters, digits, dot, dash and underscore (at most "
            f"{MOST_NAME_LETTERS}), and is not '.' or '..'; write {_as_name(name)}"
        )
    if name == "lock" or name.startswith("lock.") or name.endswith((".json", ".tmp")):
        raise UserError(f"name = {name!r} is taken by files of the store; write another, such as name={name}-1")


def _as_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:MOST_NAME_LETTERS]
    return f"name={plain or 'sweep'}"


@dataclass(frozen=True)
class Template:
    """A Science whose width and horizon are still to be planned."""

    science: Science
    """Complete but for the width, which is a placeholder of as few heads as can be, under a constant rate."""
    schedule: str
    """The schedule its runs will have."""
    asked: str = field(default="", compare=False)
    """The name that its structure was asked for by: monarch, whose theta is that of btt."""
    widths: tuple[int, ...] | None = None
    """Widths of its own in place of the grid's: a study may give each structure others, and a size has one."""
    tokens: tuple[int, ...] | None = None
    """Lengths of its own in place of the grid's; where neither has any, budgets say how long."""
    warmup_share: float | None = None
    """Warm-up of a cosine over its length, in place of the Science's steps of it."""

    def __post_init__(self) -> None:
        if self.warmup_share is not None and not 0 <= self.warmup_share <= 1:
            raise UserError(f"schedule.warmup_share = {self.warmup_share} must lie in [0, 1]")
        guide = self.science.guide
        if guide.needs_horizon and self.schedule != "cosine":
            raise UserError(
                f"guide={guide.kind} guides for a share of a run's steps, which schedule={self.schedule} leaves open; "
                "say guide.steps=1000, or schedule=cosine"
            )

    def trunk(self, d_model: int) -> Science:
        """The constant-rate run at a width."""
        return self.science.at_width(d_model)

    def run(self, d_model: int, horizon_steps: int) -> Science:
        """The run at a width that is ``horizon_steps`` long; a constant rate forgets the horizon."""
        trunk = self.trunk(d_model)
        if self.schedule == "constant":
            return trunk
        run = trunk.scheduled(self.schedule, horizon_steps)
        if self.warmup_share is None or self.schedule != "cosine":
            return run  # what lasts longer, or leaves a trunk, warms up as that does
        return replace(run, schedule=replace(run.schedule, warmup_steps=round(self.warmup_share * horizon_steps)))


@dataclass(frozen=True)
class Site:
    """Where things lie on this machine, and how a process is to run."""

    runs: Path
    """The run store."""
    data_root: Path
    """Prepared data."""
    max_epochs: float
    """A run that reads its data more often than this is refused."""
    evals_per_decade: int
    placement: Placement
    ranks: int = 1
    """Processes of one run."""
    machine: str = ""
    """The name under which measured speeds are kept; empty: that of this machine's hardware."""
    umask: str | None = None
    """Of what is made in the store, in octal; null: as the process has it, open to the group in a group's store."""

    def __post_init__(self) -> None:
        if not self.max_epochs > 0:
            raise UserError(f"data.max_epochs = {self.max_epochs} must be above 0")
        umask_of(self.umask)
        if self.evals_per_decade < 1:
            raise UserError(f"evals_per_decade = {self.evals_per_decade} must be at least 1")

    def grouped(self, group: str) -> Site:
        """The same site, its runs gathered under a W&B group."""
        return replace(self, placement=replace(self.placement, group=group))


@dataclass(frozen=True)
class TrainRequest:
    """python train.py: one run and its length."""

    template: Template
    d_model: int
    tokens: int
    site: Site


@dataclass(frozen=True)
class StatusRequest:
    """python sweep.py status=NAME, or with no keys of a sweep: how far is that one, or the last one?"""

    site: Site
    name: str | None
    """None for the last one."""
    watch: bool
    format: str

    def __post_init__(self) -> None:
        if self.format not in ("table", "json"):
            raise UserError(f"unknown format '{self.format}'; {suggest(self.format, ('table', 'json'))}")
        if self.name is not None:
            check_name(self.name)


@dataclass(frozen=True)
class SweepRequest:
    """python sweep.py: templates x budgets, planned by a grid."""

    templates: tuple[Template, ...]
    budgets: tuple[float, ...]
    grid: GridConfig
    launch: LaunchConfig
    action: Action
    site: Site
    name: str | None
    dry_run: bool
    format: str
    command: str
    """What was asked for, a study spelled out."""
    study: str = ""
    """The study that the command stands for, such as study=regression study.size=small."""
    words: tuple[str, ...] = ()
    """The command line as it was typed."""
    search: SearchConfig | None = None
    """Under grid=search: what is searched for."""

    def __post_init__(self) -> None:
        if self.format not in ("table", "json"):
            raise UserError(f"unknown format '{self.format}'; {suggest(self.format, ('table', 'json'))}")
        if self.format == "json" and not (self.dry_run or self.action.status or self.action.watch):
            raise UserError("format=json prints the bill of a dry run, or the status; add dry_run=true or status=true")
        if self.name is not None:
            check_name(self.name)
        if self.search is not None and len(self.budgets) != 1:
            none = "" if self.budgets or self.grid.tokens else "no budget: "
            raise UserError(
                f"{none}grid=search has one budget, the training FLOPs of all its runs: budget=3e17"
                + (" in place of grid.tokens" if self.grid.tokens is not None else "")
            )
        if not self.budgets and self.grid.tokens is None and not all(one.tokens for one in self.templates):
            raise UserError("no budget: give training FLOPs as budget=1e15, or grid.widths=[..] and grid.tokens=[..]")
        if self.budgets and self.grid.tokens is not None:
            raise UserError("grid.tokens and budget both say how long to train; give one of them")
        if self.search is not None and self.site.evals_per_decade < LEAST_EVALUATIONS:
            raise UserError(
                f"evals_per_decade = {self.site.evals_per_decade}: grid=search reads its rungs off the evaluations of "
                f"runs and wants at least {LEAST_EVALUATIONS} a decade"
            )
        for budget in self.budgets:
            if not 0 < budget < 1e30:
                raise UserError(f"budget = {budget} must be training FLOPs between 0 and 1e30, such as 1e15")
