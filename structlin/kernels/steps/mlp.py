"""What does the C++ of a step have to know of an MLP that regresses? The structs of mlp.hpp, number by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from structlin.kernels.steps.gradients import Gradients, Run
from structlin.kernels.steps.library import Library, Longs, address
from structlin.kernels.steps.places import LinearPlace, NormPlace
from structlin.kernels.steps.row import Row


@dataclass(frozen=True)
class MlpPlaces:
    """An MLP as the C++ reads it."""

    width: int
    has_gelu: bool
    """Of the input's map."""
    outer: NormPlace | None
    norms_input: bool
    """Whether the outer norm follows the input's map, else the last block."""
    input: LinearPlace
    head: LinearPlace
    blocks: Sequence[tuple[NormPlace, LinearPlace, LinearPlace]]
    """Norm, up and down of each."""
    branch_scale: float

    @property
    def pays(self) -> bool:
        """Whether every layer is worth it."""
        return self.input.pays and self.head.pays and all(up.pays and down.pays for _, up, down in self.blocks)

    def described(self) -> Longs:
        """As numbers."""
        has_outer = self.outer is not None
        flags = [self.has_gelu, has_outer and self.norms_input, has_outer and not self.norms_input]
        numbers = [self.width, len(self.blocks), *map(int, flags), *(self.outer or NormPlace(0, 0, 0)).numbers()]
        for place in (self.input, self.head, *(place for block in self.blocks for place in block)):
            numbers += place.numbers()
        return np.array(numbers, dtype=np.int64)


class MlpGradients(Gradients):
    """Mean squared error and gradients of batches of inputs (N, d_in) and labels (N, d_out)."""

    def __init__(self, functions: Library, places: MlpPlaces, row: Row) -> None:
        super().__init__(functions, row)
        self._places, self._described = places, places.described()

    def sums(self, inputs: Tensor, targets: Tensor, *, has_gradients: bool = True) -> float:
        """Inputs and labels are of the weights' dtype."""
        dtype, described = self.row.weights.dtype, address(self._described)
        inputs, labels = inputs.to(dtype).contiguous(), targets.to(dtype).contiguous()
        share = 1.0 / labels.numel()

        def run(part: Run) -> float:
            rows = slice(part.start, part.stop)
            read = address(inputs[rows]), address(labels[rows])
            return self.functions.mlp(
                described, self._places.branch_scale, part.stop - part.start, *read, share, *part.addresses
            )

        space = int(self.functions.mlp_space(described))
        return sum(self.run_all(run, inputs.shape[0], 1, space, has_gradients=has_gradients)) * share
