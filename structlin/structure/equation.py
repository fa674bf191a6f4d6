"""What does a structure compute? Its einsum equation, as text for records, documents and diagrams.

The layer itself contracts pairwise; the three-operand equation here is what the tests compare it with.
"""

from __future__ import annotations

from structlin.structure.sizes import Sizes
from structlin.structure.theta import Theta

EINSUM = "tgba,fdrga,fergb->tfed"
"""y[t, f, e, d] = sum over g, b, a, r of x[t, g, b, a] A[f, d, r, g, a] B[f, e, r, g, b]; t runs over rows."""

_LETTERS = dict(zip(("alpha", "beta", "gamma", "delta", "epsilon", "phi", "rho"), "abgdefr", strict=True))


def equation(theta: Theta) -> str:
    """The einsum of a theta with the absent indices (exponent zero) left out.

    Worked example: BTT (1/2|0|1/2|0|1/2|1/2|0) gives ``tga,fga,feg->tfe``; dense gives ``tg,fg->tf``.
    """
    if theta.is_dense:
        return "tg,fg->tf"
    absent = {letter for name, letter in _LETTERS.items() if getattr(theta, name) == 0}
    return "".join(character for character in EINSUM if character not in absent)


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shapes of the factors in the order of the equation: A (f, d, r, g, a), B (f, e, r, g, b); dense: W."""
    s = sizes
    if s.dense:
        return {"weight": (s.d_out, s.d_in)}
    return {"A": (s.f, s.d, s.r, s.g, s.a), "B": (s.f, s.e, s.r, s.g, s.b)}
