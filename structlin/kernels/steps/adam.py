"""How are all parameters clipped and updated at once? By one call, on the moments that torch's AdamW keeps.

What a checkpoint holds of the optimizer is what torch holds: its step numbers and moments are written where they lie.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from structlin.kernels.steps.library import Library, Longs, address, addresses


class Adam:
    """The update of an optimizer's parameters by gradients that lie in fixed places."""

    def __init__(
        self, functions: Library, optimizer: torch.optim.AdamW, parameters: list[Tensor], gradients: list[Tensor]
    ) -> None:
        """``gradients`` of the ``parameters``, which are those of the optimizer in any order."""
        self._functions, self._optimizer = functions, optimizer
        self._parameters = parameters
        self._sizes = np.array([parameter.numel() for parameter in parameters], dtype=np.int64)
        self._values, self._gradients = addresses(parameters), addresses(gradients)
        self._held: list[Tensor] = []
        self._moments: list[Longs] = []
        order = {id(parameter): number for number, parameter in enumerate(parameters)}
        self._places = [[order[id(one)] for one in group["params"]] for group in optimizer.param_groups]
        self._rates, self._decays = np.zeros(len(parameters)), np.zeros(len(parameters))

    def update(self, limit: float) -> float:
        """One step at the optimizer's rates, by gradients clipped to the norm ``limit`` (0: none); returns the norm."""
        self._find_moments()
        groups = self._optimizer.param_groups
        for group, members in zip(groups, self._places, strict=True):
            self._rates[members], self._decays[members] = float(group["lr"]), group["weight_decay"]
        places = [self._sizes, self._gradients, self._values, *self._moments]
        held = [address(one) for one in (*places, self._rates, self._decays)]
        return self._functions.update(len(self._parameters), *held, *groups[0]["betas"], groups[0]["eps"], limit)

    def _find_moments(self) -> None:
        """Where the optimizer keeps its state; it is made at a first step and anew when a checkpoint is loaded."""
        state = self._optimizer.state
        names = ("exp_avg", "exp_avg_sq", "step")
        for parameter in (one for group in self._optimizer.param_groups for one in group["params"]):
            if not state[parameter]:
                moments = {name: torch.zeros_like(parameter) for name in names[:2]}
                state[parameter].update(step=torch.zeros(()), **moments)
        found = [state[parameter][name] for name in names for parameter in self._parameters]
        if len(found) == len(self._held) and all(map(_is, found, self._held)):
            return
        count = len(self._parameters)
        self._held = found
        self._moments = [addresses(found[start : start + count]) for start in range(0, len(found), count)]


def _is(one: Tensor, other: Tensor) -> bool:
    return one is other
