"""What do all tasks share? Their data's folder, autocast, a rank's rows, and a mean over batches that ranks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import reduce
from operator import add
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from structlin.config.science import Science
from structlin.data import folder, is_prepared
from structlin.errors import UserError
from structlin.nn.ranks import ALONE, Ranks

T = TypeVar("T")


def prepared_folder(science: Science, data_root: Path) -> Path:
    """Where the data of a Science lies. UserError where it has not been prepared below ``data_root``."""
    if not is_prepared(science.data, data_root):
        raise UserError(
            f"data={science.data.name} is not prepared in {data_root}; run: {science.data.command(data_root)}"
        )
    return folder(science.data, data_root)


def autocast(science: Science, device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 products where the science asks for them, else plain arithmetic."""
    return torch.autocast(device.type, torch.bfloat16, enabled=science.model.dtype == "bfloat16")


def share(rows: int, ranks: Ranks) -> slice:
    """A rank's rows of a batch: contiguous and as many as every other's. UserError where they do not divide."""
    part, rest = divmod(rows, ranks.world_size)
    if rest:
        raise UserError(f"{rows} rows a step do not divide by {ranks.world_size} ranks; choose a multiple")
    return slice(ranks.rank * part, (ranks.rank + 1) * part)


@torch.no_grad()
def mean_over(
    batches: Iterable[T], loss: Callable[[T], Tensor], size: Callable[[T], int], ranks: Ranks = ALONE
) -> float:
    """Mean of ``loss(batch)`` (scalars) over all batches, each weighted by its ``size``; the ranks share the batches.

    The terms are added in float64 in the order of the batches, whatever the number of ranks. Every rank computes
    equally many, since a sharded model needs all of them in its forward pass: where the last batches do not go round,
    some compute one that another counts.
    """
    return means_over(batches, lambda batch: loss(batch).reshape(1), size, ranks)[0]


@torch.no_grad()
def means_over(
    batches: Iterable[T], measure: Callable[[T], Tensor], size: Callable[[T], int], ranks: Ranks = ALONE
) -> list[float]:
    """The same of several numbers a batch at once: ``measure`` gives them as (n,)."""
    terms: list[Tensor] = []
    sizes: list[int] = []
    for group in _groups(batches, ranks.world_size):
        mine = group[min(ranks.rank, len(group) - 1)]
        terms.append(measure(mine).double() * size(mine))
        sizes += map(size, group)
    columns = torch.stack(terms).T.contiguous()
    in_order = [ranks.gather(column).T.flatten()[: len(sizes)].tolist() for column in columns]
    # Plain additions: from Python 3.12 on the built-in sum compensates, to other last bits.
    return [reduce(add, values, 0.0) / sum(sizes) for values in in_order]


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one shorter."""
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
