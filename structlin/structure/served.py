"""Can a layer of this shape have this structure? Its plan, or a refusal that names the nearest arguments that serve."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from structlin.structure.families import FAMILIES, LEAST, whole_number
from structlin.structure.naming import family_of, name_of
from structlin.structure.plan import LinearPlan, plan_theta
from structlin.structure.sizes import UnservedWidth
from structlin.structure.theta import Term, Theta


def plan_served(
    theta: Theta,
    d_in: int,
    d_out: int,
    *,
    rounding: str = "exact",
    contraction: str = "cheapest",
    output_order: str = "fed",
) -> LinearPlan:
    """The plan of a theta; where the layer cannot have it, UnservedWidth names the nearest arguments that it can."""
    options = {"rounding": rounding, "contraction": contraction, "output_order": output_order}
    try:
        return plan_theta(theta, d_in, d_out, **options)
    except UnservedWidth as error:
        nearest = _nearest_served(theta, d_in, d_out, output_order)
        if nearest is None:
            raise
        name = name_of(theta, output_order)
        raise UnservedWidth(
            f"structure {name} cannot serve a layer of {d_in} x {d_out}: {str(error).partition(': ')[2]}; the nearest "
            f"that works there: {nearest}"
        ) from None


def _nearest_served(theta: Theta, d_in: int, d_out: int, output_order: str) -> str | None:
    """The largest smaller whole-number argument with which a family fits, as words of a command line."""
    known = family_of(theta, output_order)
    if known is None:
        return None
    name, values = known
    for key, value in values.items():
        number = value if isinstance(value, int) else whole_number(value)

        def serves(smaller: int, key: str = key, is_number: bool = isinstance(value, int)) -> bool:
            changed = values | {key: smaller if is_number else Term(Fraction(0), Fraction(smaller))}
            try:
                plan_theta(FAMILIES[name].make(*changed.values()), d_in, d_out)
            except (UnservedWidth, ValueError):
                return False
            return True

        found = _largest_below(min(number, max(d_in, d_out) + 1), LEAST.get(key, 1), serves)
        if found is not None:
            return f"structure.{key}={found}"
    return None


def _largest_below(number: int, least: int, serves: Callable[[int], bool]) -> int | None:
    """The largest number below this one that serves: halved until one does, then bisected."""
    high, low = number, number // 2
    while low >= least and not serves(low):
        high, low = low, low // 2
    if low < least:
        # Halving may have passed over the least.
        low = least
        if least >= high or not serves(least):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if serves(middle) else (low, middle)
    return low
