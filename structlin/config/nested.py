"""At which ranks is one run trained? A menu of shares of its rank, nested.menu=[1/8,1/4,1/2,1], in one spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any

from structlin.config.checks import one_of
from structlin.errors import UserError

NONE = "none"
"""The value of a run that is trained at its whole rank alone."""
USUAL = "1/8,1/4,1/2,1"
"""The menu that a variant calls nested, without naming its shares."""
DRAWS = ("step", "layer")
"""One share for all layers in a step, or one for each."""
_BY_LAYER = "layer:"
"""How the text of a menu begins of which every layer draws."""
WAY_OUT = "write nested.menu=[1/8,1/4,1/2,1], or nested.menu=none"
_SHARE = r"\s*(?:\d{1,9}(?:\s*/\s*\d{1,9})?|\d{0,9}\.\d{1,9})\s*"


def canonical(value: str) -> str:
    """``none``, or the shares of a text as fractions in rising order, the last 1. UserError for anything else.

    Where every layer draws a share of its own, ``layer:`` stands before them.
    """
    if value == NONE:
        return NONE
    if value.startswith(_BY_LAYER):
        return _BY_LAYER + canonical(value.removeprefix(_BY_LAYER))
    return _spelled(value.strip().removeprefix("[").removesuffix("]").split(","))


def of_words(menu: Any, draw: Any = "step") -> str:
    """The same of what a config holds at nested.menu (a list, a text, or nothing) and at nested.draw."""
    one_of("nested.draw", str(draw), DRAWS)
    text = _spelled(map(str, menu)) if isinstance(menu, list) else canonical(NONE if menu is None else str(menu))
    return text if text == NONE or draw == "step" else canonical(_BY_LAYER + text)


@lru_cache(maxsize=1024)
def menu_of(text: str) -> tuple[Fraction, ...]:
    """The shares of a canonical text, rising; of ``none`` the whole rank alone."""
    shares = text.removeprefix(_BY_LAYER).split(",")
    return (Fraction(1),) if text == NONE else tuple(Fraction(share) for share in shares)


def is_by_layer(text: str) -> bool:
    """Whether every layer draws a share of its own, of a canonical text."""
    return text.startswith(_BY_LAYER)


def label(text: str) -> str:
    """In the name of a variant: nested, or nested-1:4-1:2 for other shares than the usual; nested-layer by layer."""
    words = ["nested", *(["layer"] if is_by_layer(text) else [])]
    if text.removeprefix(_BY_LAYER) != USUAL:
        words += [str(share).replace("/", ":") for share in menu_of(text)[:-1]]
    return "-".join(words)


def at_share(variant: str, share: Fraction) -> str:
    """A variant at a share of its rank: btt+nested@1/8; the whole rank is the variant itself."""
    return variant if share == 1 else f"{variant}@{share}"


def _spelled(words: Iterable[str]) -> str:
    shares = sorted({share_of(word) for word in words})
    if not shares:
        raise UserError(f"nested.menu = [] names no share of a rank; {WAY_OUT}")
    said = ",".join(map(str, shares))
    if shares[-1] != 1:
        raise UserError(f"nested.menu = [{said}] lacks 1, the whole rank; write nested.menu=[{said},1] in brackets")
    if len(shares) == 1:
        raise UserError(f"nested.menu = [1] is the whole rank alone, which nothing is nested in; {WAY_OUT}")
    return said


def share_of(word: str, key: str = "nested.menu", way_out: str = WAY_OUT) -> Fraction:
    """A share as typed: 1/4, .25 or 1. UserError for what is none."""
    try:
        share = Fraction(re.sub(r"\s", "", word)) if re.fullmatch(_SHARE, word) else Fraction(0)
    except ZeroDivisionError:
        share = Fraction(0)
    if not 0 < share <= 1:
        raise UserError(f"{key}: {word.strip() or 'an empty place'} is no share of a rank in (0, 1]; {way_out}")
    return share
