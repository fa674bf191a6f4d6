"""What do a model's linears meet? The second moment of every linear's input over some batches, for a conversion.

    C = mean of x x^T over all rows + ridge * (trace C / d_in) * identity

The ridge lets directions that few rows show count a little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.errors import UserError

RIDGE = 1e-6
"""Of the mean variance of a feature."""

Batch = Tensor | Sequence[Any]
"""Inputs, or inputs and whatever else a batch holds; arrays of numpy too."""


@torch.no_grad()
def moments(
    model: nn.Module, batches: Iterable[Batch], names: Iterable[str], ridge: float = RIDGE
) -> dict[str, Tensor]:
    """C (d_in, d_in) in float64 of the input of each named linear. UserError without batches."""
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(partial(_add, sums, rows, name), with_kwargs=True)
        for name in names
    ]
    try:
        for batch in batches:
            model(_inputs(batch))
    finally:
        for hook in hooks:
            hook.remove()
    if not sums:
        raise UserError("calibration has no batches; give some, or leave it out for the nearest maps by Frobenius")
    return {name: with_ridge(total / rows[name], ridge) for name, total in sums.items()}


def with_ridge(moment: Tensor, ridge: float) -> Tensor:
    """C plus a part of its mean diagonal on the diagonal."""
    own = moment.diagonal().mean()
    return moment + ridge * own * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)


def _add(
    sums: dict[str, Tensor],
    rows: dict[str, int],
    name: str,
    _: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    x: Tensor = args[0]
    if kwargs.get("gelu"):
        x = functional.gelu(x)
    x = x.reshape(-1, x.shape[-1]).to(torch.float64)
    sums[name] = x.mT @ x + sums.get(name, 0.0)
    rows[name] = rows.get(name, 0) + len(x)


def _inputs(batch: Batch) -> Tensor:
    inputs = batch if isinstance(batch, Tensor) else batch[0]
    return torch.as_tensor(inputs)
