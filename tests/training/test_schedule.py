"""Rates are pure functions of the step with the promised shape."""

import pytest

from structlin.config.optim import ScheduleConfig
from structlin.training.schedule import rate

CONSTANT = ScheduleConfig(warmup_steps=10)
COSINE = ScheduleConfig(kind="cosine", warmup_steps=10, horizon_steps=110, final=0.1)
COOLDOWN = ScheduleConfig(kind="cooldown", warmup_steps=10, horizon_steps=100, final=0.0, cooldown_fraction=0.2)
TO_A_TENTH = ScheduleConfig(kind="cooldown", warmup_steps=10, horizon_steps=100, final=0.1, cooldown_fraction=0.2)
NO_TIME_TO_DECAY = ScheduleConfig(kind="cosine", warmup_steps=10, horizon_steps=10, final=0.1)


@pytest.mark.parametrize("schedule", [CONSTANT, COSINE, COOLDOWN])
def test_warm_up_is_linear_to_the_peak(schedule: ScheduleConfig) -> None:
    assert [rate(schedule, step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert rate(schedule, 10) == 1.0


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        (CONSTANT, 10_000_000, 1.0),
        (COSINE, 60, 0.55),
        (COSINE, 35, 0.1 + 0.9 * (2 + 2**0.5) / 4),
        (COSINE, 110, 0.1),
        (COSINE, 160, 0.1),
        (NO_TIME_TO_DECAY, 10, 1.0),
        (COOLDOWN, 79, 1.0),
        (COOLDOWN, 80, 1.0),
        (COOLDOWN, 90, 0.5),
        (COOLDOWN, 100, 0.0),
        (TO_A_TENTH, 80, 1.0),
        (TO_A_TENTH, 90, 0.55),
        (TO_A_TENTH, 95, 0.325),
        (TO_A_TENTH, 100, 0.1),
        (TO_A_TENTH, 120, 0.1),
    ],
)
def test_worked_values(schedule: ScheduleConfig, step: int, expected: float) -> None:
    assert rate(schedule, step) == pytest.approx(expected)


def test_a_cooldown_is_its_trunk_until_it_starts() -> None:
    assert all(rate(COOLDOWN, step) == rate(CONSTANT, step) for step in range(COOLDOWN.cooldown_start))
