"""The formulation of the published code (arXiv 2410.02117), written anew: what users of structured layers run today.

Token-major batched products, every operand copied between them; a mixture computes all its experts, which are slices of
the rank, and multiplies what was not chosen by zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


def product(x: Tensor, A: Tensor, B: Tensor, weight_TR: Tensor | None = None) -> Tensor:
    """x (T, g b a), A (g, a, r, f, d), B (f, g, b, r, e) -> y (T, f e d); ``weight_TR`` weighs slices of the rank."""
    g, a, r, f, d = A.shape
    b, e = B.shape[2], B.shape[4]
    T = x.shape[0]
    x_gNa = x.view(T, g, b * a).transpose(0, 1).reshape(g, T * b, a).contiguous()
    z = torch.bmm(x_gNa, A.reshape(g, a, r * f * d)).view(g, T, b, r, f, d)
    if weight_TR is not None:
        z = z * weight_TR[:, None, :, None, None]
    z_fMK = z.permute(4, 1, 5, 0, 2, 3).reshape(f, T * d, g * b * r).contiguous()
    y_fMe = torch.bmm(z_fMK, B.reshape(f, g * b * r, e))
    return y_fMe.view(f, T, d, e).permute(1, 0, 3, 2).reshape(T, f * e * d).contiguous()
