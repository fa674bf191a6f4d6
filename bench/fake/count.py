"""Kernels, bytes, waits of the host and live memory of operations on fake tensors."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from structlin.kernels.products.layout import ProductSizes

_VIEWS = """view _unsafe_view transpose permute t expand slice select unsqueeze squeeze detach as_strided alias unbind
split split_with_sizes empty empty_strided new_empty empty_like _reshape_alias unfold lift_fresh new_empty_strided
resize_ is_same_size diagonal narrow chunk"""
VIEWS = frozenset(_VIEWS.split())
"""Operations that move nothing."""
WAITS = frozenset(("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal"))
"""Operations whose result the host needs."""
FUSED_LAUNCHES, SEVERAL = (
    {"products": 1, "products_backward": 6},
    {"sort": 6, "argsort": 6, "logsumexp": 6, "cumsum": 2},
)
"""Kernels of our operators (map; of the gradients a map, the kernel, and sums and casts of the shares of both factors),
and of others."""
WHOLE_LAUNCHES = 5
"""Where one kernel makes all gradients."""


class Count(TorchDispatchMode):
    """Kernels, bytes, waits and live memory of what runs within it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: collections.Counter[str] = collections.Counter()
        self.moved: collections.Counter[str] = collections.Counter()
        self.waits: list[str] = []
        self.peak, self.where = 0, ""
        self.is_paused = False
        self._alive: dict[Any, tuple[StorageWeakRef, int]] = {}
        self._total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name
        found = function(*args, **(kwargs or {}))
        if self.is_paused:
            return found
        read = _tensors((args, kwargs))
        made = _tensors(found)
        short = name.split("::")[1]
        self._watch(made, name, _dropped(short, args))
        if short in WAITS or (short in ("_to_copy", "copy_") and len({one.device.type for one in (*read, *made)}) > 1):
            self.waits.append(short)
        on_gpu = any(tensor.device.type == "cuda" for tensor in (*read, *made))
        if on_gpu and short not in VIEWS and not name.startswith("prim::") and not function.is_view:
            self.kernels[name] += _launches(short, args)
            several = {id(tensor): tensor for tensor in (*read, *made)}.values()
            self.moved[name] += sum(tensor.numel() * tensor.element_size() for tensor in several)
            if short == "products_backward" and not _is_whole(args):
                self.moved[name] += args[0].numel() * args[0].element_size()  # dy is read by both of its kernels
        return found

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it nothing is counted."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before

    def _watch(self, made: Sequence[Tensor], name: str, dropped: int) -> None:
        """``dropped``: bytes that the operation made for itself."""
        for tensor in made:
            if tensor.device.type != "cuda":
                continue
            storage = tensor.untyped_storage()
            known = self._alive.get(storage._cdata)
            if known is None or known[0].expired():
                self._total += storage.nbytes() - (known[1] if known else 0)
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        if self._total + dropped > self.peak:
            for key in [key for key, (reference, _) in self._alive.items() if reference.expired()]:
                self._total -= self._alive.pop(key)[1]
            if self._total + dropped > self.peak:
                self.peak, self.where = self._total + dropped, name


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _dropped(short: str, args: Any) -> int:
    """Bytes that one of our operators holds while it works: the GELU that it multiplies."""
    x = {"products": 0, "products_backward": 1}.get(short)
    if x is None or len(args) < x + 5 or not args[-1] or (short == "products_backward" and len(args) < 8):
        return 0
    return int(args[x].numel() * args[x].element_size())


def _is_whole(args: Any) -> bool:
    """Whether a backward pass of two products is one kernel, which reads dy once."""
    from structlin.kernels.products import triton_path

    return triton_path.is_whole(ProductSizes.of(args[2].shape, args[3].shape, args[4])) and args[5] and args[6]


def _launches(short: str, args: Any) -> int:
    """Kernels of one operation; of lists of tensors by the pointers that one launch takes (estimates)."""
    if short == "_fused_adamw_":
        return -(-len(args[0]) // 24)
    if short.startswith("_foreach"):
        return -(-len(args[0]) // 48)
    if short in FUSED_LAUNCHES:
        first = 1 if short == "products" else 2
        sizes = ProductSizes.of(args[first].shape, args[first + 1].shape, args[first + 2])
        from structlin.kernels.products import triton_path

        assert triton_path.fuses(sizes)
        kernels = WHOLE_LAUNCHES if short == "products_backward" and _is_whole(args) else FUSED_LAUNCHES[short]
        return kernels + (len(args) > first + 3 and bool(args[-1]))
    return SEVERAL.get(short, 1)
