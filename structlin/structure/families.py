"""How is a theta said in words? A name of the catalogue or a family, and its arguments.

    low_rank(rank)           btt(rank, factors)      monarch(blocks)         block_shuffle(blocks)
    block_dense(blocks, rank)                        kronecker_sum(terms)    mpo(cores, bond)    blast(blocks, rank)

``rank`` (and ``bond``) is a number, d, d/4 or 3/8*d, d being min(d_in, d_out) of each layer; every two-factor structure
takes one. Families are ways to write a theta: a run's identity knows the theta and the order of the output's axes.
Sizes with N = d_in, M = d_out, K = min(N, M), as (a, b, g, d, e, f, r):

    low rank R          N, 1, 1, 1, M, 1, R
    Monarch, b blocks   N/b, 1, b, 1, M/b, b, K/b^2         BlockShuffle: the same, its output's axes exchanged
    BlockDense (B, R)   N/B, 1, B, 1, M, 1, R/B
    PHM of n terms      N/n, n, 1, M/n, n, 1, n             a sum of n Kronecker products; no compute is saved

    c-factor BTT        x_t joins factors 1..t, y_t joins t..c, a rank joins t and t + 1; all of d^(1/c)
    MPO of c cores      x_t and y_t join core t alone, a bond joins t and t + 1
    BLAST, b blocks     V: x_q, x_j, r;  S: x_j, y_i, r;  U: y_i, y_p, r, with r joining all three

Sources: arXiv 2406.06248 (BTT), 2204.00595 (Monarch), 2406.16450 (BlockShuffle, BlockDense), 2102.08597 (PHM),
2401.14109 (MPO), 2410.21262 (BLAST).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from structlin.errors import UserError, suggest
from structlin.structure.catalog import CATALOG, lookup, published
from structlin.structure.index import MOST_FACTORS, Index
from structlin.structure.theta import ABSENT, Term, Theta, parse_fraction

ARGUMENTS = ("rank", "blocks", "factors", "terms", "cores", "bond")
"""All arguments of families; rank and bond are sizes, the others whole numbers."""
_SIZES = ("rank", "bond")
LEAST = {"blocks": 2, "factors": 2, "terms": 2, "cores": 2}
MOST = {"factors": MOST_FACTORS, "cores": MOST_FACTORS}
_ONE, _ZERO = Fraction(1), Fraction(0)

Argument = int | Term


@dataclass(frozen=True)
class Family:
    """Thetas that differ in a few arguments."""

    make: Callable[..., Theta]
    """From the values of ``needs`` in their order."""
    needs: tuple[str, ...]
    read: Callable[[Theta], tuple[Argument, ...]]
    """The arguments that would make a theta of this family; another theta where it is none."""
    output_order: str = "fed"


def theta_of(
    name: str,
    *,
    theta: str | None = None,
    rho: str | None = None,
    rounding: str = "exact",
    arguments: Mapping[str, object] | None = None,
) -> Theta:
    """The theta meant by a name and its arguments, or by an explicit text, with its rank overridden where one is given.

    An explicit text keeps what is written; a name gives exact thirds, or the published decimals under
    ``rounding='paper'``. ``arguments``: of ARGUMENTS, None where not given. UserError for an unknown name, an argument
    that the family does not take or lacks; ValueError for a malformed, redundant or degenerate theta.
    """
    given = {key: _argument(key, value) for key, value in (arguments or {}).items() if value is not None}
    if theta is not None:
        _check_takes(name, ("rank",), given)
    found = Theta.parse(theta) if theta is not None else _named(name, given)
    if theta is None and rounding == "paper":
        found = published(found)
    if rho is not None:
        found = _ranked(found, Term(parse_fraction(rho)))
    if "rank" in given and (theta is not None or name not in FAMILIES):
        found = _with_rank(name, found, given["rank"])
    found.check_useful()
    return found


def _named(name: str, given: Mapping[str, Argument]) -> Theta:
    """By the catalogue where no argument asks for more, else by the family."""
    if name not in FAMILIES and name not in CATALOG:
        raise UserError(f"unknown structure '{name}'; {suggest(name, [*CATALOG, *FAMILIES])}")
    takes = FAMILIES[name].needs if name in FAMILIES else ("rank",)
    _check_takes(name, takes, given)
    if name in CATALOG and (not given or name not in FAMILIES):
        return lookup(name)
    defaults: dict[str, Argument] = {"factors": 2, "rank": ABSENT} if name == "btt" else {}
    values = {**defaults, **given}
    lacking = [key for key in takes if key not in values]
    if lacking:
        raise UserError(f"structure={name} needs {_listing(lacking)}, such as {_examples(lacking)}")
    return FAMILIES[name].make(*(values[key] for key in takes))


def _check_takes(name: str, takes: tuple[str, ...], given: Mapping[str, Argument]) -> None:
    for key in given:
        if key not in takes:
            raise UserError(f"structure={name} takes no structure.{key}; it takes {_listing(takes)}")


def _with_rank(name: str, theta: Theta, rank: Argument) -> Theta:
    assert isinstance(rank, Term)
    if theta.is_dense:
        raise UserError(f"structure={name} takes no structure.rank: a dense layer has none")
    return _ranked(theta, rank)


def _ranked(theta: Theta, rank: Term) -> Theta:
    """The theta with this rank; UserError where more than two factors have none that could take it."""
    if theta.num_factors > 2 and all(term.is_absent for term in theta.terms[2 * (2**theta.num_factors - 1) :]):
        raise UserError(f"theta {theta} joins no two factors by a rank; write one into it, such as r12=4*0")
    return theta.with_rank(rank)


def output_order_of(name: str) -> str:
    """The order of the output's axes that a name stands for."""
    return FAMILIES[name].output_order if name in FAMILIES else "fed"


