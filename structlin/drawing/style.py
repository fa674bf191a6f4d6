"""How do all figures look? Sizes, type, scales, and the colour and marker of every variant.

Colours are Okabe and Ito's and five more, and markers tell the same again for colour-blind readers. Scales of a number
(omega, psi, nu) run through a part of viridis that stays dark enough on white. Figures are as wide as a column
(3.4 in), a column and a half (5.3 in) or a page (7 in) of print, and no text is below 7 pt at that size.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

COLOURS = (
    "#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#882255", "#332288",
    "#44AA99", "#8B4513", "#AA4499",
)  # fmt: skip
MARKERS = ("o", "s", "D", "v", "P", "X", "<", ">", "p", "h", "d", "8")
KNOWN = (
    "btt", "low_rank", "tensor_train", "kronecker", "btt3", "btt7", "btt11", "l1", "g1", "monarch", "moe-btt8",
    "moe-ffn8", "block_shuffle", "blast", "btt1", "l2", "tt2", "moe-btt16", "moe-ffn16", "btt+moe-ffn8", "moe-dense8",
    "moe-low_rank8", "block_dense", "mpo", "kronecker_sum", "btt2", "btt5", "btt6", "btt8", "btt9", "btt10", "btt12",
    "btt13", "btt14", "btt15", "btt16", "g2", "tt1", "tt3", "tt4", "btt@nddn", "btt@dnnd", "btt@dndn", "btt@ndnd",
    "btt+moe-ffn16", "moe-dense16", "moe-low_rank16",
)  # fmt: skip
"""Variants that look the same in every figure; the first twelve share neither colour nor marker."""
DENSE_COLOUR, DENSE_MARKER = COLOURS[0], "^"
NUM_LOOKS = (len(COLOURS) - 1) * len(MARKERS)
# Matplotlib's viridis at 0, 0.9 / 8, ... 0.9: straight lines between them are off by at most 6 of 255, and a page
# needs no matplotlib.
VIRIDIS = ("#440154", "#482878", "#3e4a89", "#30698e", "#25848e", "#1fa088", "#38b977", "#73d056", "#bddf26")
RING = "ring"
"""A marker around other markers."""
STAR = "*"
"""The marker of an optimum."""
COLUMN_INCHES, WIDE_INCHES, PAGE_INCHES = 3.4, 5.3, 7.0
SMALLEST_POINT = 7.0

RC: Any = {
    # No drawing holds mathematics, and a dollar sign in a name is a dollar sign.
    "text.parse_math": False,
    "font.size": 7.5,
    "axes.titlesize": 8.0,
    "axes.labelsize": 7.5,
    "legend.fontsize": SMALLEST_POINT,
    "xtick.labelsize": SMALLEST_POINT,
    "ytick.labelsize": SMALLEST_POINT,
    "xtick.major.pad": 2.5,
    "ytick.major.pad": 2.5,
    "axes.labelpad": 2.5,
    "axes.titlepad": 4.0,
    # A fixed height: finding one that clears all labels takes as long as drawing everything else.
    "axes.titley": 1.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    # TrueType, which journals ask for; the same input gives the same bytes.
    "pdf.fonttype": 42,
    "svg.hashsalt": "structlin",
}


def ordered(variants: Iterable[str]) -> list[str]:
    """The order of legends, whichever run came first: dense, structures by name (btt3 before btt11), then mixtures."""
    return sorted(variants, key=lambda name: (not _is_dense(name), "moe-" in name, _words(name)))


def colour_of(variants: Iterable[str], variant: str) -> str:
    """The colour of a variant: its own in every figure; dense is black."""
    return look_of(tuple(variants), variant)[0]


def marker_of(variants: Iterable[str], variant: str) -> str:
    """The marker of a variant, as its colour; dense is a triangle. No two variants of a figure share both."""
    return look_of(tuple(variants), variant)[1]


def look_of(variants: tuple[str, ...], variant: str) -> tuple[str, str]:
    """Colour and marker of a variant among those of a figure.

    Known ones (options such as a norm apart) have theirs in all figures. Any other begins at a place by its name and
    takes the first look from there whose colour and marker are both free in this figure.
    """
    return _looks(tuple(ordered(set(variants) | {variant})))[variant]


@lru_cache(maxsize=256)
def _looks(variants: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """The looks of all variants of a figure, those known by name first."""
    found: dict[str, tuple[str, str]] = {}
    for variant in sorted(
        variants, key=lambda name: (not _is_dense(name), _plain(name) not in KNOWN, name != _plain(name))
    ):
        if _is_dense(variant) and ("+" not in variant or not any(map(_is_dense, set(variants) - {variant}))):
            found[variant] = (DENSE_COLOUR, DENSE_MARKER)
        else:
            taken = set(found.values())
            found[variant] = _free(_first_place(variant), taken)
    return found


def _first_place(variant: str) -> int:
    """Where a variant's search for a look begins: its place among the known ones, or one by its name."""
    plain = _plain(variant)
    return KNOWN.index(plain) if plain in KNOWN else len(KNOWN) + zlib.crc32(variant.encode()) % 96


def _free(first: int, taken: set[tuple[str, str]]) -> tuple[str, str]:
    """The first look from there on whose colour and marker are both free, else whose pair is."""
    every = [_pair(first + place) for place in range(NUM_LOOKS)]
    if every[0] not in taken and first < len(KNOWN):
        return every[0]
    colours, markers = {look[0] for look in taken}, {look[1] for look in taken}
    whole = [look for look in every if look[0] not in colours and look[1] not in markers]
    return (whole or [look for look in every if look not in taken] or every)[0]


def _pair(place: int) -> tuple[str, str]:
    """All pairs of colour and marker, numbered so that neighbours differ in both."""
    many = len(MARKERS)
    place %= NUM_LOOKS
    return COLOURS[1 + place % many], MARKERS[(place + place // many) % many]


def _plain(variant: str) -> str:
    """A variant without the options that all of a figure may have: rounding, norms, caps, and a recipe."""
    words = [word.partition("/")[0] for word in variant.split("+")]
    return "+".join(word for word in words if not word.endswith(("-norm", "-cap", "structured-ffn")))


def _is_dense(variant: str) -> bool:
    """Also under the rounding of the paper, or by a recipe: dense/paper, dense+structured-ffn."""
    return _plain(variant) == "dense"


def _words(name: str) -> list[tuple[bool, int, str]]:
    """A name with its numbers as numbers."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def shade(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """The colour of a number on a scale: viridis from 0 to 0.9, where it is still seen on white."""
    part = 0.5 if high <= low else (min(max(value, low), high) - low) / (high - low)
    place = min(int(part * (len(VIRIDIS) - 1)), len(VIRIDIS) - 2)
    share = part * (len(VIRIDIS) - 1) - place
    ends = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in VIRIDIS[place : place + 2]]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))
