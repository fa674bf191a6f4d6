"""How does one trajectory run? Steps, evaluations and checkpoints, and nothing else.

The loop knows no folder but its attempt's and no configuration but the job's. What is trained depends on the Science
and the step alone; evaluations, checkpoints, logging and interruptions never change it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from structlin.anatomy.compute import batch_number, flops_between
from structlin.anatomy.guide import guide_share, guide_steps, guides_at
from structlin.anatomy.nested import shares_at
from structlin.config.nested import NONE, menu_of
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.kernels.blocks import taken
from structlin.nn.guide import set_guides
from structlin.nn.nested import take_share, take_shares
from structlin.nn.router import router_record
from structlin.runs import checkpoints
from structlin.runs.attempt import BEAT_SECONDS, Attempt
from structlin.runs.job import Job
from structlin.runs.journal import OF_RANKS, Journal
from structlin.tasks.protocol import Batch, Task, evaluated
from structlin.training import checkpoint
from structlin.training.background import Background, may_run_beside, on_host
from structlin.training.compiling import compiled
from structlin.training.feed import Read, batches
from structlin.training.schedule import rate
from structlin.training.update import Replayed, Update, make_update
from structlin.training.whole import WholeUpdate
from structlin.training.world import BEAT, GO_ON, SAVE, STOP, World

Observer = Callable[[dict[str, Any]], None]


class Diverged(Exception):
    """The loss is no longer a number, or far above that of knowing nothing."""


class Interrupted(Exception):
    """The process was asked to stop; a checkpoint has been written."""


@dataclass
class Trainer:
    """A model in training, and all it needs to go on."""

    job: Job
    attempt: Attempt
    """Where this process writes, as long as no newer attempt has the run."""
    task: Task
    model: nn.Module
    """Parameters are read from it."""
    forward: nn.Module
    """Called on batches: the model, or what the world has wrapped it in."""
    optimizer: torch.optim.AdamW
    device: torch.device
    placement: Placement
    observe: Observer
    """Is shown every journal row (the W&B mirror)."""
    should_stop: Callable[[], bool]
    evaluations: frozenset[int]
    """Steps to evaluate at."""
    world: World
    """The other processes that train this run, if there are any; only the first of them writes."""
    parts: int = 1
    """Parts in which this process computes its share of a batch."""
    step: int = 0
    """Updates so far; at first those of the checkpoint that was loaded."""
    is_guided: bool = False
    """Whether the model holds guides (nn/guide.py)."""
    _journal: Journal = field(init=False)
    _saved_at: float = field(init=False)
    _saved_step: int = field(init=False)
    _beat_at: float = field(init=False)
    _forward: nn.Module = field(init=False)
    _updates: Update | Replayed | WholeUpdate = field(init=False)
    _clock: tuple[float, int] = field(init=False)
    _background: Background = field(init=False, default_factory=Background)
    _blocks_known: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._journal = self.attempt.journal
        # Guides and ranks are drawn anew at every step: nothing of it could be traced once and for all.
        is_drawn = self.is_guided or self.is_nested
        self._forward = self.forward if is_drawn else compiled(self.forward, self.placement, self.device)
        self._updates = make_update(
            self.science,
            self.task,
            self.model,
            self._forward,
            self.optimizer,
            self.placement,
            self.device,
            self.parts,
            self.world,
            is_drawn=is_drawn,
        )
        self._saved_at = self._beat_at = time.monotonic()
        self._saved_step = self.step
        self._clock = (time.monotonic(), self.step)

    @property
    def until(self) -> int:
        """The step at which this model ends: the job's last one, or the last that guides are there for."""
        return min(self.job.target_step, guide_steps(self.science)) if self.is_guided else self.job.target_step

    @property
    def is_nested(self) -> bool:
        """Whether layers compute with a part of their ranks that is drawn at every step (nn/nested.py)."""
        return self.science.nested != NONE

    @property
    def science(self) -> Science:
        """What is trained."""
        return self.job.science

    def run(self) -> None:
        """Train to the job's last step. Raises Diverged or Interrupted; always leaves a checkpoint to go on from.

        Superseded is raised before anything is saved for a run that a newer attempt has taken.
        """

        def read(step: int) -> Batch:
            return self.task.train_batch(batch_number(self.science, step), self.world)

        try:
            readers = getattr(self.task, "readers", 1)
            with batches(read, self.device, self.until, readers) as batch_of:
                self._train(batch_of)
        finally:
            self._background.wait()

    def _train(self, batch_of: Read) -> None:
        while True:
            # ---- evaluate and save at the state after ``step`` updates
            if self.is_guided and self.step >= guide_steps(self.science):
                # What follows is another model's, the one without guides.
                self._save()
                return
            if self.step in self.evaluations:
                self._evaluate()
            if self.step >= self.job.target_step:
                self._save()
                return
            self._save_when_due()
            # ---- one update
            loss, norm = self._update(batch_of(self.step))
            self.step += 1
            if not self._blocks_known:
                self._note_blocks()
            if self.step % self.placement.log_steps == 0:
                self._log(loss, norm)

    def _note_blocks(self) -> None:
        """Add to the record which blocks the kernels of a first step have taken."""
        self._blocks_known = True
        if self.device.type == "cuda":
            record = self.attempt.provenance() or {}
            self.world.from_first(lambda: self.attempt.set_provenance({**record, "blocks": taken()}))

    def _update(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One optimizer step on a batch of the device; loss and gradient norm stay there, until the next."""
        if self.is_guided:
            set_guides(self.model, guide_share(self.science, self.step), guides_at(self.science, self.step))
        if self.is_nested:
            take_shares(self.model, shares_at(self.science, self.step))
        return self._updates(batch, self._rate(self.step))

    def _rate(self, step: int) -> float:
        """Of the update that follows so many, where the multiplier is 1."""
        return self.science.optim.lr * rate(self.science.schedule, step)

    def _evaluate(self) -> None:
        began = time.monotonic()
        self.model.eval()
        if self.is_guided:
            share = guide_share(self.science, self.step)
            set_guides(self.model, share, dict.fromkeys(guides_at(self.science, self.step), True))
        phase = {"in_guide": True} if self.is_guided else {}
        for part in menu_of(self.science.nested):
            # The whole rank is the last: its row says that the others of the step are there.
            self._evaluate_at(part, began, phase)
        self.model.train()
        # Time spent in evaluation is not training time.
        self._clock = (self._clock[0] + time.monotonic() - began, self._clock[1])

    def _evaluate_at(self, share: Fraction, began: float, more: dict[str, Any]) -> None:
        """One row of an evaluation: of the model, or of the model at a share of its ranks."""
        if self.is_nested:
            take_share(self.model, share)
            more = {**more, "rank_share": float(share)}
        forward = self._updates.evaluates if isinstance(self._updates, WholeUpdate) else self._forward
        found = evaluated(self.task, forward, self.device, self.world)
        self._check(found["val_loss"])
        kind = "eval" if share == 1 else OF_RANKS + str(share).replace("/", "_")
        self._record(kind, **found, **more, seconds=time.monotonic() - began)

    def _log(self, loss: Tensor, norm: Tensor) -> None:
        """One row of training; the only place where the host waits for the device."""
        value = float(self.world.mean(loss))
        self._check(value)
        now = time.monotonic()
        since, step = self._clock
        seconds = max(1e-9, now - since)
        self._clock = (now, self.step)
        self._record(
            "train",
            loss=value,
            grad_norm=float(norm),
            lr=self._rate(self.step - 1),
            tokens_per_second=(self.step - step) * self.science.optim.batch_tokens / seconds,
            flops_per_second=flops_between(self.science, step, self.step) / seconds,
        )
        routing = router_record(self.model)
        if routing is not None:
            self._record("router", **routing)

    def _record(self, kind: str, **values: Any) -> None:
        tokens = self.step * self.science.optim.batch_tokens
        row = {"kind": kind, "step": self.step, "tokens": tokens, **values, "time": time.time()}
        self.world.from_first(lambda: self._write(row))

    def _write(self, row: dict[str, Any]) -> None:
        self._journal.append(row)
        self.observe(row)

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            self._record("divergence", loss=loss)
            raise Diverged(f"loss is {loss} at step {self.step}")

    def _save_when_due(self) -> None:
        granted = self.world.agree(self._wish())
        if granted == STOP:
            self._save()
            raise Interrupted(f"stopped at step {self.step}")
        if granted == SAVE or self.step in self.job.checkpoints:
            self._save(beside=True)
        elif granted == BEAT:
            self._beat()

    def _wish(self) -> int:
        """What this process would do now."""
        if self.should_stop():
            return STOP
        now = time.monotonic()
        if now - self._saved_at > self.placement.checkpoint_seconds:
            return SAVE
        return BEAT if now - self._beat_at > BEAT_SECONDS else GO_ON

    def _beat(self) -> None:
        self.world.from_first(self.attempt.beat)
        self._beat_at = time.monotonic()

    def _save(self, *, beside: bool = False) -> None:
        """Write a checkpoint; ``beside`` the steps that follow, where that may be."""
        self._background.wait()
        step = self.step
        if self.world.from_first(self._checkpoint_is_missing):
            # All ranks have a part of it; one writes.
            state = checkpoint.state_of(step, self.model, self.optimizer, self.world)
            if beside and may_run_beside(self.device, self.world.sharding):
                state = on_host(state)
                self._background.begin(lambda: self._write_checkpoint(step, state))
                self._saved_at, self._saved_step = time.monotonic(), step
                return
            self.world.from_first(lambda: checkpoint.write(self.attempt.checkpoints, step, state))
        self.world.from_first(lambda: self._tell_saved(step))
        self._saved_at, self._saved_step = time.monotonic(), step

    def _write_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        checkpoint.write(self.attempt.checkpoints, step, state)
        self._tell_saved(step)

    def _checkpoint_is_missing(self) -> bool:
        self.attempt.check_newest()
        # A file of this step that is not ours was not used to go on from: it may be torn, and is written anew.
        return self.step != self._saved_step or not checkpoints.path_of(self.attempt.checkpoints, self.step).exists()

    def _tell_saved(self, step: int) -> None:
        checkpoints.prune(self.attempt.checkpoints, {step, *self.job.checkpoints})
        self.attempt.set_status("running", step=step, target_step=self.job.target_step)
