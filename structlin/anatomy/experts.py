"""Which linears of a GPT-2 are routed, and what are their experts? Source: arXiv 2410.02117, section 5.

kind       experts of a covered linear                              router
btt        BTT of rank 1 in the closest square factorisation        one a linear
dense      dense                                                    one a linear
low_rank   low rank, of rank ceil(min(d_in, d_out) / num_experts)   one a linear
ffn        the structure of the run                                 one a block for the whole FFN,
                                                                    one a linear in attention
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from structlin.anatomy.shapes import LinearShape, RouterShape
from structlin.config.moe import MoeConfig
from structlin.structure import LinearPlan, plan_theta, theta_of


def routed(shape: LinearShape, moe: MoeConfig, *, shares_cap: bool = False) -> LinearShape:
    """A linear of a block with its experts, or as it is where the mixture does not cover it.

    A cap that all experts share has its learned scale in q and k too.
    """
    block, part, _ = shape.name.rsplit(".", 2)
    if moe.kind == "none" or moe.layers not in ("all", part):
        return shape
    shared = moe.kind == "ffn" and part == "ffn"
    return replace(
        shape,
        plan=_expert_plan(shape, moe),
        router=f"{block}.ffn.router" if shared else f"{shape.name}.router",
        num_experts=moe.num_experts,
        active_experts=moe.top_k,
        shares_cap=shares_cap,
        learned_scale=shape.learned_scale or shares_cap,
    )


def routers(linears: Iterable[LinearShape]) -> tuple[RouterShape, ...]:
    """The routers of the linears, each once; it reads what the first linear that it serves reads."""
    found: dict[str, RouterShape] = {}
    for shape in linears:
        if shape.router and shape.router not in found:
            found[shape.router] = RouterShape(shape.router, shape.d_in, shape.base_d_in, shape.num_experts)
    return tuple(found.values())


def kept_elements(linears: Iterable[LinearShape]) -> int:
    """Elements per token that a training step keeps for routing and, in mixed FFNs, for all chosen experts.

    A router keeps logits, probabilities and their logarithms, and of an assignment expert, token and place (of eight
    bytes each) and the weight, twice. Of a hidden layer behind one router k copies are kept, before and after the
    GELU, where a plain FFN has one.
    """
    shapes = list(linears)
    served = {shape.router: shape for shape in shapes if shape.router}
    routing = sum(3 * shape.num_experts + 8 * shape.active_experts for shape in served.values())
    hidden = [shape for shape in shapes if shape.router and shape.name.endswith(".down") and not shape.has_own_router]
    return routing + sum(2 * (shape.active_experts - 1) * shape.d_in for shape in hidden)


def kept_by_experts(shape: LinearShape, middle: int, *, fused: bool) -> int:
    """Elements per token that the chosen experts of a linear keep, besides its input and any hidden layer.

    ``middle``: elements between an expert's factors. An operator that takes all experts (``fused``) makes everything
    again, but for one thing: whole dense FFNs keep each expert's result, of d_model, and make the GELU of the hidden
    layer again, which is what the down projection reads. Elsewhere gathered rows and results are kept, but no more of
    a mixed FFN's hidden layer, which is neither gathered nor summed.
    """
    is_up, is_down = (not shape.has_own_router and shape.name.endswith(end) for end in (".up", ".down"))
    if fused:
        return shape.active_experts * (shape.d_out - shape.d_in) if is_down and shape.sizes.dense else 0
    ends = (0 if is_down else shape.d_in) + (0 if is_up else shape.d_out)
    return shape.active_experts * (ends + middle)


def _expert_plan(shape: LinearShape, moe: MoeConfig) -> LinearPlan:
    if moe.kind == "ffn":
        return shape.plan
    # Together the experts of a low-rank mixture have the rank of a dense layer.
    rank = -(-min(shape.d_in, shape.d_out) // moe.num_experts)
    arguments = {"rank": rank} if moe.kind == "low_rank" else {}
    return plan_theta(theta_of(moe.kind, arguments=arguments), shape.d_in, shape.d_out)
