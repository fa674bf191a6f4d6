"""What is a theta called? The name of the catalogue, or of a family with its arguments, or a short text."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from structlin.structure.catalog import CATALOG, catalogue_name
from structlin.structure.families import FAMILIES, Argument
from structlin.structure.theta import ABSENT, Theta


@lru_cache(maxsize=4096)
def name_of(theta: Theta, output_order: str = "fed") -> str:
    """The catalogue's first name, the family with its arguments (monarch-b4, low_rank-d:4, btt-r4-c3), or the text.

    ``d:4`` is d/4: a slash stands before a rounding policy. Three factors and more whose text is no family's have a
    short name by its hash. Different structures have different names.
    """
    mark = "" if output_order == "fed" else f"-{output_order}"
    found = catalogue_name(theta)
    if found is not None:
        return found if found == "dense" else found + mark
    known = family_of(theta, output_order)
    if known is not None:
        name, values = known
        said = name + "".join(_label(key, value) for key, value in values.items())
        # A rank of 1 goes unsaid, unless the bare name is the catalogue's: there low_rank has rank d^(1/2).
        return f"{said}-r1" if said in CATALOG else said
    with_rank = _catalogue_with_rank(theta)
    return (_short(theta) if with_rank is None else with_rank) + mark


def family_of(theta: Theta, output_order: str = "fed") -> tuple[str, dict[str, Argument]] | None:
    """The family that writes a theta, with its arguments, or None."""
    for name, family in FAMILIES.items():
        if family.output_order != output_order:
            continue
        values = family.read(theta)
        # 0 stands for what was no whole number (``_number``); with one block or term there is no family.
        if any(isinstance(value, int) and value < 2 for value in values):
            continue
        named = dict(zip(family.needs, values, strict=True))
        # ``read`` looks at a few indices alone: only a theta that is made again from them is of this family.
        if family.make(*values) == theta and all(_label(key, value) != "?" for key, value in named.items()):
            return name, named
    return None


def _short(theta: Theta) -> str:
    """The text of two factors; theta3-1a2b3c4d of more."""
    return str(theta) if theta.num_factors == 2 else label_of(theta)


def label_of(theta: Theta) -> str:
    """theta2-1a2b3c4d: a name of one length for any theta, by the number of its factors and a hash of its text."""
    return f"theta{theta.num_factors}-{hashlib.sha256(str(theta).encode()).hexdigest()[:8]}"


def _label(key: str, value: Argument) -> str:
    """An argument within a name; ``?`` for a size that has no short form."""
    if isinstance(value, int):
        letter = {"blocks": "b", "terms": "n", "factors": "c", "cores": "c"}[key]
        return "" if key == "factors" and value == 2 else f"-{letter}{value}"
    coefficient = value.coefficient
    if value.exponent == 0 and coefficient.denominator == 1:
        return "" if coefficient == 1 else f"-r{coefficient}"
    if value.exponent == 1:
        many = "" if coefficient.numerator == 1 else str(coefficient.numerator)
        part = "" if coefficient.denominator == 1 else f":{coefficient.denominator}"
        return f"-{many}d{part}"
    return "?"


def _catalogue_with_rank(theta: Theta) -> str | None:
    """btt7-r4: a structure of the catalogue with another rank."""
    if theta.num_factors != 2 or _label("rank", theta["r12"]) in ("", "?"):
        return None
    base = catalogue_name(theta.with_rank(ABSENT))
    return None if base is None else base + _label("rank", theta["r12"])
