"""How does causal self-attention run? By a kernel of its own on CPUs in float32 (attention.cpp), by torch elsewhere.

On CPUs torch computes most of the scores that causality throws away. The kernel computes little more than half of each
product; its backward pass makes the scores again, so nothing is kept but q, k and v. Every head is a thread's own, so
equal inputs give equal bits under any number of threads.

The operators ``structlin::attention`` and ``structlin::attention_backward`` are opaque to torch.compile. Their FLOPs
are those of torch's attention, full: what causality saves is in no count, nor are scores that are made again.

Letters: N sequences, T tokens, H heads, K d_head.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from structlin.nn.kernels import compiler
from structlin.nn.kernels.backends import backend_of

_SOURCE = Path(__file__).with_name("attention.cpp")
# Features of a head come in whole vectors of the widest processors.
LANES = 16
# A thread is worth starting for about a millisecond of work, in products of the scores.
LEAST_MACS = 1 << 25

_LIBRARY = torch.library.Library("structlin", "FRAGMENT")
_LIBRARY.define("attention(Tensor q, Tensor k, Tensor v, float scale) -> Tensor")
_LIBRARY.define("attention_backward(Tensor dy, Tensor q, Tensor k, Tensor v, float scale) -> (Tensor, Tensor, Tensor)")


def causal_attention(q_NTHK: Tensor, k_NTHK: Tensor, v_NTHK: Tensor, scale: float) -> Tensor:
    """softmax(scale q . k over the tokens so far) v, (N, T, H, K), differentiable (once, where the kernel serves)."""
    if _serves(q_NTHK, k_NTHK, v_NTHK):
        y: Tensor = torch.ops.structlin.attention.default(q_NTHK, k_NTHK, v_NTHK, scale)
        return y
    q, k, v = (tensor.transpose(1, 2) for tensor in (q_NTHK, k_NTHK, v_NTHK))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2)


def _serves(*tensors: Tensor) -> bool:
    """Whether these take the operators; a compiled graph keeps to them, whatever can be built."""
    if any(tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in tensors):
        return False
    if tensors[0].shape[-1] % LANES or torch.is_autocast_enabled("cpu"):
        return False
    return torch.compiler.is_compiling() or backend_of(tensors[0].device, torch.float32) == "cpp"


# ---- the kernel -----------------------------------------------------------------------------------------------------


class Kernel:
    """The library of one size of heads."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._forward = _function(library.structlin_forward, pointers=5)
        self._backward = _function(library.structlin_backward, pointers=8)
        self._work_floats = library.structlin_work_floats
        self._work_floats.argtypes, self._work_floats.restype = [ctypes.c_long] * 2, ctypes.c_long

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """(N, T, H, K), all contiguous float32."""
        y = torch.empty_like(q)
        self._run(self._forward, False, scale, q, k, v, y)
        return y

    def backward(self, dy: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v."""
        dq, dk, dv = (torch.empty_like(tensor) for tensor in (q, k, v))
        self._run(self._backward, True, scale, q, k, v, dy, dq, dk, dv)
        return dq, dk, dv

    def _run(self, function: Callable[..., None], backward: bool, scale: float, *tensors: Tensor) -> None:
        """All heads, in as many consecutive runs as there are threads."""
        sequences, tokens, heads, features = tensors[0].shape
        macs = sequences * heads * tokens**2 * features
        threads = max(1, min(torch.get_num_threads(), macs // LEAST_MACS))

        def run(part: tuple[int, int]) -> None:
            work = tensors[0].new_empty(self._work_floats(tokens, backward))
            function(*part, tokens, heads, scale, *(tensor.data_ptr() for tensor in (*tensors, work)))

        parts = list(pairwise(sequences * heads * i // threads for i in range(threads + 1)))
        if threads == 1:
            run(*parts)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(run, parts))


@compiler.Kept
def kernel(features: int) -> Kernel | None:
    """The kernel of heads of this size, built at first use; None where it cannot be built."""
    library = compiler.load(_SOURCE, [f"-DSL_D={features}"])
    return None if library is None else Kernel(library)


def _function(function: Callable[..., None], pointers: int) -> Callable[..., None]:
    function.argtypes = [*[ctypes.c_long] * 4, ctypes.c_float, *[ctypes.c_void_p] * pointers]  # type: ignore[attr-defined]
    function.restype = None  # type: ignore[attr-defined]
    return function


# ---- the operators --------------------------------------------------------------------------------------------------


def attention_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(N, T, H, K) by the kernel, or by torch where it cannot be built."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    built = kernel(q.shape[-1])
    if built is None:
        return _torch_forward(q, k, v, scale)[0].transpose(1, 2).contiguous()
    return built.forward(q, k, v, scale)


def attention_backward(dy: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v in the same way."""
    dy, q, k, v = dy.contiguous(), q.contiguous(), k.contiguous(), v.contiguous()
    built = kernel(q.shape[-1])
    if built is not None:
        return built.backward(dy, q, k, v, scale)
    kept = _torch_forward(q, k, v, scale)
    heads = (tensor.transpose(1, 2) for tensor in (dy, q, k, v))
    found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(*heads, *kept, 0.0, True, scale=scale)
    dq, dk, dv = (gradient.transpose(1, 2).contiguous() for gradient in found)
    return dq, dk, dv


def _torch_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Result (N, H, T, K) and log-sum-exp (N, H, T)."""
    heads = (tensor.transpose(1, 2) for tensor in (q, k, v))
    y, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads, 0.0, True, scale=scale)
    return y, log_sum


_LIBRARY.impl("attention", attention_forward, "CPU")
_LIBRARY.impl("attention_backward", attention_backward, "CPU")


@torch.library.register_fake("structlin::attention", lib=_LIBRARY)
def _shape(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.register_fake("structlin::attention_backward", lib=_LIBRARY)
def _backward_shapes(dy: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
    q, k, v, ctx.scale = inputs
    ctx.save_for_backward(q, k, v)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.structlin.attention_backward.default(dy, *ctx.saved_tensors, ctx.scale), None


torch.library.register_autograd("structlin::attention", _differentiate, setup_context=_keep, lib=_LIBRARY)


@register_flop_formula(torch.ops.structlin.attention)
def forward_flops(q: Sequence[int], *_: Any, **__: Any) -> int:
    """2 FLOPs per multiply-accumulate of the scores and of their sums of values."""
    sequences, tokens, heads, features = q
    return 4 * sequences * heads * tokens**2 * features


@register_flop_formula(torch.ops.structlin.attention_backward)
def backward_flops(dy: Sequence[int], *_: Any, **__: Any) -> int:
    """Two products for each forward one."""
    return 2 * forward_flops(dy)
