"""How do weights reach the C++ of a step, and gradients their parameters? As one row of numbers each, in a fixed order.

A capped factor is written into the row as it is used; its gradient there becomes that of the factor itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from structlin.kernels.steps.library import Library, address, addresses


@dataclass(frozen=True)
class Cap:
    """How a factor is used: its RMS at most ``std``, times the parameter named ``scale`` where there is one."""

    std: float
    scale: str | None = None


def places_of(parameters: Mapping[str, Tensor]) -> dict[str, int]:
    """Where each begins in the row of all."""
    ends = accumulate(tensor.numel() for tensor in parameters.values())
    return {name: end - parameters[name].numel() for name, end in zip(parameters, ends, strict=True)}


class Row:
    """The parameters of a model, one after another."""

    def __init__(self, functions: Library, parameters: Mapping[str, Tensor], caps: Mapping[str, Cap]) -> None:
        """``parameters`` by name, of one dtype; ``caps`` of some of them."""
        self._functions = functions
        self.tensors = list(parameters.values())
        names = {name: number for number, name in enumerate(parameters)}
        sizes = [tensor.numel() for tensor in self.tensors]
        self.weights = torch.zeros(sum(sizes), dtype=self.tensors[0].dtype)
        self.gradients = torch.zeros_like(self.weights)
        scales = [names.get(caps[name].scale or "", -1) if name in caps else -1 for name in names]
        self._described = np.array(
            list(zip(places_of(parameters).values(), sizes, scales, strict=True)), dtype=np.int64
        )
        self._stds = np.array([caps[name].std if name in caps else 0.0 for name in names])
        self._rms = np.zeros(len(names))
        self._values = addresses(self.tensors)

    def use(self) -> None:
        """Fill the row of weights from the parameters."""
        self._functions.use_weights(*self._capped(), address(self._rms), address(self.weights))

    def own(self) -> None:
        """Turn the gradients of the used weights into those of the parameters, in place."""
        self._functions.own_gradients(*self._capped(), address(self._rms), address(self.gradients))

    def own_parts(self) -> list[Tensor]:
        """The gradients of the parameters, each a view of the row in the parameter's shape."""
        parts = self.gradients.split([tensor.numel() for tensor in self.tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, self.tensors, strict=True)]

    def _capped(self) -> tuple[int, int | None, int | None, int | None]:
        return len(self.tensors), address(self._described), address(self._stds), address(self._values)
