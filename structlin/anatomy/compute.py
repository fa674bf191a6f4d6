"""How much compute has a run taken after so many updates? Training FLOPs, exact: six per forward MAC and token.

All that plans, bills, records or draws compute asks here; nothing else multiplies sizes, tokens and steps.
"""

from __future__ import annotations

from collections.abc import Callable

from structlin.anatomy.ledger import FLOPS_PER_MAC, ledger
from structlin.config.science import Science


def flops_until(science: Science, step: int) -> int:
    """Training FLOPs of the first ``step`` updates."""
    return step_flops(science) * step


def flops_between(science: Science, first: int, last: int) -> int:
    """Training FLOPs of the updates after ``first`` up to ``last``."""
    return flops_until(science, last) - flops_until(science, first)


def step_flops(science: Science) -> int:
    """Training FLOPs of one update."""
    return FLOPS_PER_MAC["training"] * ledger(science).macs_per_token * science.optim.batch_tokens


def flops_at(science: Science, tokens: int) -> int:
    """Training FLOPs once so many tokens (whole updates) were trained on."""
    return flops_until(science, tokens // science.optim.batch_tokens)


def steps_for_flops(run: Callable[[int], Science], training_flops: float) -> int:
    """Whole steps whose training FLOPs are nearest to a budget; 0 if it buys less than half of one.

    ``run``: the science of a run of so many steps, which may hang on its length.
    """
    return round(training_flops / step_flops(run(1)))
