"""How much compute has a run taken after so many updates? Training FLOPs, exact: six per forward MAC and token.

All that plans, bills, records or draws compute asks here; nothing else multiplies sizes, tokens and steps. C = 6 N D
holds for most runs, but not while dense matrices guide factors (anatomy/guide.py), nor where layers compute with a part
of their ranks (anatomy/nested.py).
"""

from __future__ import annotations

from collections.abc import Callable

from structlin.anatomy.guide import guide_macs_until, guide_steps
from structlin.anatomy.ledger import FLOPS_PER_MAC, ledger
from structlin.anatomy.nested import idle_macs_until, most_idle_macs
from structlin.config.science import Science


def flops_until(science: Science, step: int) -> int:
    """Training FLOPs of the first ``step`` updates, and of all that its first weights have cost."""
    extra = guide_macs_until(science, step) if science.guide.kind != "none" else 0
    if science.nested != "none":
        extra -= idle_macs_until(science, step)
    own = step_flops(science) * step + FLOPS_PER_MAC["training"] * extra * science.optim.batch_tokens
    return inherited_flops(science) + own


def inherited_flops(science: Science) -> int:
    """Training FLOPs of the run that it starts from; 0 where its weights are drawn."""
    start = science.start
    return 0 if start.parent is None else flops_until(start.parent, start.step)


def flops_between(science: Science, first: int, last: int) -> int:
    """Training FLOPs of the updates after ``first`` up to ``last``."""
    return flops_until(science, last) - flops_until(science, first)


def step_flops(science: Science) -> int:
    """Training FLOPs of one update of the model alone, at its whole rank and without what guides it."""
    return FLOPS_PER_MAC["training"] * ledger(science).macs_per_token * science.optim.batch_tokens


def flops_at(science: Science, tokens: int) -> int:
    """Training FLOPs once so many tokens (whole updates) were trained on."""
    return flops_until(science, tokens // science.optim.batch_tokens)


def is_even(science: Science) -> bool:
    """Whether every update costs alike, so that C = 6 N D."""
    return science.guide.kind == "none" and science.start.parent is None and science.nested == "none"


def batch_number(science: Science, step: int) -> int:
    """Number of the batch that the update after ``step`` reads.

    A run that starts from another one on the same data goes on where that has stopped. Where a guided run is matched to
    a dense one it has more updates than that has batches: the last ones read the first batches again, as published.
    """
    own = step
    if science.guide.match == "dense" and science.schedule.horizon_steps is not None:
        own = step % (science.schedule.horizon_steps - guide_steps(science))
    start = science.start
    return own + (batch_number(start.parent, start.step) if start.parent and _reads_alike(start.parent, science) else 0)


def _reads_alike(one: Science, other: Science) -> bool:
    """Whether both read the same batches."""
    mine, others = ((s.data, s.seed, s.optim.batch_tokens, s.model.context) for s in (one, other))
    return mine == others


def steps_for_flops(run: Callable[[int], Science], training_flops: float) -> int:
    """Whole steps whose training FLOPs are nearest to a budget; 0 if it buys less than half of one.

    ``run``: the science of a run of so many steps, which may hang on its length.
    """
    one = run(1)
    if is_even(one):
        return round(training_flops / step_flops(one))
    idle = FLOPS_PER_MAC["training"] * most_idle_macs(one) * one.optim.batch_tokens
    return _inverse(lambda steps: flops_until(run(steps), steps), training_flops, step_flops(one) - idle)


def _inverse(cost: Callable[[int], int], budget: float, slope: int) -> int:
    """The whole number whose cost, which rises by at least ``slope`` each, is nearest to a budget.

    Costs grow nearly in proportion, so that a line between two of them all but hits.
    """
    low, high = 0, int(budget // slope) + 1
    below, above = cost(low), cost(high)
    while high - low > 1:
        guess = low + int((budget - below) / (above - below) * (high - low))
        middle = min(max(guess, low + 1), high - 1)
        found = cost(middle)
        if found <= budget:
            low, below = middle, found
        else:
            high, above = middle, found
    return low if budget - below <= above - budget else high
