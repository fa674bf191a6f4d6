"""What does any model cost on an example? Parameters, and the multiply-adds that torch's own counter sees.

The model runs once on fake copies of its parameters, of its buffers and of the example, so that nothing is computed and
nothing changes; a model that looks at values (which fakes have not) runs once in earnest, on copies of its buffers.
Counted are matrix products, convolutions, attention (full, what causality saves is not taken off) and this project's
kernels; elementwise work, norms, softmax and look-ups count as nothing. Operators that the counter does not know count
as nothing too: ``uncounted`` names modules with matrices in which nothing was counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils import _pytree as tree
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from structlin.anatomy.ledger import FLOPS_PER_MAC
from structlin.errors import UserError, suggest

CONVENTIONS = {name: each for name, each in FLOPS_PER_MAC.items() if name != "logged"}
"""FLOPs of a MAC by convention; what the released code logged needs a model of this project."""


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


# The counter of torch knows the attention of GPUs, but not that of CPUs.
_MORE = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


@dataclass(frozen=True)
class Cost:
    """What a model costs."""

    params: int
    """Parameters, shared ones once."""
    trainable: int
    """Those of them that learn."""
    macs: int
    """Forward multiply-accumulates for the whole example."""
    tokens: int | None
    """Tokens (or rows, or images) of the example, where told."""
    uncounted: tuple[str, ...]
    """Modules with matrices in which nothing was counted: not run, or by an operator that the counter does not know."""

    @property
    def macs_per_token(self) -> float:
        """Forward multiply-accumulates per token. ValueError where the tokens of the example were not told."""
        if self.tokens is None:
            raise UserError("how many tokens the example holds was not told; write structlin.cost(..., tokens=...)")
        return self.macs / self.tokens

    def flops(self, convention: str = "training") -> int:
        """FLOPs for the example: training = 6 per MAC (forward and backward), paper = 1 per MAC."""
        if convention not in CONVENTIONS:
            raise UserError(f"unknown convention '{convention}'; {suggest(convention, CONVENTIONS)}")
        return CONVENTIONS[convention] * self.macs

    def __str__(self) -> str:
        lines = [
            f"parameters       {self.params:>20,}" + f"   ({self.trainable:,} learn)" * (self.trainable != self.params),
            f"forward MACs     {self.macs:>20,}   for the example",
            *(f"{name + ' FLOPs':<17}{self.flops(name):>20,}   {each} a MAC" for name, each in CONVENTIONS.items()),
        ]
        if self.tokens is not None:
            lines.insert(2, f"MACs a token     {self.macs_per_token:>20,.1f}   of {self.tokens:,}")
        if self.uncounted:
            lines.append(f"not counted: {', '.join(self.uncounted)}")
        return "\n".join(lines)


def cost(model: nn.Module, example_input: Any, *, tokens: int | None = None) -> Cost:
    """The cost of one forward pass; the model, its mode and the random state stay as they are.

    ``example_input``: a tensor, a tuple of arguments, or a mapping of keyword arguments. ``tokens``: how many the
    example holds, for costs per token. What the model itself raises on the example passes through.
    """
    if tokens is not None and (not isinstance(tokens, int) or tokens < 1):
        raise UserError(f"tokens = {tokens!r}: write how many tokens the example holds, a whole number of at least 1")
    args = example_input if isinstance(example_input, tuple) else ()
    kwargs = dict(example_input) if isinstance(example_input, Mapping) else {}
    args = args if args or kwargs or isinstance(example_input, tuple | Mapping) else (example_input,)
    counter = _count(model, args, kwargs)
    parameters = list(model.parameters())
    return Cost(
        params=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        macs=counter.get_total_flops() // 2,
        tokens=tokens,
        uncounted=_uncounted(model, counter),
    )


def _count(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FlopCounterMode:
    """Run the model once under the counter."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # torch's fused encoder layer is one operator that the counter does not know.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Fakes have no values, and foreign operators may know none: whatever fails is run in earnest.
        with suppress(Exception):
            return _run(model, args, kwargs, FakeTensorMode(allow_non_fake_inputs=True))
        return _run(model, args, kwargs, None)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _run(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], fake: FakeTensorMode | None
) -> FlopCounterMode:
    def copied(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.detach().clone() if fake is None else fake.from_tensor(value)

    state = {name: copied(buffer) for name, buffer in model.named_buffers()}
    if fake is not None:
        state |= {name: copied(parameter) for name, parameter in model.named_parameters()}
    args, kwargs = tree.tree_map(copied, (args, kwargs))
    counter = FlopCounterMode(display=False, custom_mapping=_MORE)
    with torch.no_grad(), torch.random.fork_rng(), counter:
        if fake is None:
            functional_call(model, state, args, kwargs)
        else:
            with fake:
                functional_call(model, state, args, kwargs)
    return counter


def _uncounted(model: nn.Module, counter: FlopCounterMode) -> tuple[str, ...]:
    """Names of modules that hold matrices and counted nothing.

    An embedding's look-up is no product, and the last product of nn.MultiheadAttention is counted as its own.
    """
    root = type(model).__name__
    seen = {key for key, counts in counter.get_flop_counts().items() if sum(counts.values())}
    return tuple(
        name or root
        for name, module in model.named_modules()
        if any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False))
        and not isinstance(module, nn.Embedding | nn.EmbeddingBag | NonDynamicallyQuantizableLinear)
        and (f"{root}.{name}" if name else root) not in seen
    )
