"""What is a structure? Its einsum, sizes, costs, taxonomy and a picture of its indices, at one layer's shape. No torch.

    structlin explain structure=btt
    structlin explain structure=monarch structure.blocks=4 d_in=768 d_out=3072
    structlin explain structure=einsum structure.theta=1/3,0,2/3,0,2/3,1/3,1/4 picture=diagram.png

Keys: structure, the arguments of families as for sweep (structure.rank, blocks, factors, terms, cores, bond, theta,
rho, rounding, contraction, output_order), d_in (768), d_out (3072), picture (a PNG of the tensor diagram).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

from structlin.errors import UserError, asks_help, key_values, suggest, whole_number
from structlin.structure import CATALOG, FAMILIES
from structlin.structure.families import ARGUMENTS, output_order_of, theta_of
from structlin.structure.naming import name_of
from structlin.structure.plan import LinearPlan, factor_axes, input_axes
from structlin.structure.served import plan_served
from structlin.structure.theta import Theta

WIDEST = 10**7
LAYER = {"d_in": "768", "d_out": "3072"}
OTHERS = {"theta": "", "rho": "", "rounding": "exact", "contraction": "cheapest", "output_order": "null"}
_RANKED = re.compile(r"btt(\d+)")


def main(arguments: list[str]) -> int:
    """Print what a structure is. UserError for one that is unknown or cannot serve the layer."""
    if asks_help(arguments):
        print(f"{__doc__}\nstructures: {', '.join(sorted({*CATALOG, *FAMILIES}))}")
        return 0
    values = _values(arguments)
    theta, order = _theta(values)
    shape = (whole_number("d_in", values["d_in"], 1, WIDEST), whole_number("d_out", values["d_out"], 1, WIDEST))
    plan = plan_served(
        theta, *shape, rounding=values["rounding"], contraction=values["contraction"], output_order=order
    )
    print(said(values["structure"], theta, plan))
    if values["picture"]:
        _paint(theta, Path(values["picture"]))
        print(f"\n{values['picture']}")
    return 0


def said(asked: str, theta: Theta, plan: LinearPlan) -> str:
    """All of it as text."""
    name = name_of(theta, plan.output_order)
    head = [f"{asked}: {'' if asked in (name, 'einsum') else f'named {name}; '}theta {theta}"]
    exponents = theta.taxonomy
    head.append(
        f"at every width: MACs d^{1 + exponents.nu:.3g} (nu {exponents.nu:.3g}), MACs/parameters d^"
        f"{exponents.omega:.3g} (omega), rank d^{exponents.psi:.3g} (psi); dense: 2, 0, 1"
    )
    return "\n".join([*head, "", str(plan), "", "which tensor has which index", "", picture(plan)])


def picture(plan: LinearPlan) -> str:
    """Rows are the input, the factors in the order of contraction and the output; a column is an index and its size."""
    letters, sizes = plan.letters, plan.sizes
    shown = [index for index, size in sizes.items() if size > 1 and index in letters]
    count = sizes.num_factors
    rows: list[tuple[str, Sequence[object]]] = [("x", input_axes(count))]
    rows += [(factor.name, factor_axes(count, factor.step.number)) for factor in plan.factors]
    rows.append(("y", plan.output_axes))
    titles = [f"{letters[index]}={size}" for index, size in sizes.items() if index in shown]
    wide = [max(len(title), 3) for title in titles]
    lines = ["  ".join([" " * 10, *(f"{title:^{room}}" for title, room in zip(titles, wide, strict=True))])]
    for place, (name, _) in enumerate(rows):
        marks = [_mark(index, place, rows) for index in shown]
        cells = "  ".join([f"{name:<10}", *(f"{m:^{w}}" for m, w in zip(marks, wide, strict=True))])
        lines.append(cells.rstrip())
    return "\n".join(lines)


def _mark(index: object, place: int, rows: list[tuple[str, Sequence[object]]]) -> str:
    """A dot where the tensor of a row has the index, a line where the index passes by."""
    having = [number for number, (_, axes) in enumerate(rows) if index in axes]
    if place in having:
        return "●"
    return "│" if having and having[0] < place < having[-1] else ""


def _values(arguments: list[str]) -> dict[str, str]:
    """Words by key; ``structure.rank`` and ``rank`` are the same here."""
    defaults = {"structure": "", "picture": "", **LAYER, **OTHERS, **dict.fromkeys(ARGUMENTS, "")}
    words = [word.removeprefix("structure.") if word.startswith("structure.") else word for word in arguments]
    values = key_values(words, defaults)
    if not values["structure"]:
        raise UserError("say which structure: structlin explain structure=btt")
    known = (*CATALOG, *FAMILIES, "einsum")
    ranked = _RANKED.fullmatch(values["structure"])
    if ranked and values["structure"] not in known and not values["rank"]:
        print(f"{values['structure']} is no theta of the catalogue: structure=btt structure.rank={ranked[1]}")
        values |= {"structure": "btt", "rank": ranked[1]}
    if values["structure"] not in known:
        raise UserError(f"structure={values['structure']} is unknown; {suggest(values['structure'], known)}")
    return values


def _theta(values: dict[str, str]) -> tuple[Theta, str]:
    """The theta that is meant, and the order of its output."""
    name, order = values["structure"], values["output_order"]
    if name == "einsum" and not values["theta"]:
        raise UserError("structure=einsum needs a theta: structure.theta=1/3,0,2/3,0,2/3,1/3,1/4")
    if name != "einsum" and values["theta"]:
        raise UserError(f"structure={name} has its own theta; to give one, say structure=einsum structure.theta=...")
    arguments: dict[str, object] = {key: _typed(values[key]) for key in ARGUMENTS}
    try:
        theta = theta_of(
            name,
            theta=values["theta"] or None,
            rho=values["rho"] or None,
            rounding=values["rounding"],
            arguments=arguments,
        )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"structure: {error}") from None
    return theta, output_order_of(name) if order == "null" else order


def _typed(text: str) -> object:
    """A number as a number; ranks are also d/4."""
    if not text:
        return None
    return int(text) if text.isdigit() else text


def _paint(theta: Theta, path: Path) -> None:
    """The tensor diagram as a PNG."""
    import importlib

    import matplotlib

    from structlin.command.main import figures_module
    from structlin.drawing.style import RC
    from structlin.host.files import write_atomically

    paint = importlib.import_module(figures_module("analysis.figures.diagram")).paint_diagram
    with matplotlib.rc_context(RC):
        from matplotlib.figure import Figure

        size = (3.4, 2.0) if theta.num_factors < 3 else (5.3, 1.7 * theta.num_factors)
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.add_subplot(), theta)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=200)
    write_atomically(path, stream.getvalue())
