"""Which tasks are there? The registry: a task by its name, bound to data or without any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from structlin.config.science import Science
from structlin.tasks.language import LanguageTask
from structlin.tasks.next_token import NextTokenLearner
from structlin.tasks.pixels import PixelsTask
from structlin.tasks.protocol import Learner, Task
from structlin.tasks.regression import RegressionLearner, RegressionTask


def open_task(science: Science, data_root: Path) -> Task:
    """The task of a Science over prepared data. UserError where the data is not prepared."""
    tasks: dict[str, Callable[[Science, Path], Task]] = {
        "language": LanguageTask,
        "pixels": PixelsTask,
        "regression": RegressionTask,
    }
    return tasks[science.task](science, data_root)


def open_learner(science: Science) -> Learner:
    """The model and loss of a Science, without data."""

    return RegressionLearner(science) if science.task == "regression" else NextTokenLearner(science)
