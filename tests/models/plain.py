"""The published models, written plainly: tensors by name, an einsum a layer, Adam by hand. No code of ours is used.

What each model is follows the table of published settings word by word: GPT-2 on text (no biases, RMS cap, warm-up and
a constant rate, clip 1, betas .9 .95), the same on images (biases but in q, k and v, cosine to 0 without warm-up, no
clip, betas .9 .999) and the student of the regression. The cap has 1e-12 inside the root, our one deviation here.

Letters: N sequences, T tokens, D width, H heads, K features of a head; of a layer's two factors those of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass
class Plain:
    """Weights by name, and what the table says of a task."""

    weights: Weights
    sizes: Mapping[str, dict[str, int]]
    """Layer -> the sizes a, b, g, d, e, f, r of its two factors; a dense layer stands in no entry."""
    layers: int
    base_width: int
    base_expansion: int
    lr0: float
    betas: tuple[float, float]
    clip: float
    """0: none."""
    capped: bool
    rate: Callable[[int], float]
    """Share of lr0 at a step."""
    heads: int = 0
    step: int = 0
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    # ---- the layers

    def linear(self, name: str, x: Tensor) -> Tensor:
        if name in self.sizes:
            y = self._two_factors(name, x)
        else:
            y = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _two_factors(self, name: str, x: Tensor) -> Tensor:
        s = self.sizes[name]
        A, B = (self._cap(f"{name}.{which}", self.weights[f"{name}.{which}"]) for which in "AB")
        used = s["g"] * s["b"] * s["a"]
        padded = torch.zeros(*x.shape[:-1], max(used, x.shape[-1]), dtype=x.dtype)
        padded[..., : x.shape[-1]] = x
        blocks = padded[..., :used].reshape(*x.shape[:-1], s["g"], s["b"], s["a"])
        # A always first: over alpha, then over beta, gamma and rho.
        z = torch.einsum("...gba,grfda->...grfdb", blocks, A)
        y = torch.einsum("...grfdb,fegbr->...fed", z, B).flatten(-3)
        result = torch.zeros(*x.shape[:-1], max(s["out"], y.shape[-1]), dtype=x.dtype)
        result[..., : y.shape[-1]] = y
        return result[..., : s["out"]]

    def fans(self, name: str) -> tuple[int, int]:
        """d_in and d_out of a factor."""
        layer, _, which = name.rpartition(".")
        s = self.sizes[layer]
        if which == "A":
            return s["a"], s["d"] * s["f"] * s["r"]
        return s["b"] * s["g"] * s["r"], s["e"]

    def _cap(self, name: str, factor: Tensor) -> Tensor:
        if not self.capped:
            return factor
        d_in, d_out = self.fans(name)
        std = math.sqrt(min(d_in, d_out)) / d_in
        rms = ((factor**2).mean() + 1e-12).sqrt()
        return factor / torch.maximum(rms / std, torch.ones_like(rms))

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        y = centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt() * self.weights[f"{name}.gain"]
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    # ---- the models

    def gpt2(self, tokens_NT: Tensor) -> Tensor:
        """Logits of every position."""
        x = self.weights["tokens"][tokens_NT] + self.weights["positions"][: tokens_NT.shape[1]]
        branch = math.sqrt(3 / self.layers)
        for i in range(self.layers):
            at = f"blocks.{i}.attention"
            x = x + branch * self._attention(at, self.norm(f"{at}_norm", x))
            h = self.linear(f"blocks.{i}.ffn.up", self.norm(f"blocks.{i}.ffn_norm", x))
            x = x + branch * self.linear(f"blocks.{i}.ffn.down", gelu(h))
        return self.linear("head", self.norm("norm", x))

    def _attention(self, name: str, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        size = width // self.heads
        q, k, v = (
            self.linear(f"{name}.{part}", x).reshape(rows, length, self.heads, size).transpose(1, 2) for part in "qkv"
        )
        q, k = self.norm(f"{name}.q_norm", q), self.norm(f"{name}.k_norm", k)
        logits = 8 * (q @ k.transpose(-1, -2)) / size
        future = torch.ones(length, length).triu(1).bool()
        mixed = logits.masked_fill(future, -math.inf).softmax(-1) @ v
        return self.linear(f"{name}.o", mixed.transpose(1, 2).reshape(rows, length, width))

    def student(self, x: Tensor) -> Tensor:
        """h0 = LN(gelu(W x + b)); blocks; W h + b on the last h without a norm before it."""
        h = self.norm("input_norm", gelu(self.linear("input", x)))
        for i in range(self.layers):
            inner = self.linear(f"blocks.{i}.up", self.norm(f"blocks.{i}.norm", h))
            h = h + self.linear(f"blocks.{i}.down", gelu(inner))
        return self.linear("head", h)

    # ---- the optimizer

    def multiplier(self, name: str) -> float:
        """Rate of a weight over lr0: 1 for vectors and embeddings, muP by its fan-in for a dense weight or factor."""
        layer, _, which = name.rpartition(".")
        if which in ("gain", "bias") or name in ("tokens", "positions"):
            return 1.0
        if layer == "input":
            return 1.0  # its fan-in does not grow with the width
        base = self.base_width * (self.base_expansion if layer.endswith("down") else 1)
        if which == "weight":
            return base / self.weights[name].shape[1]
        return base / (2 * self.fans(name)[0])

    def update(self, loss: Tensor) -> None:
        """One step of Adam."""
        grads = dict(zip(self.weights, torch.autograd.grad(loss, list(self.weights.values())), strict=True))
        if self.clip:
            length = torch.sqrt(sum(((grad**2).sum() for grad in grads.values()), torch.zeros(())))
            shrink = min(1.0, self.clip / (float(length) + 1e-6))
            grads = {name: grad * shrink for name, grad in grads.items()}
        rate, self.step = self.lr0 * self.rate(self.step), self.step + 1
        first, second = self.betas
        with torch.no_grad():
            for name, grad in grads.items():
                m, v = self.moments.get(name, (torch.zeros_like(grad), torch.zeros_like(grad)))
                m, v = first * m + (1 - first) * grad, second * v + (1 - second) * grad**2
                self.moments[name] = m, v
                step = (m / (1 - first**self.step)) / ((v / (1 - second**self.step)).sqrt() + 1e-8)
                self.weights[name] -= rate * self.multiplier(name) * step


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution function of x."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all positions that have a target."""
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    has_target = targets >= 0
    return -log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0][has_target].mean()
