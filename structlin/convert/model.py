"""How does a trained model become one of another structure? Linear by linear, all else as it is.

A linear whose plan is the parent's keeps its factors; any other takes those nearest to the parent's matrix, on the
inputs that the parent's linear meets where there are calibration batches. Biases, embeddings and norms are copied. A
matrix of zeros gives a map of zeros that can learn: first factors as they are drawn, the last one zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from structlin.anatomy.kinds import anatomy
from structlin.anatomy.shapes import LinearShape
from structlin.config.model import Gpt2Config
from structlin.config.science import Science
from structlin.config.start import check_conversion
from structlin.convert.aware import nearest_on, squared_error
from structlin.convert.moments import Batch, moments
from structlin.convert.nearest import nearest
from structlin.convert.network import Network
from structlin.errors import UserError
from structlin.models.build import build_model
from structlin.nn.linear import Linear
from structlin.structure.heads import input_is_transposed, output_is_transposed


@dataclass(frozen=True)
class Converted:
    """The weights of a child."""

    weights: dict[str, Tensor]
    """By the names of the child's state, in its dtype."""
    converted: tuple[str, ...]
    """Parameters that are new: an optimizer's moments of them start anew."""
    kept: tuple[str, ...]
    """Parameters that are the parent's: so may their moments be."""
    errors: Mapping[str, float]
    """Of every converted linear |W - W'| / |W|, in the metric of its inputs where there was calibration."""


def convert_model(
    parent_model: nn.Module, parent_science: Science, science: Science, calibration: Iterable[Batch] | None = None
) -> Converted:
    """The weights of ``science``'s model nearest to a parent's.

    ``calibration``: batches of inputs (or of inputs and targets) for the parent; None: nearest in Frobenius norm.
    UserError for what a conversion cannot do: weight_norm, mixtures, another task, tokenizer, width or context.
    """
    check_conversion(parent_science, science)
    parent, child = _Side.of(parent_model, parent_science), _Side.of(build_model(science), science)
    _check_linears(parent.shapes, child.shapes)
    changed = [name for name in child.shapes if not _is_alike(parent, child, name)]
    # A linear that becomes dense takes the matrix, whatever it meets.
    asked = [name for name in changed if not child.shapes[name].plan.dense]
    met = moments(parent_model, calibration, asked) if asked and calibration is not None else {}
    errors = {}
    for name in changed:
        moment = met.get(name)
        if moment is not None:
            moment = _in_order(moment, parent.order(name)[1], parent.order(name)[1])
        weight = _in_order(matrix(parent.linear(name)), *parent.order(name))
        errors[name] = _take(child, name, weight, moment)
    converted, kept = _copy_others(parent, child, set(changed))
    weights = {name: tensor.detach().clone() for name, tensor in child.model.state_dict().items()}
    return Converted(weights, converted, kept, errors)


