"""How is a factor kept from growing? Its RMS is capped at the initial scale, without a host synchronisation.

    G <- s * G / max(1, RMS(G) / std(G)),    RMS(G) = sqrt(mean(G^2) + 1e-12) over the whole tensor

The gradient runs through the RMS; the small constant keeps it finite where a factor starts at zero. s is a learnable
scalar or 1. Source: arXiv 2406.06248, section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-12


def cap_rms(factor: Tensor, std: float, scale: Tensor | None = None, *, stacked: bool = False) -> Tensor:
    """The factor with its RMS capped at ``std`` and, where given, times ``scale``.

    ``stacked``: a factor an expert along the first dimension, each capped on its own, with a scale each; else ``scale``
    is a scalar tensor. Worked example: a tensor of threes capped at 1.5 becomes one of 1.5; one of ones stays as it is.
    """
    squares = factor.square()
    mean = squares.mean(tuple(range(1, factor.dim())), keepdim=True) if stacked else squares.mean()
    rms = torch.sqrt(mean + _EPSILON)
    capped = factor / torch.clamp(rms / std, min=1.0)
    if scale is None:
        return capped
    return capped * (scale.view(rms.shape) if stacked else scale)
