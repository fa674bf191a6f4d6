"""How does a plan look to a reader? One line, and a table beside a dense layer of the same shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlin.structure.plan import LinearPlan


def line(plan: LinearPlan) -> str:
    """``768 -> 3072, tga,fga,feg->tfe, rank at most 768, 110,592 parameters, 110,592 MACs a row``."""
    sizes = plan.sizes
    return (
        f"{sizes.d_in} -> {sizes.d_out}, {plan.equation}, rank at most {sizes.rank_bound}, {plan.params:,} parameters, "
        f"{plan.macs:,} MACs a row"
    )


def share(part: int, whole: int) -> str:
    """A part of a whole in three digits: 4.69%."""
    return f"{100 * part / whole:.3g}%"


def table(plan: LinearPlan) -> str:
    """Equation, sizes, factors in the order of contraction, and what the map costs and can do beside a dense one."""
    sizes, letters = plan.sizes, plan.letters
    shown = " ".join(f"{letters[index]}={size}" for index, size in sizes.items() if size > 1 and index in letters)
    lines = [f"{sizes.d_in} -> {sizes.d_out}   {plan.equation}   {shown}", "", _row("", "this", "dense", "")]
    dense, taxonomy = sizes.d_in * sizes.d_out, sizes.taxonomy
    lines += [
        _row(name, f"{value:,}", f"{whole:,}", share(value, whole))
        for name, value, whole in (
            ("parameters", plan.params, dense),
            ("MACs a row", plan.macs, dense),
            ("rank at most", sizes.rank_bound, min(sizes.d_in, sizes.d_out)),
        )
    ]
    lines += [
        _row(f"{name:<6}{meaning}", f"{abs(value) if abs(value) < 5e-4 else value:.3f}", of_dense, "")
        for name, meaning, value, of_dense in (
            ("nu", "compute", taxonomy.nu, "1"),
            ("omega", "sharing", taxonomy.omega, "0"),
            ("psi", "rank", taxonomy.psi, "1"),
        )
    ]
    lines += ["", f"{'factor':<10}{'parameters':>12}{'fan-in':>8}{'fan-out':>9}{'std':>10}{'rate':>8}"]
    for factor in plan.factors:
        rate = factor.adam_multiplier(sizes.d_in)
        lines.append(
            f"{factor.name:<10}{factor.params:>12,}{factor.fan_in:>8}{factor.fan_out:>9}{factor.std:>10.4g}{rate:>8.4g}"
        )
    return "\n".join(lines)


def _row(name: str, this: str, dense: str, part: str) -> str:
    return f"{name:<16}{this:>14}{dense:>14}{part:>9}".rstrip()