# --- arguments ------------------------------------------------------------------------------------------------------


def parse_rank(text: str, key: str = "rank") -> Term:
    """64, d, d/4 or 3/8*d as a size. UserError for anything else, and for more than d."""
    coefficient, star, letter = text.replace(" ", "").rpartition("*")
    letter, slash, denominator = letter.partition("/") if letter.startswith("d") else (letter, "", "")
    try:
        if letter == "d":
            share = (Fraction(coefficient) if star else _ONE) / (Fraction(denominator) if slash else 1)
            found = Term(_ONE, share)
        else:
            found = Term(_ZERO, Fraction(text))
    except (ValueError, ZeroDivisionError):
        # No size at all: refused below, with the one message for every mistake.
        found = Term(_ZERO, _ZERO)
    # A fraction alone (1/2) is no number of anything, and more than d would be a rank that no layer can have.
    is_number = found.exponent == 0 and found.coefficient.denominator == 1
    if found.coefficient <= 0 or (found.exponent == 0 and not is_number) or found.exponent == 1 < found.coefficient:
        raise UserError(
            f"structure.{key} = {text}: write a whole number such as 64, or a part of d = min(d_in, d_out): "
            "d, d/4, 3/8*d"
        )
    return found


def _argument(key: str, value: object) -> Argument:
    """An argument as given on a command line or by a caller."""
    if key not in ARGUMENTS:
        raise UserError(f"unknown argument structure.{key}; {suggest(key, ARGUMENTS)}")
    if key in _SIZES:
        return value if isinstance(value, Term) else parse_rank(_text(value), key)
    least, most = LEAST[key], MOST.get(key)
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
    if not number.is_integer() or number < least or (most is not None and number > most):
        within = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise UserError(f"structure.{key} = {value} must be a whole number {within}")
    return int(number)


