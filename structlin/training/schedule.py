"""What is the learning rate at a step? A pure function of the step, as a share of the peak rate."""

from __future__ import annotations

import math

from structlin.config.optim import ScheduleConfig


def rate(schedule: ScheduleConfig, step: int) -> float:
    """Rate of the update that leads from ``step`` to ``step + 1``, over the peak rate.

    Linear warm-up to 1, then constant; cosine to ``final`` at the horizon; or constant until the cooldown starts
    and linear to ``final``. Until then a cooldown is exactly its constant trunk.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.kind == "constant":
        return 1.0
    assert schedule.horizon_steps is not None
    if schedule.kind == "cosine":
        done = (step - schedule.warmup_steps) / max(1, schedule.horizon_steps - schedule.warmup_steps)
        return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    start = schedule.cooldown_start
    if step < start:
        return 1.0
    left = (schedule.horizon_steps - step) / (schedule.horizon_steps - start)
    return schedule.final + (1 - schedule.final) * max(0.0, left)
