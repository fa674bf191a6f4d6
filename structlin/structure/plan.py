"""What does a linear map say of itself? Its factors, the order in which they meet the input, and what all of it costs.

With z for what lives between two factors (contraction.py), of one step

    MACs     product of the sizes of all indices in z or in the factor      params   product of the factor's indices
    fan-in   of the indices that end here (x and ranks)                     fan-out  of those that begin here (y, ranks)

    std(G)     = sqrt(min(fan_in, fan_out)) / fan_in            (spectral norm Theta(sqrt(fan_out/fan_in)))
    lr(G)/lr0  = base_fan_in / (num_factors * fan_in(G))        Adam: muP for a dense layer times the structure's factor

The cheapest of all orders is taken (the first of equally cheap ones), or factor 1 first, as the released code does.
Backward costs twice forward. Ledger, layers, experts, kernels' limits and records ask here; nobody else multiplies
sizes. Sources: arXiv 2410.02117, sections 3 and 4, and arXiv 2406.06248, section 3, for two factors; the rules for more
are derived here and equal theirs for two (tests/structure/test_plan.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from structlin.errors import UserError, suggest
from structlin.structure import describe
from structlin.structure.contraction import Step, orders
from structlin.structure.index import Index, indices, places
from structlin.structure.sizes import LETTERS, Sizes, factorise
from structlin.structure.theta import Theta

CONTRACTIONS = ("cheapest", "first")
OUTPUT_ORDERS = ("fed", "efd")
RATE_RULES = ("structure", "naive", "plain")


@dataclass(frozen=True)
class Factor:
    """One factor of a layer, as the step that contracts it with what came before."""

    step: Step
    sizes: Sizes

    @property
    def name(self) -> str:
        """Name of its parameter."""
        return self.step.name

    @property
    def is_last(self) -> bool:
        """Whether it is contracted last."""
        return self.step.is_last

    @property
    def params(self) -> int:
        """Its weights."""
        return _size(self.sizes, (*self.step.batch, *self.step.contracted, *self.step.new))

    @property
    def macs(self) -> int:
        """Multiply-accumulates per row of this step."""
        return _size(self.sizes, self.step.all)

    @property
    def middle(self) -> int:
        """Elements per row of what it leaves."""
        return _size(self.sizes, (*self.step.batch, *self.step.new, *self.step.passing))

    @property
    def fan_in(self) -> int:
        """Terms of each sum."""
        return _size(self.sizes, self.step.contracted)

    @property
    def fan_out(self) -> int:
        """Results that each of its inputs reaches."""
        return _size(self.sizes, self.step.new)

    @property
    def std(self) -> float:
        """Initial standard deviation; e.g. 64 -> 64 gives 1/8."""
        return math.sqrt(min(self.fan_in, self.fan_out)) / self.fan_in

    def adam_multiplier(self, base_fan_in: float, rule: str = "structure") -> float:
        """Adam's learning rate of this factor over lr0.

        ``structure``: base_fan_in / (num_factors * fan_in). ``naive``: the dense layer's base_fan_in / layer fan-in
        for every factor, the baseline of arXiv 2406.06248. ``plain``: 1. UserError for another rule.
        """
        if rule == "structure":
            return base_fan_in / (self.sizes.num_factors * self.fan_in)
        if rule == "naive":
            return base_fan_in / self.sizes.d_in
        if rule == "plain":
            return 1.0
        raise UserError(f"unknown optim.rate_rule '{rule}'; {suggest(rule, RATE_RULES)}")


@dataclass(frozen=True)
class LinearPlan:
    """All that is known of one linear map d_in -> d_out before any weight exists."""

    sizes: Sizes
    factors: tuple[Factor, ...]
    """In the order of contraction."""
    output_order: str = "fed"
    """Axes of the output of two factors, the first outermost: y[f, e, d], or y[e, f, d] as BlockShuffle leaves it."""

    def __repr__(self) -> str:
        return f"LinearPlan({describe.line(self)})"

    def __str__(self) -> str:
        return describe.table(self)

    @property
    def dense(self) -> bool:
        """One weight."""
        return self.sizes.dense

    @property
    def a_first(self) -> bool:
        """Of two factors, whether A is contracted first."""
        return self.factors[0].step.number == 1

    @cached_property
    def macs(self) -> int:
        """Forward MACs per row. Worked example: BTT at d = 64 (a = g = e = f = 8) costs 64*8 + 64*8, dense 4096."""
        return sum(factor.macs for factor in self.factors)

    @cached_property
    def params(self) -> int:
        """Number of weights."""
        return sum(factor.params for factor in self.factors)

    @cached_property
    def middles(self) -> tuple[int, ...]:
        """Elements per row of what lies between two steps."""
        return tuple(factor.middle for factor in self.factors[:-1])

    @cached_property
    def equation(self) -> str:
        """The einsum over all factors, indices of size 1 left out: BTT ``tga,fga,feg->tfe``, dense ``ti,oi->to``.

        t runs over rows; the letters of more than two factors are those of ``letters``.
        """
        letters = self.letters
        shown = {index: letters[index] for index, size in self.sizes.items() if size > 1 and index in letters}
        numbers = range(1, self.sizes.num_factors + 1)
        operands = ["t" + _spelled(shown, input_axes(self.sizes.num_factors))]
        operands += [_spelled(shown, factor_axes(self.sizes.num_factors, number)) for number in numbers]
        return ",".join(operands) + "->t" + _spelled(shown, self.output_axes)

    @cached_property
    def letters(self) -> dict[Index, str]:
        """A letter for every index that the equation may show."""
        count = self.sizes.num_factors
        if count == 1:
            return dict(zip(indices(1), "io", strict=True))
        if count == 2:
            by_name = {name: letter for letter, name in LETTERS.items()}
            return {index: by_name[index.name] for index in indices(2)}
        present = [index for index, size in self.sizes.items() if size > 1]
        alphabet = "abcdefghijklmnopqrsuvwxyzABCDEFGHIJKLMNOPQRSUVWXYZ"
        return dict(zip(present, alphabet, strict=False))

    @property
    def output_axes(self) -> tuple[Index, ...]:
        """Axes of the output, the outermost first."""
        axes = output_axes(self.sizes.num_factors)
        if self.output_order == "fed":
            return axes
        f, e, d = axes
        return e, f, d


def input_axes(num_factors: int) -> tuple[Index, ...]:
    """Axes of the input, the outermost first: x[g, b, a]."""
    return tuple(index for index in reversed(indices(num_factors)) if index.side == "x")


def output_axes(num_factors: int) -> tuple[Index, ...]:
    """Axes of the output, the outermost first: y[f, e, d]."""
    return tuple(index for index in reversed(indices(num_factors)) if index.side == "y")


def factor_axes(num_factors: int, number: int) -> tuple[Index, ...]:
    """Axes of a factor in its equation: outputs, ranks, inputs, as in A[f, d, r, g, a]."""
    own = [index for index in reversed(indices(num_factors)) if number in index]
    return tuple(index for side in "yrx" for index in own if index.side == side)


@lru_cache(maxsize=65_536)
def plan_linear(sizes: Sizes, contraction: str = "cheapest", output_order: str = "fed") -> LinearPlan:
    """The plan of a map of these sizes. UserError for an unknown contraction or order, or efd of over two factors."""
    if contraction not in CONTRACTIONS:
        raise UserError(f"unknown structure.contraction '{contraction}'; {suggest(contraction, CONTRACTIONS)}")
    if output_order not in OUTPUT_ORDERS:
        raise UserError(f"unknown structure.output_order '{output_order}'; {suggest(output_order, OUTPUT_ORDERS)}")
    if output_order != "fed" and sizes.num_factors > 2:
        raise UserError(
            f"structure.output_order = {output_order} orders the output of two factors, not of {sizes.num_factors}; "
            "use output_order=fed"
        )
    # The first order begins with factor 1, and ``min`` keeps the first of equals: ties go as in the released code.
    found = orders(sizes.num_factors)[: 1 if contraction == "first" else None]
    cheapest = min(found, key=lambda steps: sum(_size(sizes, step.all) for step in steps))
    return LinearPlan(sizes, tuple(Factor(step, sizes) for step in cheapest), "fed" if sizes.dense else output_order)


def plan_theta(
    theta: Theta,
    d_in: int,
    d_out: int,
    *,
    rounding: str = "exact",
    contraction: str = "cheapest",
    output_order: str = "fed",
) -> LinearPlan:
    """The plan of a theta at a layer shape; errors as of ``factorise`` and ``plan_linear``."""
    return plan_linear(factorise(theta, d_in, d_out, rounding), contraction, output_order)


def _size(sizes: Sizes, axes: tuple[Index, ...]) -> int:
    of = sizes.of_indices
    return math.prod(of[place] for place in _places(sizes.num_factors, axes))


@cache
def _places(num_factors: int, axes: tuple[Index, ...]) -> tuple[int, ...]:
    return tuple(places(num_factors)[index.name] for index in axes)


def _spelled(shown: dict[Index, str], axes: tuple[Index, ...]) -> str:
    return "".join(shown[index] for index in axes if index in shown)
