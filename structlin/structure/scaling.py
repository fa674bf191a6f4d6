"""How large are a factor's first weights and its learning rate? Spectral initialisation and muP per factor.

Each factor G is a batched matrix product with its own fan-in and fan-out, which depend on the contraction order:

    A first: A (alpha, delta phi rho)   B (beta gamma rho, epsilon)
    B first: B (beta, epsilon phi rho)  A (alpha gamma rho, delta)

    std(G)     = sqrt(min(fan_in, fan_out)) / fan_in            (spectral norm Theta(sqrt(fan_out/fan_in)))
    lr(G)/lr0  = base_fan_in / (num_factors * fan_in(G))        Adam: the dense multiplier times kappa

Source: arXiv 2406.06248 (section 3), arXiv 2410.02117 (section 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from structlin.errors import UserError, suggest
from structlin.structure.cost import a_first
from structlin.structure.sizes import Sizes

RATE_RULES = ("structure", "naive")


@dataclass(frozen=True)
class FactorScale:
    """Fan-in and fan-out of one factor of a layer, in the order of contraction."""

    name: str
    """``A``, ``B`` or, for a dense layer, ``weight``."""
    fan_in: int
    fan_out: int
    is_last: bool
    """The factor contracted last: the one that starts at zero where a layer has to start at zero."""
    num_factors: int
    layer_fan_in: int

    @property
    def std(self) -> float:
        """Initial standard deviation; e.g. 64 -> 64 gives 1/8."""
        return math.sqrt(min(self.fan_in, self.fan_out)) / self.fan_in

    def adam_multiplier(self, base_fan_in: int, rule: str = "structure") -> float:
        """Adam's learning rate of this factor over lr0.

        ``structure``: base_fan_in / (num_factors * fan_in). ``naive``: the dense layer's base_fan_in / layer fan-in
        for every factor, the baseline of arXiv 2406.06248. UserError for another rule.
        """
        if rule == "structure":
            return base_fan_in / (self.num_factors * self.fan_in)
        if rule == "naive":
            return base_fan_in / self.layer_fan_in
        raise UserError(f"unknown optim.rate_rule '{rule}'; {suggest(rule, RATE_RULES)}")

    def sgd_multiplier(self, layer_fan_out: int) -> float:
        """SGD's multiplier: (fan_out/fan_in of the factor) / (that of the layer) / num_factors."""
        return (self.fan_out / self.fan_in) / (layer_fan_out / self.layer_fan_in) / self.num_factors

    @property
    def kappa(self) -> float:
        """Adam's rate over the dense layer's: layer_fan_in / (num_factors * fan_in). Kronecker: sqrt(d)/2."""
        return self.layer_fan_in / (self.num_factors * self.fan_in)


def factor_scales(sizes: Sizes) -> tuple[FactorScale, ...]:
    """The scales of a layer's factors, first contracted first."""
    s = sizes
    if s.dense:
        return (FactorScale("weight", s.d_in, s.d_out, True, 1, s.d_in),)
    if a_first(s):
        first = FactorScale("A", s.a, s.d * s.f * s.r, False, 2, s.d_in)
        last = FactorScale("B", s.b * s.g * s.r, s.e, True, 2, s.d_in)
    else:
        first = FactorScale("B", s.b, s.e * s.f * s.r, False, 2, s.d_in)
        last = FactorScale("A", s.a * s.g * s.r, s.d, True, 2, s.d_in)
    return first, last
