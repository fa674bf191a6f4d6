"""What is one kind of cell of a published study?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of cell: its structures (by name), mixture, widths, layers and whatever else it is alone in."""

    structures: tuple[str, ...]
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    moe: str = "none"
    experts: tuple[int, ...] = (1,)
    layouts: tuple[str, ...] = ("none",)
    model: str = ""
    """Where a study has several."""
    steps: int | None = 100_000
    """None: not published."""
    of_its_own: tuple[tuple[str, Any], ...] = ()
    lists: str = ""
    """Which of its lists is ours, so that a deviation stands for it: structures, widths or baselines."""
    extras: tuple[str, ...] = ("",)
    """Guides, beginnings and layouts of attention that tell cells apart, in the words of test_published.extra."""
