"""What is a structure? The size of every index of a linear map of N factors, as a power of the width.

    size of index i = c_i d^theta_i        d: d_in for input indices, d_out for output ones, the lesser for ranks

Exponents of the input indices sum to one and their coefficients multiply to one; so do those of the output indices. An
index is absent where its exponent is 0 and its coefficient 1. Numbers are kept as fractions exactly as written: under
rounding=paper 256^0.67 and 256^(2/3) are different sizes. Text: two factors as seven numbers, more by their indices;
a coefficient stands before ``*``:

    (1/2|0|1/2|0|1/2|1/2|0)                 (1|0|0|0|1|0|1/4*1)  rank d/4         x1=1/3 x12=1/3 ... r12=4*0 r23=4*0

Source: arXiv 2410.02117, section 3, for two factors; coefficients and more factors are derived here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

from structlin.structure.index import GREEK, Index, indices, places
from structlin.structure.taxonomy import Taxonomy, exponents_taxonomy

# The paper writes thirds as 0.33 and 0.67, so a sum may miss one by a hundredth.
SUM_TOLERANCE = Fraction(1, 100)
_WORDS = {"x": "input", "y": "output"}


@dataclass(frozen=True)
class Term:
    """The size of one index: coefficient * d^exponent."""

    exponent: Fraction
    coefficient: Fraction = Fraction(1)

    @property
    def is_absent(self) -> bool:
        """Whether the index has size 1 at every width."""
        return self.exponent == 0 and self.coefficient == 1

    def log_size(self, log_width: float) -> float:
        """Logarithm of the size at a width given by its logarithm, before rounding."""
        return float(self.exponent) * log_width + math.log(self.coefficient)

    def size(self, width: int) -> float:
        """The size at a width, before rounding."""
        return float(self.coefficient) * float(width ** float(self.exponent))

    def __str__(self) -> str:
        return str(self.exponent) if self.coefficient == 1 else f"{self.coefficient}*{self.exponent}"


ABSENT = Term(Fraction(0))


@dataclass(frozen=True)
class Theta:
    """The structure of one linear map: a term for every index that its factors can have."""

    num_factors: int
    terms: tuple[Term, ...]
    """In the order of ``indices(num_factors)``."""

    def __post_init__(self) -> None:
        for index, term in zip(self.indices, self.terms, strict=True):
            if not 0 <= term.exponent <= 1:
                raise ValueError(f"{self.called(index)} = {term} in theta {self}: the exponent lies outside [0, 1]")
            if term.coefficient <= 0:
                raise ValueError(f"{self.called(index)} = {term} in theta {self}: a coefficient must be above 0")
        for side in "xy":
            self._check_side(side)
        for factor in range(1, self.num_factors + 1):
            if self.num_factors > 2 and all(self[index.name].is_absent for index in self.indices if factor in index):
                raise ValueError(f"factor {factor} of theta {self} has no index; number the factors without a gap")

    def _check_side(self, side: str) -> None:
        """The indices of the input, or of the output, make up the width."""
        own = [(index, self[index.name]) for index in self.indices if index.side == side]
        total = sum((term.exponent for _, term in own), Fraction(0))
        if abs(total - 1) > SUM_TOLERANCE:
            said = " + ".join(self.called(index) for index, _ in own) if self.num_factors == 2 else "they"
            raise ValueError(
                f"exponents of the {_WORDS[side]} indices of theta {self}: {said} = {float(total):.4g}, but must be 1 "
                "(within 0.01)"
            )
        product = math.prod((term.coefficient for _, term in own), start=Fraction(1))
        if product != 1:
            raise ValueError(
                f"coefficients of the {_WORDS[side]} indices of theta {self} multiply to {product}, but must to 1: "
                "what one index has more, another has less"
            )

    @classmethod
    def two(cls, *exponents: Fraction) -> Theta:
        """Two factors by (alpha, beta, gamma, delta, epsilon, phi, rho), without coefficients."""
        return cls(2, tuple(map(Term, exponents)))

    @classmethod
    def of(cls, terms: Mapping[str, Term]) -> Theta:
        """The theta whose indices of these names are present; as many factors as they join. ValueError for a bad name.

        One factor alone is a dense layer, which has one name: gamma = phi = 1.
        """
        present = {Index.parse(name): term for name, term in terms.items()}
        num_factors = max((index.factors[-1] for index in present), default=0)
        if num_factors == 1:
            present = {Index(index.side, (1, 2)): term for index, term in present.items()}
        own = indices(max(num_factors, 2))
        return cls(max(num_factors, 2), tuple(present.get(index, ABSENT) for index in own))

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str) -> Theta:
        """Read ``(a|b|g|d|e|f|r)``, ``a,b,g,d,e,f,r`` or ``x1=1/2 x12=1/2 y12=1/2 y2=1/2 r12=4*0``.

        Each number is a decimal or a fraction such as 1/3, with a coefficient before ``*`` where there is one.
        ValueError names the text and what is wrong with it.
        """
        body = text.strip()
        if body.startswith(("(", "[")) and body.endswith((")", "]")):
            body = body[1:-1]
        if "=" in body:
            return cls.of(_named_terms(body, text))
        parts = [part.strip() for part in re.split(r"[|,]", body)]
        if len(parts) != 7:
            raise ValueError(
                f"theta '{text}' has {len(parts)} numbers, but needs 7: (alpha|beta|gamma|delta|epsilon|phi|rho); more "
                "than two factors are written by their indices: x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3"
            )
        return cls(2, tuple(_term(part, text) for part in parts))

    @cached_property
    def text(self) -> str:
        """The text that ``parse`` reads."""
        if self.num_factors == 2:
            return "(" + "|".join(map(str, self.terms)) + ")"
        return " ".join(f"{index.name}={self[index.name]}" for index in self.present)

    def __str__(self) -> str:
        return self.text

    def __hash__(self) -> int:
        # A plan asks by theta again and again, and hashing fractions takes longer than what it asks for.
        return hash(self.text)

    def __getitem__(self, name: str) -> Term:
        return self.terms[places(self.num_factors)[name]]

    @property
    def indices(self) -> tuple[Index, ...]:
        """All indices that so many factors can have."""
        return indices(self.num_factors)

    def called(self, index: Index) -> str:
        """The name of an index for a reader: Greek where there are two factors."""
        return GREEK[index.name] if self.num_factors == 2 else index.name

    @cached_property
    def present(self) -> tuple[Index, ...]:
        """The indices whose size is not 1 at every width."""
        return tuple(index for index, term in zip(self.indices, self.terms, strict=True) if not term.is_absent)

    @property
    def exponents(self) -> tuple[Fraction, ...]:
        """The exponents in the order of the indices; of two factors in that of the text form."""
        return tuple(term.exponent for term in self.terms)

    @cached_property
    def is_plain(self) -> bool:
        """Whether no index has a coefficient: then every size is a pure power of the width."""
        return all(term.coefficient == 1 for term in self.terms)

    @cached_property
    def is_dense(self) -> bool:
        """gamma = phi = 1: every feature joins both factors; as a layer this is one dense weight."""
        return self.num_factors == 2 and self.is_plain and self["x12"].exponent == self["y12"].exponent == 1

    @property
    def is_btt(self) -> bool:
        """Whether this is a block tensor train of two factors: no input or output index skips a factor."""
        return self.num_factors == 2 and self["x2"].is_absent and self["y1"].is_absent and not self.is_dense

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """(nu, omega, psi) by the exponents as written; e.g. BTT (1/2, 0, 1), low rank d^(1/2) (1/2, 0, 1/2)."""
        return exponents_taxonomy(self.num_factors, self.exponents)

    @property
    def swapped(self) -> Theta:
        """The same layer of two factors with the names of A and B exchanged."""
        a, b, g, d, e, f, r = self.terms
        return Theta(2, (b, a, g, e, d, f, r))

    @property
    def is_redundant(self) -> bool:
        """Of two factors A is contracted first by convention, yet B first is cheaper: ``swapped`` names the same."""
        if self.num_factors != 2:
            return False
        alpha, beta, _, delta, epsilon, *_ = self.exponents
        return min(alpha, epsilon) < min(beta, delta)

    @property
    def is_degenerate(self) -> bool:
        """The ranks exceed what the factors can use, so that the layer costs more than a dense one."""
        if self.num_factors != 2:
            return self.taxonomy.nu > 1 + 1e-9
        return self["r12"].exponent > self._most_rho()

    def check_useful(self) -> None:
        """Raise ValueError for a redundant or degenerate theta, naming the change that mends it."""
        if self.is_degenerate and self.num_factors == 2:
            most = self._most_rho()
            raise ValueError(
                f"theta {self} is degenerate: rho = {self['r12']} exceeds min(alpha, epsilon) = {most}, so it costs "
                f"more than a dense layer; use rho <= {most}"
            )
        if self.is_degenerate:
            raise ValueError(
                f"theta {self} is degenerate: it costs d^{1 + self.taxonomy.nu:.3g} per row, more than the d^2 of a "
                "dense layer; use smaller exponents of r"
            )
        if self.is_redundant:
            raise ValueError(
                f"theta {self} is redundant: min(alpha, epsilon) < min(beta, delta); "
                f"swap A and B: the same layer is {self.swapped}"
            )

    def _most_rho(self) -> Fraction:
        alpha, beta, _, delta, epsilon, *_ = self.exponents
        return max(min(alpha, epsilon), min(beta, delta))

    def with_rank(self, rank: Term) -> Theta:
        """The same theta with every present rank of this size; of two factors with rho, present or not."""
        names = [index.name for index in self.indices if index.side == "r"]
        wanted = {name for name in names if self.num_factors == 2 or not self[name].is_absent}
        pairs = zip(self.indices, self.terms, strict=True)
        return Theta(self.num_factors, tuple(rank if index.name in wanted else term for index, term in pairs))


def parse_fraction(text: str) -> Fraction:
    """Read a decimal or a fraction such as 1/3; ValueError names the text."""
    return _fraction(text, text)


def _named_terms(body: str, whole: str) -> dict[str, Term]:
    """``x1=1/2 x12=1/2 ...`` as terms by name; words are separated by spaces or commas."""
    found: dict[str, Term] = {}
    for word in re.split(r"[\s,]+", body.strip()):
        name, equals, number = word.partition("=")
        if not equals:
            raise ValueError(f"'{word}' in '{whole}' is no index=size, such as x12=1/3 or r12=4*0")
        if name in found:
            raise ValueError(f"theta '{whole}' gives {name} twice")
        found[name] = _term(number, whole)
    return found


def _term(part: str, whole: str) -> Term:
    """A number, or coefficient * exponent."""
    coefficient, star, exponent = part.partition("*")
    if not star:
        return Term(_fraction(part.strip(), whole))
    return Term(_fraction(exponent.strip(), whole), _fraction(coefficient.strip(), whole))


def _fraction(part: str, whole: str) -> Fraction:
    try:
        # Fraction keeps decimals exactly as written: Fraction("0.33") is 33/100.
        return Fraction(part)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"'{part}' in '{whole}' is not a number such as 0.5 or 1/3") from None
