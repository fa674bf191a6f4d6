"""Which blocks does a Triton kernel take? Those that a rule finds from its sizes: equal sizes mean equal blocks.

Blocks decide the order of sums, and so the last bits. Chosen by timing they could differ from one process to the next;
a rule makes them a function of sizes, dtype and the GPU's shared memory: of a list the largest that wastes no place and
leaves registers for the operands; where these do not fit the GPU, the next smaller. What was taken is kept (``taken``)
for the record of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Blocks:
    """One choice of a kernel's blocks."""

    kwargs: Mapping[str, int]
    """Sizes by the names of the kernel's constants, each a power of two."""
    num_warps: int
    num_stages: int = 2

    def __str__(self) -> str:
        sizes = " ".join(f"{name}={size}" for name, size in self.kwargs.items())
        return f"{sizes} warps={self.num_warps}"


Rule = Callable[[Mapping[str, Any], int], Sequence[Blocks]]
"""Constants of a call and bytes of an operand -> the choices to try, the first that fits being taken."""

_TAKEN: dict[str, str] = {}


def taken() -> dict[str, str]:
    """Blocks by kernel, sizes and dtype, of all kernels that this process has launched."""
    return dict(sorted(_TAKEN.items()))


@dataclass
class Ruled:
    """A kernel that is launched with the blocks of its rule."""

    kernel: Any
    rule: Rule
    _fitting: dict[Any, Blocks] = field(default_factory=dict)

    def __getitem__(self, grid: Callable[[Mapping[str, Any]], tuple[int, ...]]) -> Callable[..., None]:
        """What launches the kernel on a grid, which is a function of its constants and blocks."""

        def launch(*arguments: Any, **constants: Any) -> None:
            self._launch(grid, arguments, constants)

        return launch

    def _launch(self, grid: Any, arguments: Sequence[Any], constants: Mapping[str, Any]) -> None:
        size = arguments[0].element_size()
        key = (constants["s"], size, constants["PRECISION"])
        known = self._fitting.get(key)
        choices = [known] if known is not None else list(self.rule(constants, size))
        for number, blocks in enumerate(choices):
            options = {"num_warps": blocks.num_warps, "num_stages": blocks.num_stages}
            try:
                self.kernel[grid](*arguments, **constants, **blocks.kwargs, **options)
            except Exception as error:
                # Triton's refusal of what the GPU's shared memory cannot hold, known by name: it need not be imported.
                if type(error).__name__ != "OutOfResources" or number + 1 == len(choices):
                    raise
                continue
            if known is None:
                self._fitting[key] = blocks
                _TAKEN[f"{self._name} {tuple(constants['s'])} {8 * size} bits {constants['PRECISION']}"] = str(blocks)
            return

    @property
    def _name(self) -> str:
        return str(getattr(self.kernel, "__name__", self.kernel))


def power_of_two(number: int) -> int:
    """The least power of two of at least ``number``."""
    return 1 << max(0, number - 1).bit_length()
