"""What is a model made of? Its linears and its other weights by name, in plain Python.

A model is built from its anatomy and the ledger counts it, so that a bill and a model cannot disagree about what
there is. ``anatomy(science)`` asks the kind of model: anatomy/gpt2.py, anatomy/mlp.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from structlin.config.ranks import ranks_of
from structlin.config.science import DENSE, Science
from structlin.errors import UserError
from structlin.structure import LinearPlan, Sizes, Theta, plan_linear
from structlin.structure.served import plan_served
from structlin.structure.sizes import rounded


@dataclass(frozen=True)
class LinearShape:
    """One linear layer of a model."""

    name: str
    """Qualified name, e.g. blocks.0.attention.q."""
    group: str
    """Group of the ledger: linear or head."""
    d_in: int
    d_out: int
    base_d_in: int
    """Fan-in of this layer in the base shape, where its muP multiplier is 1."""
    starts_at_zero: bool
    """Whether it is the zero map at first, as the last linear of a residual branch and the head mostly are."""
    plan: LinearPlan
    """Its factors, sizes and costs (dense where the structure does not apply)."""
    learned_scale: bool = True
    """Whether weight_norm=learned gives its factors scales; q and k are layer-normed, which makes them idle."""
    reads_gelu: bool = False
    """Whether its input is the GELU of what came before, which a fused kernel makes again."""
    bias: bool = False
    """Whether a vector is added to its output."""
    router: str = ""
    """Name of the router that chooses among its experts; empty where it is no mixture."""
    num_experts: int = 1
    """Linears of these sizes that it consists of."""
    active_experts: int = 1
    """Those of them that compute a token."""
    uses: int = 1
    """Times that a token passes it: of an image, each of its patches does."""
    rate: float = 1.0
    """Learning rate over that of its rule."""
    shares_cap: bool = False
    """Whether one RMS cap a factor, and one scale where it is learned, serves all of its experts."""
    tied: bool = False
    """Whether its weight is the table of tokens, among whose parameters it is counted."""

    @property
    def sizes(self) -> Sizes:
        """Integer sizes of its structure."""
        return self.plan.sizes

    @property
    def params(self) -> int:
        """Its own weights and its bias, those of all its experts."""
        return 0 if self.tied else self.num_experts * self.plan.params + (self.d_out if self.bias else 0)

    @property
    def has_own_router(self) -> bool:
        """Whether its router serves it alone."""
        return self.router == f"{self.name}.router"


@dataclass(frozen=True)
class RouterShape:
    """One router of a model."""

    name: str
    """Qualified name, e.g. blocks.0.ffn.router."""
    d_in: int
    base_d_in: int
    """Fan-in in the base shape, where its muP multiplier is 1."""
    num_experts: int


@dataclass(frozen=True)
class Anatomy:
    """All that a model holds."""

    linears: tuple[LinearShape, ...]
    """In forward order, the head last."""
    embedding_params: int
    norm_params: int
    """Gains and biases of the layer norms (learnable scales of the RMS caps are counted with the linears)."""
    normed_elements: int
    """Elements per token that pass a layer norm."""
    attention_macs: int
    """Forward MACs per token of full attention: scores and mixing."""
    kept_by_block: int
    """Elements per token that a training step keeps of each block for the backward pass, besides the inputs of its
    linears, what becomes one by a GELU, and their middles."""
    kept_outside: int
    """The same outside of the blocks."""
    routers: tuple[RouterShape, ...] = ()
    positions: int = 1
    """Rows that the residual stream has of a token: of an image, its patches and the class token."""


def at_rank(body: Anatomy, share: Fraction) -> Anatomy:
    """The same of which every linear of two factors has a share of its rank alone, contracted as it is now."""
    if share == 1:
        return body
    return replace(body, linears=tuple(_at_rank(shape, share) for shape in body.linears))


def _at_rank(shape: LinearShape, share: Fraction) -> LinearShape:
    plan, sizes = shape.plan, shape.plan.sizes
    if sizes.num_factors != 2:
        return shape
    fewer = sizes.of_rank(int(sizes.r * share))
    return replace(
        shape, plan=replace(plan, sizes=fewer, factors=tuple(replace(one, sizes=fewer) for one in plan.factors))
    )


def realised_sizes(linears: Iterable[LinearShape], theta: Theta) -> dict[str, dict[str, list[float]]]:
    """Shape of a structured layer, as 64 x 256 -> index -> [size asked for, size taken], where rounding changed one.

    The layers of a head layout take their axes from the heads, and experts theirs from the mixture: they are not here.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for shape in linears:
        if shape.plan.dense or shape.plan.sizes.num_factors != theta.num_factors or shape.router:
            continue
        changed = rounded(theta, shape.sizes)
        if changed:
            found[f"{shape.d_in} x {shape.d_out}"] = {name: [asked, size] for name, (asked, size) in changed.items()}
    return found


def linear_shape(
    science: Science,
    name: str,
    d_in: int,
    d_out: int,
    base_d_in: int,
    *,
    is_last: bool = False,
    learned_scale: bool = True,
    reads_gelu: bool = False,
) -> LinearShape:
    """A linear of these features, structured where the model's patterns say so; ``is_last`` of its branch or of all."""
    structure = science.structure
    own = ranks_of(structure.ranks)
    theta = Theta.parse(structure.theta if science.model.is_structured(name) else DENSE)
    plan = (
        _of_own_rank(science, name, d_in, d_out, own[name])
        if name in own
        else plan_served(
            theta,
            d_in,
            d_out,
            rounding=structure.rounding,
            contraction=structure.contraction,
            output_order=structure.output_order,
        )
    )
    group = "head" if name == "head" else "linear"
    bias, zero = science.model.has_bias(name), science.model.starts_at_zero(name, is_last=is_last)
    return LinearShape(name, group, d_in, d_out, base_d_in, zero, plan, learned_scale, reads_gelu, bias)


def _of_own_rank(science: Science, name: str, d_in: int, d_out: int, rank: int | None) -> LinearPlan:
    """A low-rank plan of a linear in structure.ranks; dense where it has no rank. UserError for a rank too high."""
    if rank is None:
        return plan_linear(Sizes.dense_layer(d_in, d_out))
    if rank > min(d_in, d_out):
        raise UserError(
            f"structure.ranks: {name} = {rank}, but a layer of {d_in} x {d_out} has rank {min(d_in, d_out)} at most; "
            "are these the ranks of a wider model? give those of this one"
        )
    return plan_linear(Sizes.of_two(d_in, d_out, a=d_in, e=d_out, r=rank), science.structure.contraction)
