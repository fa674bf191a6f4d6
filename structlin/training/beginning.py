"""How does a run begin whose first weights are another run's? Converted to its structure, moments kept where they fit.

The parent's checkpoint lies in the same store. What came out of the conversion is written down as the checkpoint of
step 0 before anything is trained, so that a run that goes on elsewhere never converts anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from structlin.anatomy.compute import batch_number
from structlin.convert.model import Converted, convert_model
from structlin.errors import UserError
from structlin.runs.attempt import Attempt
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.tasks.catalogue import open_learner
from structlin.tasks.protocol import Batch, Task
from structlin.training import checkpoint
from structlin.training.made import Made
from structlin.training.optim import make_optimizer, names_of
from structlin.training.world import ONE_PROCESS


def begin_from_parent(job: Job, store: Store, attempt: Attempt, task: Task, made: Made) -> None:
    """Give the model of step 0 its parent's weights, and the optimizer the moments of those that were kept.

    UserError where the parent has no checkpoint of that step.
    """
    start = job.science.start
    assert start.parent is not None
    folder = store.folder(start.parent)
    held = folder.checkpoints
    if start.step not in held:
        steps = ", ".join(map(str, sorted(held))) or "none"
        raise UserError(
            f"run {folder.run_id}, which this one starts from, has no checkpoint of step {start.step} (it keeps: "
            f"{steps}); train it to there in a store of its own, or start from a step that is kept"
        )
    state = checkpoint.read(held[start.step])
    parent = open_learner(start.parent).build_model()
    names = state.get("names", names_of(parent, make_optimizer(parent, start.parent.optim)))
    parent.load_state_dict(checkpoint.without_guides(state["model"]))
    batches = None if start.conversion == "nearest" else calibration(job, task)
    found = convert_model(parent, start.parent, job.science, batches)
    made.take(found.weights)
    _take_moments(made, found, names, state["optimizer"]["state"])
    checkpoint.write(attempt.checkpoints, 0, checkpoint.state_of(0, made.model, made.optimizer, ONE_PROCESS))


def calibration(job: Job, task: Task) -> Iterator[Batch]:
    """The run's own first batches, as many tokens as were asked for."""
    science = job.science
    count = -(-science.start.calibration_tokens // science.optim.batch_tokens)
    for step in range(count):
        yield task.train_batch(batch_number(science, step))


def _take_moments(made: Made, found: Converted, names: list[str], moments: dict[int, Any]) -> None:
    """Of the parameters that are the parent's; the others begin without."""
    parameters = dict(made.model.named_parameters())
    number = {name: place for place, name in enumerate(names)}
    for name in found.kept:
        if name in number and number[name] in moments:
            values = moments[number[name]]
            made.optimizer.state[parameters[name]] = {key: torch.clone(value) for key, value in values.items()}
