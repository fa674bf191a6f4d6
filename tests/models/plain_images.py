"""An MLP and a vision transformer as one writes them down, of dense layers in plain torch, and AdamW by hand.

They share no code with the models of the platform but the names of parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.gain"] + weights[f"{name}.bias"]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def mlp(weights: Weights, x: Tensor, layers: int) -> Tensor:
    """Rows of pixels -> logits."""
    h = gelu(linear(x, weights, "input"))
    for i in range(layers):
        inner = gelu(linear(norm(h, weights, f"blocks.{i}.norm"), weights, f"blocks.{i}.up"))
        h = h + linear(inner, weights, f"blocks.{i}.down")
    return linear(h, weights, "head")


def vit(weights: Weights, images: Tensor, layers: int, patch: int, heads: int) -> Tensor:
    """Images (N, height, width, channels) -> logits."""
    n, height, width, _ = images.shape
    rows = [
        images[:, top : top + patch, left : left + patch].reshape(n, -1)
        for top in range(0, height, patch)
        for left in range(0, width, patch)
    ]
    x = linear(norm(torch.stack(rows, 1), weights, "patch_norm"), weights, "input")
    x = norm(x, weights, "input_norm")
    token = weights["token"].reshape(1, 1, -1).repeat(n, 1, 1)
    x = torch.cat([token, x], 1) + weights["positions"]
    for i in range(layers):
        x = x + attention(norm(x, weights, f"blocks.{i}.attention_norm"), weights, f"blocks.{i}.attention", heads)
        inner = gelu(linear(norm(x, weights, f"blocks.{i}.ffn_norm"), weights, f"blocks.{i}.ffn.up"))
        x = x + linear(inner, weights, f"blocks.{i}.ffn.down")
    return linear(norm(x, weights, "norm")[:, 0], weights, "head")


def attention(x: Tensor, weights: Weights, name: str, heads: int) -> Tensor:
    size = x.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        q, k, v = (linear(x, weights, f"{name}.{one}")[..., part] for one in "qkv")
        q, k = norm(q, weights, f"{name}.q_norm"), norm(k, weights, f"{name}.k_norm")
        scores = 8 / size * q @ k.transpose(1, 2)
        mixed.append(scores.softmax(-1) @ v)
    return linear(torch.cat(mixed, -1), weights, f"{name}.o")


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def adam(weights: Weights, rates: dict[str, float], lr: float, state: dict[str, tuple[Tensor, Tensor]], t: int) -> None:
    """One step with betas .9 and .999 on every weight's gradient, at lr times its own rate."""
    for name, weight in weights.items():
        assert weight.grad is not None, name
        first, second = state.get(name, (torch.zeros_like(weight), torch.zeros_like(weight)))
        first = 0.9 * first + 0.1 * weight.grad
        second = 0.999 * second + 0.001 * weight.grad.square()
        state[name] = (first, second)
        corrected = first / (1 - 0.9**t) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        with torch.no_grad():
            weight -= lr * rates[name] * corrected
        weight.grad = None
