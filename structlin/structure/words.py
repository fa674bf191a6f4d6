"""What does somebody mean by "btt", or "monarch" with blocks=4? From words to the plan of a linear map. No torch.

A structure is a name of the catalogue or of a family, the text of a theta, or a Theta; what a family can vary (rank,
blocks, factors, terms, cores, bond) stands beside it. This is the door for callers: configs have their own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from structlin.errors import UserError
from structlin.structure.families import FAMILIES, output_order_of, theta_of
from structlin.structure.naming import name_of
from structlin.structure.plan import LinearPlan
from structlin.structure.served import plan_served
from structlin.structure.theta import Theta

# What only the text of a theta has.
_MARKS = "|,=("


def plan(
    structure: str | Theta,
    d_in: int,
    d_out: int,
    *,
    rounding: str = "exact",
    contraction: str = "cheapest",
    output_order: str | None = None,
    **arguments: object,
) -> LinearPlan:
    """All that is known of a linear map d_in -> d_out before any weight exists; ``print`` shows it beside dense's.

    ``arguments``: of the family, as rank="d/4" or 64, blocks=4, factors=3, terms=4, cores=3, bond=8. ``rounding``:
    exact or paper; ``contraction``: cheapest or first; ``output_order``: fed or efd, by the family where not given.
    ValueError in one line for what is unknown, malformed or cannot serve such a layer.
    """
    return named_plan(structure, d_in, d_out, rounding, contraction, output_order, arguments)[0]


def named_plan(
    structure: str | Theta,
    d_in: int,
    d_out: int,
    rounding: str,
    contraction: str,
    output_order: str | None,
    arguments: Mapping[str, object],
) -> tuple[LinearPlan, str]:
    """The plan, and the name of its structure with the arguments: monarch-b4, low_rank-d:4, btt-r4-c3."""
    widths = _width("d_in", d_in), _width("d_out", d_out)
    with _as_arguments():
        theta, order = _theta(structure, rounding, arguments)
        order = output_order or order
        found = plan_served(theta, *widths, rounding=rounding, contraction=contraction, output_order=order)
        return found, name_of(theta, order)


def _theta(structure: str | Theta, rounding: str, arguments: Mapping[str, object]) -> tuple[Theta, str]:
    """The theta that is meant, and the order of the output that its family has."""
    if not isinstance(structure, str | Theta):
        raise UserError(f"structure = {structure!r} is neither a name, such as 'btt', nor the text of a theta")
    if isinstance(structure, str) and not any(mark in structure for mark in _MARKS):
        return theta_of(structure, rounding=rounding, arguments=arguments), output_order_of(structure)
    others = sorted(key for key, value in arguments.items() if key != "rank" and value is not None)
    if others:
        raise UserError(
            f"the theta {structure} takes rank alone beside it, not {', '.join(others)}; a family takes more: "
            f"{', '.join(FAMILIES)}"
        )
    return theta_of(str(structure), theta=str(structure), rounding=rounding, arguments=arguments), "fed"


def _width(name: str, value: object) -> int:
    """A number of features."""
    try:
        width = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(f"{name} = {value!r} is not a whole number of features, such as 768") from None
    if width < 1:
        raise UserError(f"{name} = {width}: a layer has at least 1 feature on either side")
    return width


@contextmanager
def _as_arguments() -> Iterator[None]:
    """Errors speak of arguments (blocks=4) where those of a command line speak of keys (structure.blocks=4)."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error).replace("structure.", "")) from None
