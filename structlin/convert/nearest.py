"""Which map of a structure is nearest to a matrix, in Frobenius norm? By a closed form where one is known.

    a dense layer                          the matrix
    ranks join the factors as a tree       truncated SVDs one after another (tree.py): two factors, BTT, MPO, ..
    other thetas, such as BLAST            starts by the same SVDs and by joint diagonalisation (slices.py), each made
                                           better by alternating least squares (alternation.py); the best is taken

The first two meet a map of the structure exactly. Of two factors the second is the nearest there is; of more its error
is at most sqrt(factors - 1) times that of the nearest. Where entries are free (rounding=paper appends features) what
the closed form gives for zeros there is made better without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from structlin.convert import alternation, slices, tree
from structlin.convert.network import Factors, Network, share_norms
from structlin.structure import LinearPlan

_LARGE = 2**17
"""Elements of a matrix above which one start has to do."""
_DRAWS = 4


@dataclass(frozen=True)
class Nearest:
    """The factors of a structure for a matrix."""

    factors: tuple[Tensor, ...]
    """As the plan's equation names them (``Linear.take_factors``)."""
    matrix: Tensor
    """Their map W' (d_out, d_in)."""
    error: float
    """|W - W'|^2, or its square in the metric that was asked for."""


def nearest(plan: LinearPlan, weight: Tensor) -> Nearest:
    """The map of a plan that is nearest to a matrix (d_out, d_in) of float64. ValueError for another shape."""
    _check_shape(plan, weight)
    network = Network(plan)
    if plan.dense:
        return Nearest((weight.clone(),), weight.clone(), 0.0)
    if tree.leaves(network) is not None:
        factors, _ = tree.split(network, weight)
    else:
        factors = _iterated(network, weight)
    if frees_entries(network):
        factors, _ = alternation.descend(network, weight, factors)
    return found_by(network, share_norms(factors), weight)


def found_by(network: Network, factors: Factors, weight: Tensor, metric: Tensor | None = None) -> Nearest:
    """Factors with their map and its squared error, in a metric (d_in, d_in) where there is one."""
    matrix = network.matrix(network.product(factors))
    rest = weight - matrix
    error = float(((rest if metric is None else rest @ metric) * rest).sum())
    return Nearest(network.equation(factors), matrix, max(0.0, error))


def frees_entries(network: Network) -> bool:
    """Whether entries that nobody reads could help those that are read.

    Not where they are whole rows and columns of the matrices of a block tensor train: zeros there cost no rank.
    """
    sizes = network.plan.sizes
    whole = sizes.num_factors == 2 and sizes.b == sizes.d == 1
    return (network.has_free_rows or network.has_free_columns) and not whole


def _iterated(network: Network, weight: Tensor) -> Factors:
    """The best of several starts; of a large matrix, where a sweep costs, of the first alone."""
    best, least = None, float("inf")
    for start in _starts(network, weight):
        found, error = alternation.alternate(network, weight, start)
        if error < least:
            best, least = found, error
        if least <= alternation.MET * float(weight.square().sum()) or weight.numel() > _LARGE:
            break
    assert best is not None
    return best


def _starts(network: Network, weight: Tensor) -> Iterator[Factors]:
    """Where to begin: joint diagonalisation, truncated SVDs from either end, and draws of a fixed seed."""
    diagonalised = slices.diagonalised(network, weight)
    if diagonalised is not None:
        yield diagonalised
    order = tuple(range(1, network.count + 1))
    yield tree.split_along(network, weight, order)[0]
    yield tree.split_along(network, weight, order[::-1])[0]
    for seed in range(_DRAWS):
        generator = torch.Generator().manual_seed(seed)
        yield tuple(torch.randn(network.size(axes), generator=generator, dtype=weight.dtype) for axes in network.axes)


def _check_shape(plan: LinearPlan, weight: Tensor) -> None:
    wanted = plan.sizes.d_out, plan.sizes.d_in
    if tuple(weight.shape) != wanted:
        raise ValueError(f"a matrix {tuple(weight.shape)} is none of a layer (d_out, d_in) = {wanted}")
    if weight.dtype != torch.float64:
        raise ValueError(f"a matrix of {weight.dtype}: convert it to float64 first, in which factors are found")