@dataclass(frozen=True)
class _Side:
    """A parent or a child."""

    model: nn.Module
    science: Science
    shapes: Mapping[str, LinearShape]

    @classmethod
    def of(cls, model: nn.Module, science: Science) -> _Side:
        """With the linears of the science's anatomy."""
        return cls(model, science, {shape.name: shape for shape in anatomy(science).linears})

    def linear(self, name: str) -> Linear:
        """A linear by its name. UserError for another kind of layer."""
        found = self.model.get_submodule(name)
        if not isinstance(found, Linear):
            raise UserError(f"{name} is a {type(found).__name__}, which no conversion knows")
        return found

    def order(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        """Where rows and columns in the order [head, feature] stand in a linear's own matrix; None: as they are.

        Head layouts hold q, k and v, and what o reads, as [feature, head].
        """
        layout, shape, part = self.science.structure.head_layout, self.shapes[name], name.rpartition(".")[2]
        if layout == "none" or ".attention." not in name or shape.plan.sizes.num_factors != 2:
            return None, None
        assert isinstance(self.science.model, Gpt2Config)
        head = self.science.model.head_size
        if part == "o":
            return None, _transposed(shape.d_in, head) if input_is_transposed(layout) else None
        return _transposed(shape.d_out, head) if output_is_transposed(layout) else None, None


def matrix(layer: Linear) -> Tensor:
    """A linear's matrix (d_out, d_in) in float64."""
    network = Network(layer.plan)
    factors = [factor.detach().to(torch.float64) for factor in layer.equation_factors()]
    return network.matrix(network.product(network.present(factors)))


def _check_linears(parents: Mapping[str, LinearShape], shapes: Mapping[str, LinearShape]) -> None:
    """The same linears of the same features on both sides."""
    for name in sorted(parents.keys() ^ shapes.keys()):
        whose, other = ("parent", "child") if name in parents else ("child", "parent")
        raise UserError(f"the {whose} has a linear {name}, which the {other} lacks; convert between models of one kind")
    for name, shape in shapes.items():
        before = parents[name]
        if (before.d_in, before.d_out) != (shape.d_in, shape.d_out):
            raise UserError(
                f"{name} is {before.d_in} x {before.d_out} of the parent and {shape.d_in} x {shape.d_out} of the "
                "child; a conversion changes no width"
            )


def _is_alike(parent: _Side, child: _Side, name: str) -> bool:
    """Whether a linear may keep its factors: the same plan, and features in the same order."""
    if parent.shapes[name].plan != child.shapes[name].plan:
        return False
    pairs = zip(parent.order(name), child.order(name), strict=True)
    return all(before is after or _is_same(before, after) for before, after in pairs)


def _is_same(before: Tensor | None, after: Tensor | None) -> bool:
    return before is not None and after is not None and torch.equal(before, after)


def _take(child: _Side, name: str, weight: Tensor, moment: Tensor | None) -> float:
    """Let a child's linear be nearest to a matrix in the order of heads; |W - W'| / |W|."""
    layer, (rows, columns) = child.linear(name), map(_inverse, child.order(name))
    own = _in_order(weight, rows, columns)
    if not bool(own.any()):
        with torch.no_grad():
            getattr(layer, layer.plan.factors[-1].name).zero_()
        return 0.0
    if moment is None:
        found, whole = nearest(layer.plan, own), float(own.square().sum())
    else:
        moment = _in_order(moment, columns, columns)
        found, _ = nearest_on(layer.plan, own, moment)
        whole = squared_error(own, torch.zeros_like(own), moment)
    layer.take_factors(found.factors)
    return float((found.error / whole) ** 0.5) if whole else 0.0


def _copy_others(parent: _Side, child: _Side, changed: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy all that is no factor of a changed linear; the names of new parameters, and of those that are kept."""
    known, state = dict(parent.model.named_parameters()), dict(child.model.named_parameters())
    of_factors = [
        {f"{name}.{factor.name}" for name in changed for factor in side.shapes[name].plan.factors}
        for side in (parent, child)
    ]
    for name in sorted(known.keys() - state.keys() - of_factors[0]):
        raise UserError(f"the parent has {name}, for which the child has no place; let the child have it too")
    converted, kept = [], []
    for name, parameter in state.items():
        if name in of_factors[1] or (name not in known and name.endswith("bias")):
            # A bias that the parent had not starts at zero, and says what it said.
            converted.append(name)
        elif name not in known:
            raise UserError(f"the child has {name}, of which the parent knows nothing; leave it out")
        else:
            _copy(parent, child, name, known[name], parameter)
            kept.append(name)
    return tuple(converted), tuple(kept)


@torch.no_grad()
def _copy(parent: _Side, child: _Side, name: str, value: Tensor, parameter: Tensor) -> None:
    """A parent's parameter; a bias in the order of the child's features. UserError for another shape."""
    if value.shape != parameter.shape:
        raise UserError(f"{name} is {tuple(value.shape)} of the parent and {tuple(parameter.shape)} of the child")
    linear, _, part = name.rpartition(".")
    if part == "bias" and linear in child.shapes:
        value = _in_order(_in_order(value, parent.order(linear)[0]), _inverse(child.order(linear)[0]))
    parameter.copy_(value)


def _transposed(features: int, head: int) -> Tensor:
    """Places of [head, feature] in [feature, head]."""
    return torch.arange(features).reshape(head, features // head).T.reshape(-1)


def _inverse(order: Tensor | None) -> Tensor | None:
    return None if order is None else torch.argsort(order)


def _in_order(tensor: Tensor, rows: Tensor | None, columns: Tensor | None = None) -> Tensor:
    """A matrix with its rows and columns in another order, or a vector."""
    tensor = tensor if rows is None else tensor[rows]
    return tensor if columns is None else tensor[:, columns]
