"""Which linears of a model become structured ones? Those whose names match, in place, and nothing silently.

    swap_linears(model, "btt", where="blocks.*.mlp.*")

Everything is looked at before anything changes: an error leaves the model as it was. A layer keeps its device, dtype,
bias, training mode and whether it learns. What another module reads past a layer's forward cannot be swapped:
nn.MultiheadAttention multiplies with ``out_proj.weight`` itself, so that one is left out and named. The fused path of
nn.TransformerEncoderLayer reads weights too; it is switched off where one of its linears is swapped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import overload

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from structlin.errors import UserError, suggest
from structlin.nn.layer import Linear
from structlin.structure import Theta
from structlin.structure.describe import share
from structlin.structure.words import named_plan

INITS = ("fresh", "project")
_ATTENTION = "nn.MultiheadAttention multiplies with its weight directly"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Patterns = str | Sequence[str]


@dataclass(frozen=True)
class Swapped:
    """One layer that was swapped."""

    name: str
    d_in: int
    d_out: int
    params_before: int
    """Weights and bias."""
    params: int
    macs_before: int
    """Multiply-accumulates per row of its input."""
    macs: int
    residual: float | None
    """|W - W'| / |W| (Frobenius) of a projection; None where it started afresh."""


@dataclass(frozen=True)
class Swaps(Sequence[Swapped]):
    """What was swapped, in the order of the model; ``print`` shows a table with totals."""

    rows: tuple[Swapped, ...]
    structure: str
    left_out: Mapping[str, str]
    """Names that matched and could not be swapped, with the reason."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Swapped: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Swapped, ...]: ...
    def __getitem__(self, place: int | slice) -> Swapped | tuple[Swapped, ...]:
        return self.rows[place]

    def __str__(self) -> str:
        width = max(len(self.structure) + 12, *(len(row.name) for row in self.rows))
        head = ("parameters", "before", "", "MACs a row", "before", "")
        lines = [_line(width, "layer", "shape", *head) + ("   residual" if self.rows[0].residual is not None else "")]
        for row in self.rows:
            counts = _counts(row.params, row.params_before) + _counts(row.macs, row.macs_before)
            residual = "" if row.residual is None else f"{row.residual:>11.4f}"
            lines.append(_line(width, row.name, f"{row.d_in} -> {row.d_out}", *counts) + residual)
        sums = (
            sum(getattr(row, key) for row in self.rows) for key in ("params", "params_before", "macs", "macs_before")
        )
        params, params_before, macs, macs_before = sums
        total = _counts(params, params_before) + _counts(macs, macs_before)
        lines.append(_line(width, f"{len(self.rows)} x {self.structure}", "", *total))
        lines += [f"left out: {name} ({reason})" for name, reason in self.left_out.items()]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__


def swap_linears(
    model: nn.Module,
    structure: str | Theta,
    where: Patterns = "*",
    *,
    exclude: Patterns = (),
    init: str = "fresh",
    weight_norm: str = "none",
    rounding: str = "exact",
    contraction: str = "cheapest",
    output_order: str | None = None,
    **arguments: object,
) -> Swaps:
    """Put ``structlin.Linear`` in the place of every nn.Linear whose qualified name matches, and say which.

    ``where``, ``exclude``: patterns as of fnmatch, where ``*`` runs over dots too. ``init``: fresh draws the factors,
    project takes the map nearest to the old weight. The other arguments are those of ``structlin.Linear``.

    ValueError, with the model unchanged, for: no match (it lists the linears there are); a layer that the structure
    cannot serve (its name, both widths, the nearest argument that works); a weight shared with another module; hooks
    or parametrizations, which would be lost; a subclass of nn.Linear with a forward of its own, unless ``where`` names
    it in full; a module that stands at several places of which not all match.
    """
    if init not in INITS:
        raise UserError(f"unknown init '{init}'; {suggest(init, INITS)}")
    chosen, left_out = _chosen(model, _patterns(where), _patterns(exclude))
    fresh = {"weight_norm": weight_norm} if init == "fresh" else {}
    if init == "project" and weight_norm != "none":
        raise UserError(f"init=project keeps a matrix and weight_norm={weight_norm} changes it; use one of them")
    options = {"rounding": rounding, "contraction": contraction, "output_order": output_order, **fresh, **arguments}
    for names, old in chosen:
        with_name = f"{names[0]} ({old.in_features} -> {old.out_features})"
        try:
            named_plan(structure, old.in_features, old.out_features, rounding, contraction, output_order, arguments)
        except ValueError as error:
            raise UserError(f"{with_name} cannot be swapped: {error}") from None
    made = [(names, old, _replacement(names[0], old, structure, init, options)) for names, old in chosen]
    rows = []
    for names, old, new in made:
        for name in names:
            _put(model, name, new)
        rows.append(_row(names[0], old, new))
    return Swaps(tuple(rows), made[0][2].structure, left_out)


def _patterns(given: Patterns) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _chosen(
    model: nn.Module, where: list[str], exclude: list[str]
) -> tuple[list[tuple[list[str], nn.Linear]], dict[str, str]]:
    """The linears to swap with all their names, and what is left out with the reason."""
    if isinstance(model, nn.Linear):
        raise UserError("the model is itself a linear and has no place to swap it in; use structlin.Linear.from_dense")
    places, modules = _linears(model)
    there = [name for names in places.values() for name in names]
    if not there:
        raise UserError("the model has no nn.Linear to swap")
    for pattern in where:
        if not any(fnmatchcase(name, pattern) for name in there):
            raise UserError(f"where = '{pattern}' matches no nn.Linear; there are {_listed(there)}")
    chosen: list[tuple[list[str], nn.Linear]] = []
    left_out: dict[str, str] = {}
    users = _users(model)
    for key, module in modules.items():
        wanted = [name for name in places[key] if _matches(name, where) and not _matches(name, exclude)]
        if isinstance(module, NonDynamicallyQuantizableLinear):
            left_out |= dict.fromkeys(wanted, _ATTENTION)
        elif wanted:
            _check_swappable(module, places[key], wanted, where, users)
            chosen.append((places[key], module))
    if not chosen:
        reasons = "".join(f"; {name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"where = {where} leaves nothing to swap with exclude = {exclude}{reasons}")
    return chosen, left_out


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _linears(model: nn.Module) -> tuple[dict[int, list[str]], dict[int, nn.Linear]]:
    """All names of every linear, and the linear, by its identity in the order of the model."""
    places: dict[int, list[str]] = defaultdict(list)
    modules: dict[int, nn.Linear] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear):
            places[id(module)].append(name)
            modules[id(module)] = module
    return places, modules


def _users(model: nn.Module) -> dict[int, list[str]]:
    """The names of the modules that hold each parameter."""
    users: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        for _, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            users[id(parameter)].append(name or "the model itself")
    return users


def _check_swappable(
    module: nn.Linear, names: list[str], wanted: list[str], where: list[str], users: Mapping[int, list[str]]
) -> None:
    """UserError where a swap would lose something."""
    name = wanted[0]
    if any(is_lazy(one) for one in module.parameters()):
        raise UserError(f"{name} has no shape yet; run the model once on an example before")
    if is_parametrized(module) or any(getattr(module, hooks) for hooks in _HOOKS):
        raise UserError(
            f"{name} has hooks or parametrizations that a new layer would not have; remove them, or exclude='{name}'"
        )
    others = sorted({user for one in module.parameters() for user in users[id(one)]} - set(names))
    if others:
        raise UserError(
            f"{name} shares its weight with {', '.join(others)}, and a structured layer cannot; leave it out: "
            f"exclude='{name}'"
        )
    if len(wanted) < len(names):
        rest = ", ".join(one for one in names if one not in wanted)
        raise UserError(f"{name} is one module with {rest}, which where does not match; match all of them or none")
    if type(module).forward is not nn.Linear.forward and name not in where:
        raise UserError(
            f"{name} is a {type(module).__name__}, whose forward is not nn.Linear's and would be lost; name it in full "
            f"to swap it all the same (where='{name}'), or exclude='{name}'"
        )


def _replacement(name: str, old: nn.Linear, structure: str | Theta, init: str, options: Mapping[str, object]) -> Linear:
    """The new layer, on the device and in the dtype of the old one."""
    weight, bias = old.weight, old.bias
    if init == "project":
        try:
            new = Linear.from_dense(weight, structure, bias=bias, **options)
        except ValueError as error:
            raise UserError(f"{name} ({old.in_features} -> {old.out_features}) cannot be projected: {error}") from None
    else:
        has_bias = bias is not None
        place = {"device": weight.device, "dtype": weight.dtype}
        new = Linear(old.in_features, old.out_features, structure, bias=has_bias, **place, **options)  # type: ignore[arg-type]
        if new.bias is not None:
            new.bias.data.copy_(bias.data)
    new.requires_grad_(weight.requires_grad)
    if new.bias is not None:
        new.bias.requires_grad_(bias.requires_grad)
    return new.train(old.training)


def _put(model: nn.Module, name: str, new: Linear) -> None:
    """Replace a module by its qualified name; torch's fused encoder layer reads weights, so that path is closed."""
    parent_name, _, own = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    setattr(parent, own, new)
    if isinstance(parent, nn.TransformerEncoderLayer):
        parent.activation_relu_or_gelu = 0
        for module in model.modules():
            if isinstance(module, nn.TransformerEncoder) and any(layer is parent for layer in module.layers):
                module.use_nested_tensor = False


def _row(name: str, old: nn.Linear, new: Linear) -> Swapped:
    before = sum(parameter.numel() for parameter in old.parameters())
    after = sum(parameter.numel() for parameter in new.parameters())
    d_in, d_out = old.in_features, old.out_features
    return Swapped(name, d_in, d_out, before, after, d_in * d_out, new.plan.macs, new.residual)


def _listed(names: Sequence[str]) -> str:
    """The first names of many."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def _counts(now: int, before: int) -> tuple[str, str, str]:
    return f"{now:,}", f"{before:,}", share(now, before)


def _line(width: int, name: str, shape: str, *cells: str) -> str:
    aligned = zip(cells, (12, 12, 8, 12, 12, 8), strict=True)
    return f"{name:<{width}}  {shape:<13}" + "".join(f"{cell:>{size}}" for cell, size in aligned)
