"""How many steps do tokens take, and at which steps is a run evaluated?"""

from __future__ import annotations

from structlin.config.science import Science

LONG_WARMUP = 0.2
"""A cell whose warm-up is a larger share of its steps is flagged: it tells little about the constant rate."""


def steps_for_tokens(science: Science, tokens: float) -> int:
    """Whole steps that cover the tokens."""
    return -(-int(tokens) // science.optim.batch_tokens)


def evaluation_steps(science: Science, last: int, per_decade: int) -> tuple[int, ...]:
    """Steps after warm-up at which a constant-rate trunk is evaluated, ``per_decade`` a factor ten, and ``last``.

    They come from one fixed lattice round(10^(k / per_decade)), so that a longer run visits all steps of a
    shorter one.
    """
    first = max(1, science.schedule.warmup_steps)
    lattice = set()
    k = 0
    while (step := round(10 ** (k / per_decade))) < last:
        if step > first:
            lattice.add(step)
        k += 1
    return (*sorted(lattice), last)


def warmup_share(science: Science, steps: int) -> float:
    """Share of a run's steps that are warm-up."""
    return min(1.0, science.schedule.warmup_steps / max(1, steps))
