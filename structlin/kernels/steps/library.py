"""What can be called of the C++ of whole steps (steps.cpp)? One library a dtype, built once for all models and sizes.

Its numbers are float32; in float64 the same code, with the C library's functions, shows that it computes what torch
does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from structlin.kernels import compiler

_SOURCE = Path(__file__).with_name("steps.cpp")
_DEFINES = {torch.float32: (), torch.float64: ("-DSL_DOUBLE",)}
_LONG, _DOUBLE, _POINTER = ctypes.c_long, ctypes.c_double, ctypes.c_void_p

Longs = NDArray[np.int64]
Doubles = NDArray[np.float64]


class Library:
    """The functions of one dtype; arguments are addresses of contiguous arrays and tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.gpt2_space = _typed(library.structlin_gpt2_space, _LONG, _POINTER)
        self.gpt2 = _typed(
            library.structlin_gpt2,
            _DOUBLE,
            *(_POINTER, _DOUBLE, _DOUBLE, _LONG, _POINTER, _POINTER, _DOUBLE, _POINTER, _POINTER, _POINTER),
        )
        self.mlp_space = _typed(library.structlin_mlp_space, _LONG, _POINTER)
        self.mlp = _typed(
            library.structlin_mlp,
            _DOUBLE,
            *(_POINTER, _DOUBLE, _LONG, _POINTER, _POINTER, _DOUBLE, _POINTER, _POINTER, _POINTER),
        )
        self.expert_ffn_space = _typed(library.structlin_expert_ffn_space, _LONG, _LONG, _LONG)
        self.expert_ffn = _typed(library.structlin_expert_ffn, None, *[_LONG] * 3, *[_POINTER] * 10)
        self.expert_ffn_backward = _typed(library.structlin_expert_ffn_backward, None, *[_LONG] * 3, *[_POINTER] * 14)
        self.choose = _typed(library.structlin_choose, None, *[_LONG] * 4, _DOUBLE, *[_POINTER] * 11)
        self.choose_backward = _typed(library.structlin_choose_backward, None, *[_LONG] * 3, *[_POINTER] * 7)
        self.routed_space = _typed(library.structlin_routed_space, _LONG, _POINTER)
        self.routed = _typed(library.structlin_routed, None, _POINTER, *[_LONG] * 4, *[_POINTER] * 7)
        self.routed_backward = _typed(library.structlin_routed_backward, None, _POINTER, *[_LONG] * 4, *[_POINTER] * 10)
        self.use_weights = _typed(library.structlin_use_weights, None, _LONG, *[_POINTER] * 5)
        self.own_gradients = _typed(library.structlin_own_gradients, None, _LONG, *[_POINTER] * 5)
        self.update = _typed(library.structlin_update, _DOUBLE, _LONG, *[_POINTER] * 8, *[_DOUBLE] * 4)


@compiler.Kept
def library(dtype: torch.dtype) -> Library | None:
    """The library of float32 or float64; None where it cannot be built."""
    found = compiler.load(_SOURCE, _DEFINES[dtype])
    return None if found is None else Library(found)


def address(array: NDArray[Any] | Tensor | None) -> int | None:
    """Where its first number lies."""
    if array is None:
        return None
    return array.data_ptr() if isinstance(array, Tensor) else array.ctypes.data


def addresses(tensors: list[Tensor]) -> Longs:
    """Where their first numbers lie; asserts that each is in one piece."""
    assert all(tensor.is_contiguous() for tensor in tensors)
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)


def _typed(function: Callable[..., object], result: object, *arguments: object) -> Callable[..., float]:
    function.restype, function.argtypes = result, arguments  # type: ignore[attr-defined]
    return function  # type: ignore[return-value]
