"""What is any theta? Hypothesis strategies for the algebra; exponents are twelfths, which sum to one exactly."""

from collections.abc import Sequence
from fractions import Fraction

from hypothesis import strategies as st

from structlin.structure import Term, Theta
from structlin.structure.index import Index, indices

COEFFICIENTS = (Fraction(1, 4), Fraction(1, 2), Fraction(2, 3), Fraction(3, 2), Fraction(2), Fraction(4))


@st.composite
def simplices(draw: st.DrawFn) -> tuple[Fraction, Fraction, Fraction]:
    """Three exponents that sum to one."""
    first = draw(st.integers(0, 12))
    second = draw(st.integers(0, 12 - first))
    return Fraction(first, 12), Fraction(second, 12), Fraction(12 - first - second, 12)


@st.composite
def thetas(draw: st.DrawFn) -> Theta:
    """Any valid theta of two factors without coefficients, redundant and degenerate ones too."""
    return Theta.two(*draw(simplices()), *draw(simplices()), Fraction(draw(st.integers(0, 12)), 12))


@st.composite
def useful_thetas(draw: st.DrawFn) -> Theta:
    """A theta that is neither dense, redundant nor degenerate."""
    theta = draw(thetas())
    alpha, beta, _, delta, epsilon, _, rho = theta.exponents
    theta = theta.with_rank(Term(min(rho, max(min(alpha, epsilon), min(beta, delta)))))
    theta = theta.swapped if theta.is_redundant else theta
    return theta if not theta.is_dense else Theta.parse("1/2|0|1/2|0|1/2|1/2|0")


@st.composite
def btts(draw: st.DrawFn) -> Theta:
    """A block tensor train: beta = delta = 0."""
    # From 1/12 on: alpha = epsilon = 0 would be dense.
    alpha, epsilon = Fraction(draw(st.integers(1, 12)), 12), Fraction(draw(st.integers(1, 12)), 12)
    rho = min(alpha, epsilon) * Fraction(draw(st.integers(0, 12)), 12)
    return Theta.two(alpha, Fraction(0), 1 - alpha, Fraction(0), epsilon, 1 - epsilon, rho)


@st.composite
def maps(draw: st.DrawFn, num_factors: int, *, coefficients: bool = True) -> Theta:
    """Any theta of so many factors: a few indices a side, some ranks, every factor with an index."""
    own = indices(num_factors)
    sides = [[index for index in own if index.side == side] for side in "xyr"]
    terms = {**draw(_side(sides[0], coefficients)), **draw(_side(sides[1], coefficients))}
    sizes = st.sampled_from([Term(Fraction(1, 4)), Term(Fraction(1, 3))])
    if coefficients:
        sizes = st.one_of(sizes, st.sampled_from([Term(Fraction(0), Fraction(2)), Term(Fraction(1), Fraction(1, 4))]))
    for index in draw(st.lists(st.sampled_from(sides[2]), max_size=2, unique=True)) if sides[2] else []:
        terms[index.name] = draw(sizes)
    terms = {name: term for name, term in terms.items() if not term.is_absent}
    joined = {number for name in terms for number in Index.parse(name).factors}
    if num_factors > 1 and len(joined) < num_factors:
        terms["r" + "".join(map(str, range(1, num_factors + 1)))] = draw(sizes)
    return Theta.of(terms)


@st.composite
def _side(draw: st.DrawFn, own: Sequence[Index], coefficients: bool) -> dict[str, Term]:
    """Up to four indices whose exponents sum to one and whose coefficients multiply to one."""
    chosen = draw(st.lists(st.sampled_from(own), min_size=1, max_size=min(4, len(own)), unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, 12), min_size=len(chosen) - 1, max_size=len(chosen) - 1)))
    parts = [Fraction(high - low, 12) for low, high in zip([0, *cuts], [*cuts, 12], strict=True)]
    shares = [Fraction(1)] * len(chosen)
    if coefficients and len(chosen) > 1:
        shares[0] = draw(st.sampled_from([Fraction(1), *COEFFICIENTS]))
        shares[-1] = 1 / shares[0]
    return {index.name: Term(part, share) for index, part, share in zip(chosen, parts, shares, strict=True)}
