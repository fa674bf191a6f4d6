"""How does causal self-attention with layer-normed queries and keys run? By a kernel of its own on CPUs in float32
(attention.cpp), by torch elsewhere.

On CPUs torch computes most of the scores that causality throws away. The kernel computes little more than half of each
product and norms the rows that it gathers; its backward pass makes norms and scores again, so nothing is kept but q, k
and v as they come. Every head is a thread's own, so equal inputs give equal bits under any number of threads.

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

from structlin.kernels import compiler
from structlin.kernels.backends import backend_of
from structlin.kernels.precision import as_given, product_dtype

_SOURCE = Path(__file__).with_name("attention.cpp")
# Features of a head come in whole vectors of the widest processors.
LANES = 16
# torch's, added to the variance; attention.cpp has the same.
EPSILON = 1e-5
# A thread is worth starting for about a millisecond of work, in products of the scores.
LEAST_MACS = 1 << 25

_LIBRARY = torch.library.Library("structlin", "FRAGMENT")
_OPERANDS = "Tensor q, Tensor k, Tensor v, Tensor q_gain, Tensor k_gain, float scale"
_LIBRARY.define(f"attention({_OPERANDS}) -> Tensor")
_LIBRARY.define(f"attention_backward(Tensor dy, {_OPERANDS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def causal_attention(
    q_NTHK: Tensor,
    k_NTHK: Tensor,
    v_NTHK: Tensor,
    q_gain_K: Tensor,
    k_gain_K: Tensor,
    scale: float,
    q_bias_K: Tensor | None = None,
    k_bias_K: Tensor | None = None,
) -> Tensor:
    """softmax(scale LN(q) . LN(k) over the tokens so far) v, (N, T, H, K), with layer norms over K of these gains.

    Differentiable (once, where the kernel serves). Norms with biases are torch's: the kernel knows none.
    """
    if q_bias_K is not None or k_bias_K is not None:
        return _by_torch(q_NTHK, k_NTHK, v_NTHK, q_gain_K, k_gain_K, scale, q_bias_K, k_bias_K)
    if _serves(q_NTHK, k_NTHK, v_NTHK, q_gain_K, k_gain_K):
        y: Tensor = torch.ops.structlin.attention.default(q_NTHK, k_NTHK, v_NTHK, q_gain_K, k_gain_K, scale)
        return y
    return _by_torch(q_NTHK, k_NTHK, v_NTHK, q_gain_K, k_gain_K, scale)


def _by_torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_gain: Tensor,
    k_gain: Tensor,
    scale: float,
    q_bias: Tensor | None = None,
    k_bias: Tensor | None = None,
) -> Tensor:
    dtype = product_dtype(q.device)
    if dtype is not None:
        # Normed in the dtype of products, by sums in float32: nothing is widened only to be narrowed again.
        q, k, v, q_gain, k_gain = (tensor.to(dtype) for tensor in (q, k, v, q_gain, k_gain))
        q_bias, k_bias = (None if bias is None else bias.to(dtype) for bias in (q_bias, k_bias))
    with as_given(q.device):
        q, k = (
            functional.layer_norm(x, gain.shape, gain, bias, eps=EPSILON)
            for x, gain, bias in ((q, q_gain, q_bias), (k, k_gain, k_bias))
        )
    # A structured layer may leave features strided, with which torch would fall back to its slow path.
    v = v.to(q.dtype).contiguous()
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
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
        self._forward = _function(library.structlin_forward, pointers=7)
        self._backward = _function(library.structlin_backward, pointers=12)
        self._work_floats = library.structlin_work_floats
        self._work_floats.argtypes, self._work_floats.restype = [ctypes.c_long] * 2, ctypes.c_long

    def forward(self, q: Tensor, k: Tensor, v: Tensor, q_gain: Tensor, k_gain: Tensor, scale: float) -> Tensor:
        """(N, T, H, K), all contiguous float32."""
        y = torch.empty_like(q)
        self._run(self._forward, q.shape, False, scale, q_gain, k_gain, q, k, v, y)
        return y

    def backward(
        self, dy: Tensor, q: Tensor, k: Tensor, v: Tensor, q_gain: Tensor, k_gain: Tensor, scale: float
    ) -> Gradients:
        """Gradients of q, k, v and the gains."""
        dq, dk, dv = (torch.empty_like(tensor) for tensor in (q, k, v))
        dq_gains, dk_gains = (q.new_empty(q.shape[0] * q.shape[2], q.shape[3]) for _ in "qk")
        operands = (q_gain, k_gain, q, k, v, dy, dq, dk, dv, dq_gains, dk_gains)
        self._run(self._backward, q.shape, True, scale, *operands)
        return dq, dk, dv, dq_gains.sum(0), dk_gains.sum(0)

    def _run(
        self, function: Callable[..., None], shape: torch.Size, backward: bool, scale: float, *tensors: Tensor
    ) -> None:
        """All heads, in as many consecutive runs as there are threads."""
        sequences, tokens, heads, features = shape
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


def attention_forward(q: Tensor, k: Tensor, v: Tensor, q_gain: Tensor, k_gain: Tensor, scale: float) -> Tensor:
    """(N, T, H, K) by the kernel, or by torch where it cannot be built."""
    built = kernel(q.shape[-1])
    if built is None:
        return _by_torch(q, k, v, q_gain, k_gain, scale).contiguous()
    q, k, v, q_gain, k_gain = (tensor.contiguous() for tensor in (q, k, v, q_gain, k_gain))
    return built.forward(q, k, v, q_gain, k_gain, scale)


def attention_backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, q_gain: Tensor, k_gain: Tensor, scale: float
) -> Gradients:
    """Gradients of q, k, v and the gains in the same way."""
    built = kernel(q.shape[-1])
    dy, q, k, v, q_gain, k_gain = (tensor.contiguous() for tensor in (dy, q, k, v, q_gain, k_gain))
    backward = built.backward if built else _torch_backward
    return backward(dy, q, k, v, q_gain, k_gain, scale)


def _torch_backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, q_gain: Tensor, k_gain: Tensor, scale: float
) -> Gradients:
    """By torch's own operators: below autograd nothing is recorded."""
    aten, size = torch.ops.aten, q_gain.shape
    normed_q, *q_moments = aten.native_layer_norm(q, size, q_gain, None, EPSILON)
    normed_k, *k_moments = aten.native_layer_norm(k, size, k_gain, None, EPSILON)
    heads = [tensor.transpose(1, 2) for tensor in (dy, normed_q, normed_k, v)]
    kept = aten._scaled_dot_product_flash_attention_for_cpu(*heads[1:], 0.0, True, scale=scale)
    found = aten._scaled_dot_product_flash_attention_for_cpu_backward(*heads, *kept, 0.0, True, scale=scale)
    d_normed_q, d_normed_k, dv = (gradient.transpose(1, 2).contiguous() for gradient in found)
    needs = [True, True, False]
    dq, dq_gain, _ = aten.native_layer_norm_backward(d_normed_q, q, size, *q_moments, q_gain, None, needs)
    dk, dk_gain, _ = aten.native_layer_norm_backward(d_normed_k, k, size, *k_moments, k_gain, None, needs)
    return dq, dk, dv, dq_gain, dk_gain


_LIBRARY.impl("attention", attention_forward, "CPU")
_LIBRARY.impl("attention_backward", attention_backward, "CPU")


@torch.library.register_fake("structlin::attention", lib=_LIBRARY)
def _shape(q: Tensor, *_: Any) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.register_fake("structlin::attention_backward", lib=_LIBRARY)
def _backward_shapes(dy: Tensor, *operands: Any) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in operands[:5])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *operands, ctx.scale = inputs
    ctx.save_for_backward(*operands)


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