def _text(value: object) -> str:
    """64.0, as a config may hold it, is 64."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _listing(keys: tuple[str, ...] | list[str]) -> str:
    return " and ".join(f"structure.{key}" for key in keys)


def _examples(keys: list[str]) -> str:
    examples = {"rank": "d/4", "bond": "8"}
    return " ".join(f"structure.{key}={examples.get(key, 4 if key not in MOST else 3)}" for key in keys)


# --- the families -----------------------------------------------------------------------------------------------------


def _two(**terms: Term) -> Theta:
    return Theta.of({name: term for name, term in terms.items() if not term.is_absent})


def _low_rank(rank: Term) -> Theta:
    return _two(x1=Term(_ONE), y2=Term(_ONE), r12=rank)


def _btt(rank: Term, factors: int) -> Theta:
    share = Term(Fraction(1, factors))
    numbers = tuple(range(1, factors + 1))
    terms = {Index("x", numbers[:count]).name: share for count in numbers}
    terms |= {Index("y", numbers[count - 1 :]).name: share for count in numbers}
    return Theta.of(terms | _bonds(factors, rank))


def _bonds(factors: int, rank: Term) -> dict[str, Term]:
    """A rank between every two neighbours; none where it is 1."""
    if rank.is_absent:
        return {}
    return {Index("r", pair).name: rank for pair in pairwise(range(1, factors + 1))}


def _blocks(blocks: int) -> tuple[Term, Term]:
    """b blocks, and the features of one: b d^0 and 1/b d."""
    return Term(_ZERO, Fraction(blocks)), Term(_ONE, Fraction(1, blocks))


def _monarch(blocks: int) -> Theta:
    count, part = _blocks(blocks)
    return _two(x1=part, x12=count, y2=part, y12=count, r12=Term(_ONE, Fraction(1, blocks**2)))


def _block_dense(blocks: int, rank: Term) -> Theta:
    count, part = _blocks(blocks)
    return _two(x1=part, x12=count, y2=Term(_ONE), r12=Term(rank.exponent, rank.coefficient / blocks))


def _kronecker_sum(terms: int) -> Theta:
    count, part = _blocks(terms)
    return _two(x1=part, x2=count, y1=part, y2=count, r12=count)


def _mpo(cores: int, bond: Term) -> Theta:
    share = Term(Fraction(1, cores))
    sides = {f"{side}{core}": share for side in "xy" for core in range(1, cores + 1)}
    return Theta.of(sides | _bonds(cores, bond))


def _blast(blocks: int, rank: Term) -> Theta:
    count, part = _blocks(blocks)
    return Theta.of({"x1": part, "x12": count, "y23": count, "y3": part, "r123": rank})


def whole_number(term: Term) -> int:
    """The coefficient of a size that does not grow with the width, as far as it is a whole number."""
    return int(term.coefficient) if term.exponent == 0 and term.coefficient.denominator == 1 else 0


def _read_block_dense(theta: Theta) -> tuple[Argument, ...]:
    blocks, rank = whole_number(theta["x12"]), theta["r12"]
    return blocks, Term(rank.exponent, rank.coefficient * max(1, blocks))


FAMILIES: dict[str, Family] = {
    "low_rank": Family(_low_rank, ("rank",), lambda theta: (theta["r12"],)),
    "btt": Family(_btt, ("rank", "factors"), lambda theta: (theta["r12"], theta.num_factors)),
    "monarch": Family(_monarch, ("blocks",), lambda theta: (whole_number(theta["x12"]),)),
    "block_shuffle": Family(_monarch, ("blocks",), lambda theta: (whole_number(theta["x12"]),), output_order="efd"),
    "block_dense": Family(_block_dense, ("blocks", "rank"), _read_block_dense),
    "kronecker_sum": Family(_kronecker_sum, ("terms",), lambda theta: (whole_number(theta["r12"]),)),
    "mpo": Family(_mpo, ("cores", "bond"), lambda theta: (theta.num_factors, theta["r12"])),
    "blast": Family(_blast, ("blocks", "rank"), lambda theta: (whole_number(theta["x12"]), _rank_of_three(theta))),
}


def _rank_of_three(theta: Theta) -> Term:
    return theta["r123"] if theta.num_factors == 3 else ABSENT
