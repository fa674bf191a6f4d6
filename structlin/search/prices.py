"""What will the rungs of a search cost? Foretold before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from structlin.anatomy.compute import flops_between, flops_until
from structlin.config.search import SearchConfig
from structlin.search.arms import Arm
from structlin.search.rungs import Ladder
from structlin.search.widths import Widths


class Prices:
    """What the rungs of a ladder are expected to cost, before anything is measured."""

    def __init__(self, arms: Sequence[Arm], widths: Widths, search: SearchConfig, proposals: int) -> None:
        self._arms, self._widths, self._search, self._proposals = arms, widths, search, proposals

    def rungs(self, steps: Ladder) -> tuple[float, ...]:
        """FLOPs of each rung: the first as it is planned, those above by the mean over all arms."""
        found = []
        for k, flops in enumerate(steps.flops):
            each = [self.step(arm, steps, k) for arm in self._arms]
            served = [one for one in each if one > 0]
            if not served:
                return tuple(math.inf for _ in steps.flops)
            found.append(sum(served) if k == 0 else float(np.mean(served)) * steps.counts[k])
            if k == 1:
                whole = [cost for arm in self._arms if (cost := self.whole(arm, flops)) > 0]
                found[1] += self._proposals * (float(np.mean(whole)) - float(np.mean(served)))
        return tuple(found)

    def step(self, arm: Arm, steps: Ladder, k: int) -> float:
        """What an arm costs on a rung beyond the rung below it."""
        before = dict(self._widths.of(arm, steps.flops[k - 1])) if k else {}
        new = sum(
            flops_between(one, min(step, before.get(one, 0)), step)
            for one, step in self._widths.of(arm, steps.flops[k])
        )
        seeds = len(arm.seeds)
        if self._search.seeds == "all":
            return new * seeds
        return new + ((seeds - 1) * self.whole(arm, steps.flops[k]) if k == len(steps.flops) - 1 else 0.0)

    def whole(self, arm: Arm, flops: float) -> float:
        """All runs of an arm to a compute, under one seed."""
        return float(sum(flops_until(one, step) for one, step in self._widths.of(arm, flops)))

    def everything(self, top: float) -> float:
        """All arms at the top compute, at all its widths and seeds."""
        return sum(self.whole(arm, top) * len(arm.seeds) for arm in self._arms)
