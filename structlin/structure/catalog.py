"""Which structures have a name? The families and the 23 thetas of the sweep in arXiv 2410.02117.

A catalogue name carries exact thirds. The paper's scripts write them as 0.33 and 0.67, and under its rounding the
literal decimals matter (256^0.67 -> 41, 256^(2/3) -> 40), so families.py hands out the published decimals when the
rounding policy is ``paper``. Families with arguments (rank, blocks, factors) stand there.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from structlin.errors import UserError, suggest
from structlin.structure.theta import Theta

# name -> theta with exact fractions; the first name of a theta is the one shown.
CATALOG: dict[str, str] = {
    "dense": "0|0|1|0|0|1|0",
    "low_rank": "1|0|0|0|1|0|1/2",
    "kronecker": "1/2|1/2|0|1/2|1/2|0|0",
    "tensor_train": "1/2|1/2|0|1/2|1/2|0|1/4",
    "btt": "1/2|0|1/2|0|1/2|1/2|0",
    "monarch": "1/2|0|1/2|0|1/2|1/2|0",
    "btt1": "1/2|0|1/2|0|1/2|1/2|0",
    "btt2": "1/3|0|2/3|0|2/3|1/3|0",
    "btt3": "1/4|0|3/4|0|3/4|1/4|0",
    "btt5": "2/3|0|1/3|0|1/3|2/3|0",
    "btt6": "3/4|0|1/4|0|1/4|3/4|0",
    "btt7": "2/3|0|1/3|0|2/3|1/3|0",
    "btt8": "1/3|0|2/3|0|1/3|2/3|0",
    "btt9": "3/4|0|1/4|0|3/4|1/4|0",
    "btt10": "1/4|0|3/4|0|1/4|3/4|0",
    "btt11": "1/2|0|1/2|0|1/2|1/2|1/4",
    "btt12": "1/2|0|1/2|0|1/2|1/2|1/3",
    "btt13": "1/3|0|2/3|0|2/3|1/3|1/4",
    "btt14": "2/3|0|1/3|0|1/3|2/3|1/4",
    "btt15": "2/3|0|1/3|0|2/3|1/3|1/4",
    "btt16": "1/3|0|2/3|0|1/3|2/3|1/4",
    "tt1": "1/2|1/2|0|1/2|1/2|0|0",
    "tt2": "1/3|2/3|0|1/3|2/3|0|0",
    "tt3": "1/2|1/2|0|1/2|1/2|0|1/4",
    "tt4": "1/3|2/3|0|1/3|2/3|0|1/4",
    "l1": "1|0|0|0|1|0|3/4",
    "l2": "1|0|0|0|1|0|1/2",
    "g1": "1/2|1/4|1/4|1/4|1/2|1/4|0",
    "g2": "1/2|1/4|1/4|1/4|1/2|1/4|1/4",
}

PAPER_IDS = (
    "btt1",
    "btt2",
    "btt3",
    "btt5",
    "btt6",
    "btt7",
    "btt8",
    "btt9",
    "btt10",
    "btt11",
    "btt12",
    "btt13",
    "btt14",
    "btt15",
    "btt16",
    "tt1",
    "tt2",
    "tt3",
    "tt4",
    "l1",
    "l2",
    "g1",
    "g2",
)
"""The 23 thetas that arXiv 2410.02117 sweeps on GPT-2 and on the MLP task."""

_PUBLISHED = {Fraction(1, 3): Fraction("0.33"), Fraction(2, 3): Fraction("0.67")}


def lookup(name: str) -> Theta:
    """The theta of a catalogue name, with exact fractions. UserError lists the names."""
    if name not in CATALOG:
        raise UserError(f"unknown structure '{name}'; {suggest(name, CATALOG)}")
    return Theta.parse(CATALOG[name])


def published(theta: Theta) -> Theta:
    """The theta with thirds as the published scripts write them."""
    terms = (replace(term, exponent=_PUBLISHED.get(term.exponent, term.exponent)) for term in theta.terms)
    return Theta(theta.num_factors, tuple(terms))


def catalogue_name(theta: Theta) -> str | None:
    """The catalogue's first name for a theta (exact or as published), or None."""
    return _NAMES.get(theta)


def _names() -> dict[Theta, str]:
    names: dict[Theta, str] = {}
    for name in CATALOG:
        exact = lookup(name)
        names.setdefault(exact, name)
        names.setdefault(published(exact), name)
    return names


_NAMES = _names()
