"""When is a structured layer quicker as one matrix? Where few rows meet it and its factors are many small products.

Decoding reads a token or a few at a time: a matrix of N M weights is then read from memory for each of them, and of
factors fewer weights, by more calls. ``merge`` puts the dense matrix beside the factors of every structured layer for
which it is quicker up to some number of rows, as measured on this machine with these shapes. Memory grows by N M a
layer that is merged. Where gradients are asked for the factors compute: a merged model trains as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.nn.linear import DenseLinear, Linear
from structlin.structure import LinearPlan

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of rows at which the crossover is looked for."""
ALWAYS = 2**62
_LOOKS = 5
_LOOK_SECONDS = 0.002


class MergedLinear(nn.Module):
    """A linear and its dense matrix, which serves up to ``most_rows`` rows where no gradient is asked for."""

    weight: Tensor

    def __init__(self, layer: Linear, most_rows: int) -> None:
        super().__init__()
        self.layer, self.most_rows = layer, most_rows
        # In the dtype of the factors, whatever products are made in where it is asked for.
        device = next(layer.parameters()).device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            self.register_buffer("weight", layer.to_dense().contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out)."""
        if torch.is_grad_enabled() or x.numel() > self.most_rows * x.shape[-1]:
            y: Tensor = self.layer(x)
            return y
        return functional.linear(x, self.weight, self.layer.bias)


@torch.no_grad()
def merge(model: nn.Module, most_rows: int | None = None) -> dict[str, int]:
    """Put merged layers in the place of a model's structured ones; name -> rows up to which the matrix serves.

    ``most_rows``: of all of them (``ALWAYS``: any number); None: measured for each plan, and a layer whose matrix is
    never quicker stays as it is. Experts and dense layers stay too.
    """
    found: dict[str, int] = {}
    known: dict[LinearPlan, int] = {}
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, Linear) or isinstance(layer, DenseLinear):
            continue
        if most_rows is None and layer.plan not in known:
            known[layer.plan] = crossover(layer)
        rows = known[layer.plan] if most_rows is None else most_rows
        if rows:
            holder, _, own = name.rpartition(".")
            setattr(model.get_submodule(holder), own, MergedLinear(layer, rows))
            found[name] = rows
    return found


@torch.inference_mode()
def crossover(layer: Linear) -> int:
    """The largest of ``ROWS`` up to which the matrix is quicker than the factors; 0 where one row is not."""
    weight = layer.to_dense().contiguous()
    found = 0
    for rows in ROWS:
        x = torch.ones(rows, layer.d_in, dtype=weight.dtype, device=weight.device)

        def as_matrix(x: Tensor = x) -> object:
            return functional.linear(x, weight, layer.bias)

        def as_factors(x: Tensor = x) -> object:
            return layer(x)

        by_matrix, by_factors = _seconds(as_matrix, weight.device), _seconds(as_factors, weight.device)
        if by_matrix >= by_factors:
            break
        found = rows
    return found


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """The least time of a call, over some looks of a few milliseconds each."""
    run()
    best = float("inf")
    for _ in range(_LOOKS):
        _wait(device)
        began, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - began < _LOOK_SECONDS:
            run()
            calls += 1
        _wait(device)
        best = min(best, (time.perf_counter() - began) / calls)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
