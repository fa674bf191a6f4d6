"""What guides a structured linear while a run begins? A dense matrix W held by it, at first the map of its factors.

y = s W x + (1 - s) F(x): at s = 1 and before any update that is F(x). The shuffles of BlockShuffle are part of W, as
they are of F; the released code left them out. Source: arXiv 2406.16450, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.nn.spec import Module, ParamSpec


class Guide(Module):
    """A (d_out, d_in) matrix beside the factors of a linear."""

    def __init__(self, weight: Tensor, rate: float) -> None:
        """``weight``: the map of the factors; ``rate``: of a dense layer, over lr0."""
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.share = 1.0
        """s of this step."""
        self.is_drawn = True
        """Whether W x is computed in this step."""
        self._rate = rate

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """It is not drawn but computed from the factors, and learns as a dense weight."""
        return {"weight": ParamSpec("factor", 0.0, self._rate)}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Input (..., d_in) and output (..., d_out) of the factors -> the mixture (..., d_out)."""
        if not self.is_drawn:
            return y
        return torch.lerp(y, functional.linear(x, self.weight).to(y.dtype), self.share)


def guides(model: nn.Module) -> Iterator[tuple[str, Guide]]:
    """The guides of a model by the names of the linears that hold them."""
    for name, module in model.named_modules():
        if isinstance(module, Guide):
            yield name.rpartition(".")[0], module


def set_guides(model: nn.Module, share: float, drawn: Mapping[str, bool]) -> None:
    """Tell all guides the share of a step, and which of them are computed in it."""
    for name, guide in guides(model):
        guide.share, guide.is_drawn = share, drawn[name]
