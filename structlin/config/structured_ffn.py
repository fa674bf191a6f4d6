"""What was published of StructuredFFN? The sizes of its models, and its structures at each.

    size   width   layers   heads   parameters   rate      tokens     BlockDense: blocks, ranks at 63% and 32%
    s      768     12       12      110M         6e-4      2.2e9      2   2/3 d   1/3 d
    m      1024    24       16      335M         3e-4      6.7e9      4   3/4 d   3/8 d
    l      1536    24       12      729M         2.5e-4    14.6e9     2   2/3 d   1/3 d
    xl     2048    24       16      1274M        2e-4      25.5e9     4   3/4 d   3/8 d

At 63% and 32% of a feed-forward network's parameters the rank of low rank is d/2 and d/4, and BlockShuffle has two and
four blocks, at every size. What all sizes share stands in configs/scale/structured_ffn.yaml. Source: arXiv 2406.16450
and its released configs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from structlin.errors import UserError, suggest

FFN_BUT_FIRST = ("blocks.[1-9]*.ffn.*",)
"""Patterns of the linears that take the structure: feed-forward networks but the first block's."""
RECIPE = ("rope", "tied", "raw-qk", "unscaled", "sqrt-logits", "plain")
"""Words of a variant that make up the recipe."""
PERCENTS = (63, 32)
"""Published shares of a feed-forward network's parameters."""


@dataclass(frozen=True)
class Size:
    """A published model."""

    d_model: int
    num_layers: int
    d_head: int
    lr: float
    tokens: int
    block_dense: tuple[int, str, str]
    """Blocks, and the ranks at the two shares."""


SIZES = {
    "s": Size(768, 12, 64, 6e-4, 2_200_000_000, (2, "2/3*d", "1/3*d")),
    "m": Size(1024, 24, 64, 3e-4, 6_700_000_000, (4, "3/4*d", "3/8*d")),
    "l": Size(1536, 24, 128, 2.5e-4, 14_600_000_000, (2, "2/3*d", "1/3*d")),
    "xl": Size(2048, 24, 128, 2e-4, 25_500_000_000, (4, "3/4*d", "3/8*d")),
}


def size_of(name: object) -> Size | None:
    """The published size of a name; None for none. UserError for an unknown one."""
    if name is None:
        return None
    if name not in SIZES:
        raise UserError(f"model.size = {name} is unknown; {suggest(str(name), SIZES)}")
    return SIZES[str(name)]


def fill(config: dict[str, Any]) -> Size | None:
    """Give a composed config what its size says and the command line does not: layers, heads, rate. The size."""
    model, optim = config["model"], config["optim"]
    size = size_of(model.pop("size", None))
    if size is not None:
        if model["num_layers"] is None:
            model["num_layers"] = size.num_layers
        if model["d_head"] is None and model["num_heads"] is None:
            model["d_head"] = size.d_head
        if optim["lr"] is None:
            optim["lr"] = size.lr
    return size


def arguments(structure: str, size: Size | None, percent: object) -> Mapping[str, object]:
    """Arguments of a published structure at a share of the parameters; nothing for another structure, or no share.

    UserError for a share that was not published.
    """
    if percent is None:
        return {}
    if percent not in PERCENTS:
        raise UserError(
            f"structure.percent = {percent} must be 63 or 32, the published shares; others are said by structure.rank "
            "and structure.blocks, with structure.percent=null"
        )
    index = PERCENTS.index(int(str(percent)))
    blocks, *ranks = (size or SIZES["s"]).block_dense
    of: dict[str, dict[str, object]] = {
        "low_rank": {"rank": ("d/2", "d/4")[index]},
        "block_shuffle": {"blocks": (2, 4)[index]},
        "block_dense": {"blocks": blocks, "rank": ranks[index]},
    }
    return of.get(structure, {})


def published_init(structure: str) -> str:
    """How the layers of a structure start, by its name; dense layers, and what was not published, N(0, init_std)."""
    if structure.startswith("low_rank"):
        return "svd"
    return "orthonormal" if structure.startswith(("block_shuffle", "block_dense", "monarch")) else "fixed"
