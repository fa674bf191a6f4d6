"""Which tasks are there? The registry: a task by its name, bound to data or without any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from structlin.config.science import Science
from structlin.tasks.classification import ClassificationLearner, ClassificationTask
from structlin.tasks.language import LanguageTask
from structlin.tasks.next_token import NextTokenLearner
from structlin.tasks.pixels import PixelsTask
from structlin.tasks.protocol import Learner, Task
from structlin.tasks.regression import RegressionLearner, RegressionTask

LEARNERS: dict[str, tuple[Callable[[Science, Path], Task], Callable[[Science], Learner]]] = {
    "classification": (ClassificationTask, ClassificationLearner),
    "language": (LanguageTask, NextTokenLearner),
    "pixels": (PixelsTask, NextTokenLearner),
    "regression": (RegressionTask, RegressionLearner),
}
"""Task -> its class over prepared data, and that without any."""


def open_task(science: Science, data_root: Path) -> Task:
    """The task of a Science over prepared data. UserError where the data is not prepared."""
    return LEARNERS[science.task][0](science, data_root)


def open_learner(science: Science) -> Learner:
    """The model and loss of a Science, without data."""
    return LEARNERS[science.task][1](science)
