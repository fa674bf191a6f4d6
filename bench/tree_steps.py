"""How long does a step of a source tree take? A process that imports that tree and times its loop's own update.

    PYTHONPATH=TREE python bench/tree_steps.py        lines of JSON in, lines of JSON out

    {"words": ["scale=small", ..]}   hold the run of these words of train.py, on a random batch; answers {}
    {"steps": 10}                    train so many steps; answers {"cpu": seconds a step, "wall": seconds a step}

It imports nothing of this folder, and asks of a tree only what every one of this project's has had since its first
studies: a request of train.py, a task's learner, an optimizer, and a Trainer.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch


def first_of(name: str, *modules: str) -> Any:
    """What the first of some modules of the tree that is there calls ``name``."""
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"none of {', '.join(modules)} has {name}")


def update_of(words: list[str]) -> Callable[[], object]:
    """A function that trains one more step of a run on the same random batch."""
    request = first_of("train_request", "structlin.config.doors", "structlin.config.compose")(words)
    science = request.template.run(request.d_model, 1_000_000)
    learner = first_of("open_learner", "structlin.tasks.catalogue", "structlin.tasks.protocol")(science)
    make_optimizer = first_of("make_optimizer", "structlin.training.optim")
    world = first_of("ONE_PROCESS", "structlin.training.world")
    device = torch.device("cpu")
    model = learner.build_model()
    optimizer = make_optimizer(model, science.optim)
    known = {
        "job": first_of("Job", "structlin.runs.job")(science, (1_000_000,)),
        "attempt": SimpleNamespace(journal=None),
        "task": learner,
        "model": model,
        "forward": world.place(model, optimizer, device),
        "optimizer": optimizer,
        "device": device,
        "placement": first_of("Placement", "structlin.config.placement")(device="cpu", tracking="journal"),
        "macs_per_token": 1,
        "observe": lambda row: None,
        "should_stop": lambda: False,
        "evaluations": frozenset(),
        "world": world,
    }
    kind = first_of("Trainer", "structlin.training.loop")
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    trainer = kind(**{name: value for name, value in known.items() if name in fields})
    batch = learner.random_batch(science.rows, torch.Generator().manual_seed(0))

    def update() -> None:
        trainer._update(batch)
        trainer.step += 1

    return update


def main() -> None:
    """Answer requests until the input ends; what libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    update: Callable[[], object] = lambda: None  # noqa: E731
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, float] = {}
        if "words" in asked:
            torch.manual_seed(0)
            update = update_of(asked["words"])
        else:
            update()  # What the other tree's process has taken from the caches comes back.
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(asked["steps"]):
                update()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            answer = {"cpu": cpu / asked["steps"], "wall": wall / asked["steps"]}
        replies.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
