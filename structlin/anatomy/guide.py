"""When does a dense matrix guide which layer? All of it follows from the Science, so bills and runs cannot differ.

While a run is guided a structured linear F computes y = s W x + (1 - s) F(x). The share s of the update t -> t + 1 is
(1 + cos(pi t / T)) / 2, T the guided steps, and 0 from then on. Under guide=stochastic a linear draws a number in
[0, 1) for every update: where it lies below s the mixture is computed, else F alone. So the mean weight of W is s^2,
and W x costs half of what it does under guide=full. Source: arXiv 2406.16450, section 3 and its code, which draws anew
on every rank and in every part of a batch; ours is a hash of seed, layer and step.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from structlin.anatomy.draws import drawn
from structlin.anatomy.kinds import anatomy
from structlin.anatomy.ledger import alike, ledger
from structlin.anatomy.shapes import LinearShape
from structlin.config.guide import GuideConfig
from structlin.config.science import DENSE, Science
from structlin.config.structure import StructureConfig
from structlin.errors import UserError


def guide_steps(science: Science) -> int:
    """Steps that are guided, T; 0 where none is."""
    guide = science.guide
    if guide.kind == "none":
        return 0
    if guide.steps is not None:
        return guide.steps
    horizon = science.schedule.horizon_steps
    assert horizon is not None, "a guided share is one of a run whose length is known"
    share = matched_share(science) if guide.match == "dense" else guide.share
    assert share is not None
    return round(share * horizon)


def matched_share(science: Science) -> float:
    """Share of the steps that is guided where a run costs what the dense model does on the fresh tokens.

    With D, S and g the forward MACs per token of the dense model, of the structured one and of all W: of T (1 + rho)
    steps rho T are guided, rho = (D - S) / (S + c g), c = 1/2 for the stochastic guide and 1 for the full one.
    UserError where the dense model is no dearer.
    """
    dense = ledger(_dense(alike(science))).macs_per_token
    own = ledger(science).macs_per_token
    if dense <= own:
        raise UserError(
            f"guide.match=dense: {science.structure.name} at d_model = {science.model.d_model} takes {own:,} MACs a "
            f"token and dense {dense:,}, so nothing is left over to guide by; give guide.share"
        )
    extra = sum(shape.d_in * shape.d_out for shape in guided_linears(science))
    rho = (dense - own) / (own + extra * (0.5 if science.guide.kind == "stochastic" else 1.0))
    return rho / (1.0 + rho)


def _dense(science: Science) -> Science:
    return replace(science, structure=StructureConfig(DENSE), guide=GuideConfig())


def guided_linears(science: Science) -> tuple[LinearShape, ...]:
    """The linears that have factors, in forward order."""
    return tuple(shape for shape in anatomy(science).linears if not shape.plan.dense)


def guide_share(science: Science, step: int) -> float:
    """s after ``step`` updates, in [0, 1]."""
    last = guide_steps(science)
    return _share(step, last) if step < last else 0.0


def guides_at(science: Science, step: int) -> dict[str, bool]:
    """Linear -> whether its dense branch is computed in the update that follows ``step``."""
    share = guide_share(science, step)
    names = [shape.name for shape in guided_linears(science)]
    if science.guide.kind != "stochastic":
        return dict.fromkeys(names, share > 0)
    at = np.array([step], dtype=np.uint64)
    return {name: bool(drawn("guide", science.seed, name, at)[0] < share) for name in names}


def guide_macs_until(science: Science, step: int) -> int:
    """Forward MACs per token of all dense branches in the first ``step`` updates, added up over the updates."""
    last = guide_steps(science)
    count = min(step, last)
    if not count:
        return 0
    costs = tuple((shape.name, shape.d_in * shape.d_out) for shape in guided_linears(science))
    if science.guide.kind != "stochastic":
        return count * sum(macs for _, macs in costs)
    return int(_drawn_macs(science.seed, costs, last)[count - 1])


@lru_cache(maxsize=8)
def _drawn_macs(seed: int, costs: tuple[tuple[str, int], ...], last: int) -> np.ndarray:
    """Forward MACs per token of the dense branches drawn in the first 1, 2, ... of ``last`` guided updates."""
    steps = np.arange(last, dtype=np.uint64)
    shares = np.array([_share(step, last) for step in range(last)])
    found = np.zeros(last, dtype=np.int64)
    for name, macs in costs:
        found += macs * (drawn("guide", seed, name, steps) < shares)
    return np.cumsum(found)


def _share(step: int, last: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * step / last))
