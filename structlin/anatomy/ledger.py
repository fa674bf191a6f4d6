"""What does a model cost? One exact ledger of parameters and forward MACs per token, by group.

    group       parameters                      forward MACs per token
    embedding   (vocab + context) d_model;      0 (a look-up)
                vocab d_model where rotated
    attention   0                               2 T d_model a layer (scores and mixing; of attention_width where it
                                                is given), half of it counted causally
    linear      every structured or dense one,  its plan's, of the experts chosen in training
                those of all experts; biases
    norm        layer norms, learnable scales   0
    head        d_model vocab, and its bias;    d_model vocab
                none where it is the table of tokens
    router      d_in num_experts each           the same; sorting and weighing tokens are counted as nothing

FLOP conventions by name: ``training`` = 6 per MAC (2 for a multiply-add, 3 for forward and backward), ``paper`` = 1
per MAC, as arXiv 2410.02117 and 2406.06248 define the compute of their figures, ``logged`` = what the released code of
the former counted: 1 per MAC with factor 1 contracted first, whichever order is cheaper, and 5 per element of a layer
norm. Source: method of arXiv 2410.02117, appendix, and the counts of its code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from structlin.anatomy.experts import kept_by_experts
from structlin.anatomy.kinds import anatomy
from structlin.anatomy.shapes import Anatomy, LinearShape, at_rank
from structlin.config.guide import GuideConfig
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.science import EvaluationConfig, Science, StartConfig
from structlin.errors import UserError, suggest
from structlin.kernels.limits import is_fusible
from structlin.structure import plan_linear

FLOPS_PER_MAC = {"training": 6, "paper": 1, "logged": 1}
_LOGGED_PER_NORMED = 5
GROUPS = ("embedding", "attention", "linear", "norm", "head", "router")
BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True)
class Ledger:
    """Parameters and forward MACs per token of one model."""

    params: dict[str, int]
    """Parameters by group."""
    macs: dict[str, int]
    """Forward MACs per token by group, attention full."""
    macs_by_linear: dict[str, int]
    """Forward MACs per token of each linear by name."""
    params_by_linear: dict[str, int]
    """Parameters of each linear by name, of all its experts."""
    logged_macs_per_token: int
    """Forward MACs per token as the released code of arXiv 2410.02117 counted: factor 1 first, and 5 per element that
    passes a layer norm."""
    params_active: int
    """Parameters that take part in computing one token: all, or those of the chosen experts."""
    weight_bytes: int
    """Bytes of the weights as stored (float32 masters, also under bfloat16)."""
    activation_bytes: int
    """Bytes of the activations that a training step keeps for the backward pass, accounted (not measured)."""
    fused_activation_bytes: int
    """The same where the fused kernels serve: they make what lies between two factors again instead of keeping it."""
    recomputed_activation_bytes: int
    """``activation_bytes`` under recompute=true: the inputs of all blocks, all of one block, and what lies outside."""
    recomputed_fused_activation_bytes: int
    """Under both."""
    xi: float
    """Compute per dimension: forward MACs of the structured linears over the mean of their features in and out, summed
    over all of them; d for a dense square layer, 2 R for rank R [arXiv 2406.06248]."""
    recomputed_macs_per_token: int
    """Forward MACs per token that recompute=true spends again: those of the blocks. No useful work, so in no other
    count."""

    @property
    def params_total(self) -> int:
        """All trainable parameters."""
        return sum(self.params.values())

    @property
    def macs_per_token(self) -> int:
        """Forward MACs per token, attention full, head included: the size N of a model, so that C = 6 N D."""
        return sum(self.macs.values())

    def kept_bytes(self, *, fused: bool, recompute: bool) -> int:
        """Bytes of the activations that a step keeps, by what serves it."""
        if recompute:
            return self.recomputed_fused_activation_bytes if fused else self.recomputed_activation_bytes
        return self.fused_activation_bytes if fused else self.activation_bytes

    def flops_per_token(self, convention: str = "training", *, causal: bool = False, head: bool = True) -> float:
        """FLOPs per token under a convention by name.

        ``causal`` counts half of the attention, ``head=False`` leaves the head out. UserError lists the conventions.
        """
        if convention not in FLOPS_PER_MAC:
            raise UserError(f"unknown convention '{convention}'; {suggest(convention, FLOPS_PER_MAC)}")
        every = self.logged_macs_per_token if convention == "logged" else self.macs_per_token
        macs = every - (0 if head else self.macs["head"])
        return FLOPS_PER_MAC[convention] * (macs - (self.macs["attention"] / 2 if causal else 0))


@lru_cache(maxsize=16_384)
def ledger(science: Science) -> Ledger:
    """The ledger of a run's model."""
    return _ledger(alike(science))


def ledger_at(science: Science, share: Fraction) -> Ledger:
    """The ledger of a run's model at a share of its ranks (nested.menu)."""
    return _ledger(alike(science), share)


