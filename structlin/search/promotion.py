"""Which arms go on? Those that may still be the best at the target, as far as the budget goes.

An arm leaves when its P(best) is below a stated level, or when the budget carries only so many and others are likelier.
P(best) counts what the backtest saw, so that arms whose frontiers may cross later are not lost to an early lead.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from structlin.search.predictors import Forecast

UNLIKELY, FORCED = "unlikely", "budget"


@dataclass(frozen=True)
class Promotion:
    """What becomes of the arms of a rung."""

    stay: tuple[int, ...]
    """Numbers of the arms that go on, the likeliest first."""
    leave: dict[int, str]
    """Of those that leave: UNLIKELY or FORCED."""


def promote(forecast: Forecast, most: int, level: float, always: Collection[int] = ()) -> Promotion:
    """At most ``most`` arms go on, each with P(best) of at least ``level``; those of ``always`` do in any case.

    The arm of the lowest expected loss and the likeliest one are never left behind.
    """
    best = forecast.best
    rank = sorted(range(len(best)), key=lambda place: (-best[place], forecast.log_loss[place]))
    first = int(forecast.order[0])
    rank.remove(first)
    rank.insert(0, first)
    kept, leave = [], {}
    yardsticks = sum(int(forecast.arms[place]) in always for place in rank)
    room = max(most - yardsticks, 1)
    for place in rank:
        arm = int(forecast.arms[place])
        if arm in always:
            kept.append(arm)
        elif best[place] < level and place not in rank[:2]:
            leave[arm] = UNLIKELY
        elif room > 0:
            kept.append(arm)
            room -= 1
        else:
            leave[arm] = FORCED
    return Promotion(tuple(kept), leave)


def chosen(forecast: Forecast) -> int:
    """The arm of the lowest expected loss at the target."""
    return int(forecast.arms[int(np.argmin(forecast.log_loss))])
