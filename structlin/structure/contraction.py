"""In which order do the factors meet the input, and which indices meet at each step?

x is contracted with the factors one after another. What lives between two steps is z: an input index until all factors
that it joins are done, an output index from the first of them on, a rank from the first to the last. Sizes play no part
here: plan.py multiplies them, taxonomy.py adds exponents. Source: derived here; for two factors arXiv 2410.02117.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import permutations

from structlin.structure.index import Index, indices


@dataclass(frozen=True)
class Step:
    """One contraction of an order, whatever the sizes: which indices meet."""

    name: str
    """``weight`` of a dense layer, A and B of two factors, G1, G2, ... of more."""
    number: int
    """Of the factor, counted from 1."""
    batch: tuple[Index, ...]
    """Indices that z and the factor have and the result keeps."""
    contracted: tuple[Index, ...]
    """Indices that both have and that end here."""
    new: tuple[Index, ...]
    """Indices that the factor brings."""
    passing: tuple[Index, ...]
    """Indices of z that the factor has not."""
    is_last: bool
    """Whether it gives the output: its factor starts at zero where a layer has to start at zero."""

    @cached_property
    def all(self) -> tuple[Index, ...]:
        """Every index that takes part: the product of their sizes are the step's MACs per row."""
        return (*self.batch, *self.contracted, *self.new, *self.passing)


@cache
def orders(num_factors: int) -> tuple[tuple[Step, ...], ...]:
    """The steps of every order, factor 1 first in the first of them."""
    return tuple(steps_of(num_factors, order) for order in permutations(range(1, num_factors + 1)))


@cache
def steps_of(num_factors: int, order: tuple[int, ...]) -> tuple[Step, ...]:
    """The steps of one order of contraction."""
    own, steps = indices(num_factors), []
    running = [index for index in own if index.side == "x"]
    for place, number in enumerate(order):
        after = [index for index in own if _remains(index, order[: place + 1])]
        both = [index for index in running if number in index]
        steps.append(
            Step(
                name=_name(num_factors, number),
                number=number,
                batch=tuple(index for index in both if index in after),
                contracted=tuple(index for index in both if index not in after),
                new=tuple(index for index in own if number in index and index not in running),
                passing=tuple(index for index in running if number not in index),
                is_last=number == order[-1],
            )
        )
        running = after
    return tuple(steps)


def _remains(index: Index, done: tuple[int, ...]) -> bool:
    """Whether an index stands in the result once these factors are done."""
    ended = all(factor in done for factor in index.factors)
    begun = any(factor in done for factor in index.factors)
    return {"x": not ended, "y": begun, "r": begun and not ended}[index.side]


def _name(num_factors: int, number: int) -> str:
    if num_factors == 1:
        return "weight"
    return "AB"[number - 1] if num_factors == 2 else f"G{number}"
