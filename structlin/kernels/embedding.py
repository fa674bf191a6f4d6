"""How is a table looked up in a compiled step on a CPU? By an operator of its own, since Inductor may scatter wrongly.

Where the gradient of the rows arrives transposed (as structured layers leave it) and nothing but the table reads it,
Inductor of torch 2.13 vectorises the scatter over two dimensions and adds to wrong rows. The operator
``structlin::embedding`` is torch's look-up, opaque to it, and so is its backward pass. Elsewhere torch's own serves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_LIBRARY = torch.library.Library("structlin", "FRAGMENT")
_LIBRARY.define("embedding(Tensor table, Tensor ids) -> Tensor")
_LIBRARY.define("embedding_backward(Tensor dy, Tensor ids, SymInt rows) -> Tensor")


def embedding(table_VD: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table (V, D) by ids (...): (..., D)."""
    if torch.compiler.is_compiling() and table_VD.device.type == "cpu":
        rows: Tensor = torch.ops.structlin.embedding.default(table_VD, ids)
        return rows
    return functional.embedding(ids, table_VD)


def _forward(table: Tensor, ids: Tensor) -> Tensor:
    rows: Tensor = torch.ops.aten.embedding.default(table, ids)
    return rows


def _backward(dy: Tensor, ids: Tensor, rows: int) -> Tensor:
    table: Tensor = torch.ops.aten.embedding_dense_backward.default(dy.contiguous(), ids, rows, -1, False)
    return table


for _name, _function in (("embedding", _forward), ("embedding_backward", _backward)):
    _LIBRARY.impl(_name, _function, "CPU")


@torch.library.register_fake("structlin::embedding", lib=_LIBRARY)
def _rows(table: Tensor, ids: Tensor) -> Tensor:
    return table.new_empty(*ids.shape, table.shape[1])


@torch.library.register_fake("structlin::embedding_backward", lib=_LIBRARY)
def _table(dy: Tensor, ids: Tensor, rows: int) -> Tensor:
    return dy.new_empty(rows, dy.shape[-1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    table, ids = inputs
    ctx.rows = table.shape[0]
    ctx.save_for_backward(ids)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
    (ids,) = ctx.saved_tensors
    found: Tensor = torch.ops.structlin.embedding_backward.default(dy, ids, ctx.rows)
    return found, None


torch.library.register_autograd("structlin::embedding", _differentiate, setup_context=_keep, lib=_LIBRARY)