def alike(science: Science) -> Science:
    """The one Science for all runs of a model and a batch, of any seed, rate, length, guide and start."""
    return replace(
        science,
        seed=0,
        optim=OptimConfig(batch_tokens=science.optim.batch_tokens),
        schedule=ScheduleConfig(),
        evaluation=EvaluationConfig(),
        guide=GuideConfig(),
        start=StartConfig(),
    )


@lru_cache(maxsize=4096)
def _ledger(science: Science, share: Fraction = Fraction(1)) -> Ledger:
    body = at_rank(anatomy(science), share)
    params_by_linear = {shape.name: shape.params for shape in body.linears}
    macs_by_linear = {shape.name: shape.uses * shape.active_experts * shape.plan.macs for shape in body.linears}
    routing = sum(router.d_in * router.num_experts for router in body.routers)
    params = {
        **dict.fromkeys(GROUPS, 0),
        "embedding": body.embedding_params,
        "linear": sum(count for name, count in params_by_linear.items() if name != "head"),
        "norm": body.norm_params + sum(_caps(shape) * _scales(science, shape) for shape in body.linears),
        "head": params_by_linear["head"],
        "router": routing,
    }
    macs = {
        **dict.fromkeys(GROUPS, 0),
        "attention": body.attention_macs,
        "linear": sum(count for name, count in macs_by_linear.items() if name != "head"),
        "head": macs_by_linear["head"],
        "router": routing,
    }
    outside = sum(macs_by_linear[name] for name in science.model.OUTER_LINEARS)
    return Ledger(
        params,
        macs,
        macs_by_linear,
        params_by_linear,
        logged_macs_per_token=_logged_macs(body) + routing,
        params_active=sum(params.values()) - _idle_params(science, body),
        weight_bytes=sum(params.values()) * (8 if science.model.dtype == "float64" else 4),
        activation_bytes=_activation_bytes(science, body, fused=False, recompute=False),
        fused_activation_bytes=_activation_bytes(science, body, fused=True, recompute=False),
        recomputed_activation_bytes=_activation_bytes(science, body, fused=False, recompute=True),
        recomputed_fused_activation_bytes=_activation_bytes(science, body, fused=True, recompute=True),
        xi=_compute_per_dimension(science, body),
        recomputed_macs_per_token=sum(macs.values()) - outside,
    )


def _scales(science: Science, shape: LinearShape) -> int:
    """Learnable scales of the RMS caps in one linear or expert: one a factor, where it has them."""
    learns = science.model.weight_norm == "learned" and shape.learned_scale
    return len(shape.plan.factors) if learns and not shape.plan.dense else 0


def _compute_per_dimension(science: Science, body: Anatomy) -> float:
    """xi of all structured linears; experts count as the layers that they are."""
    chosen = [shape for shape in body.linears if science.model.is_structured(shape.name)]
    return sum(shape.plan.macs for shape in chosen) / sum((shape.d_in + shape.d_out) / 2 for shape in chosen)


def _logged_macs(body: Anatomy) -> int:
    """All but the routers, by the released count."""
    linears = sum(shape.uses * shape.active_experts * plan_linear(shape.sizes, "first").macs for shape in body.linears)
    return linears + body.attention_macs + _LOGGED_PER_NORMED * body.normed_elements


def _caps(shape: LinearShape) -> int:
    """RMS caps a factor: one an expert, or one for all."""
    return 1 if shape.shares_cap else shape.num_experts


def _idle_params(science: Science, body: Anatomy) -> int:
    """Weights of the experts that a token is not sent to, and their scales where each has its own."""
    idle = 0
    for shape in body.linears:
        scales = 0 if shape.shares_cap else _scales(science, shape)
        idle += (shape.num_experts - shape.active_experts) * (shape.plan.params + scales)
    return idle


def _activation_bytes(science: Science, body: Anatomy, *, fused: bool, recompute: bool) -> int:
    """Bytes of what a step keeps: linear inputs, structured middles, and what the anatomy adds."""
    by_block: dict[str, int] = {}
    outside = body.kept_outside
    for shape in body.linears:
        kept = shape.uses * (_inputs(shape, fused=fused) + _middles(shape, fused=fused))
        if shape.name in science.model.OUTER_LINEARS:
            outside += kept
        else:
            block = ".".join(shape.name.split(".")[:2])
            by_block[block] = by_block.get(block, body.kept_by_block) + kept
    if recompute:
        elements = outside + len(by_block) * body.positions * science.model.d_model + max(by_block.values())
    else:
        elements = outside + sum(by_block.values())
    return elements * science.optim.batch_tokens * BYTES[science.model.dtype]


def _inputs(shape: LinearShape, *, fused: bool) -> int:
    """Elements that a linear reads and, where these are a GELU's, those before it, unless a kernel makes it again."""
    makes_again = fused and not shape.router and is_fusible(shape.plan)
    return 2 * shape.d_in if shape.reads_gelu and not makes_again else shape.d_in


def _middles(shape: LinearShape, *, fused: bool) -> int:
    """Elements between a linear's factors, or of its chosen experts, that are not made again."""
    if shape.router:
        return kept_by_experts(shape, sum(shape.plan.middles), fused=fused)
    return 0 if fused and is_fusible(shape.plan) else sum(shape.plan.middles)
