"""What is one training process asked to do? A job: one trajectory, and the steps at which it is to be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from structlin.config.identity import run_id, science_from, to_mapping
from structlin.config.science import Science


@dataclass(frozen=True)
class Job:
    """A run and how far it is wanted. Evaluations and checkpoints never change what is trained."""

    science: Science
    evaluations: tuple[int, ...]
    """Steps of evaluation, rising; the last is the end."""
    checkpoints: tuple[int, ...] = ()
    """Steps whose checkpoint is kept for branches to start from."""
    needed: tuple[int, ...] = ()
    """Those of them without which a run that waits cannot begin: the job is done only where they are there."""

    def __post_init__(self) -> None:
        assert self.evaluations, "a job without an evaluation asks for nothing"
        assert list(self.evaluations) == sorted(set(self.evaluations)), "evaluations must rise"

    @cached_property
    def run_id(self) -> str:
        """Identity of the trajectory; hashed once, since a large sweep asks for it again and again."""
        return run_id(self.science)

    @property
    def title(self) -> str:
        """The run for people: its variant, width, seed and decay."""
        schedule = self.science.schedule
        decay = f" {schedule.kind}@{schedule.horizon_steps}" if schedule.horizon_steps else ""
        return f"{self.science.variant} d{self.science.model.d_model} seed {self.science.seed}{decay}"

    @property
    def target_step(self) -> int:
        """The last step."""
        return self.evaluations[-1]

    @property
    def trunk(self) -> Science | None:
        """For a cooldown, the constant-rate run that it equals until its decay begins."""
        if self.science.schedule.kind != "cooldown":
            return None
        return self.science.scheduled("constant", None)

    @property
    def follows(self) -> Science | None:
        """The run whose checkpoint this one begins with: a cooldown's trunk, or the parent of a start."""
        return self.trunk or self.science.start.parent

    def to_mapping(self) -> dict[str, Any]:
        """The job as plain values, for a pipe or a manifest."""
        return {
            "science": to_mapping(self.science),
            "evaluations": list(self.evaluations),
            "checkpoints": list(self.checkpoints),
            **({"needed": list(self.needed)} if self.needed else {}),
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Job:
        """The job of plain values."""
        return cls(
            science_from(values["science"]),
            tuple(values["evaluations"]),
            tuple(values.get("checkpoints", ())),
            tuple(values.get("needed", ())),
        )
