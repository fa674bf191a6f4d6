"""How do factors that no closed form gives come nearer to a matrix? One after another, each the best beside the others.

With all factors but one fixed the map is linear in that one, so the best is a linear least-squares problem: a small one
for every value of the indices that it shares with the others. The error never grows; where it ends may be a local
minimum. Under a metric C of the input, or where entries are free, the problems are one, and conjugate gradients go some
steps towards its solution, which lessens the error too. Source: alternating least squares, Kolda and Bader 2009,
section 3.4, for any theta; derived here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from structlin.convert.network import Axes, Factors, Network, contract
from structlin.structure.index import Index

MOST_SWEEPS = 300
LEAST_GAIN = 1e-7
"""An alternation ends where a sweep lessens the squared error by a smaller part of it."""
MET = 1e-26
"""Squared errors below this part of the matrix's square are rounding."""
_MOST_DESIGN = 2**22
"""Elements up to which a design matrix is written out; larger problems go by their normal equations, less exactly."""
_STEPS = 8
"""Of conjugate gradients for one factor."""


def alternate(
    network: Network, weight: Tensor, start: Factors, most_sweeps: int = MOST_SWEEPS, least_gain: float = LEAST_GAIN
) -> tuple[Factors, float]:
    """Factors no farther from a matrix (d_out, d_in) than ``start``, and their squared error (Frobenius).

    The error is that of the zero-padded, cut matrix which the factors use.
    """
    target, factors = network.tensor(weight), list(start)
    whole, error = float(target.square().sum()), _distance(network, target, start)
    for _ in range(most_sweeps):
        before = error
        for place in range(network.count):
            found = _best(network, target, factors, place)
            tried = (*factors[:place], found, *factors[place + 1 :])
            distance = _distance(network, target, tried)
            if distance <= error:  # false for NaN, and for what rounding makes worse
                factors[place], error = found, distance
        if error <= MET * whole or before - error <= least_gain * before:
            break
    return tuple(factors), error


def _distance(network: Network, target: Tensor, factors: Factors) -> float:
    return float((target - network.product(factors)).square().sum())


def _best(network: Network, target: Tensor, factors: list[Tensor], place: int) -> Tensor:
    """The best of one factor beside the others."""
    found: Tensor
    own = network.axes[place]
    others = [(factors[at], axes) for at, axes in enumerate(network.axes) if at != place]
    beside = {index for _, axes in others for index in axes}
    ranks = tuple(index for index in own if index.side == "r")
    shared = tuple(index for index in own if index.side != "r" and index in beside)
    private = tuple(index for index in own if index.side != "r" and index not in beside)
    away = tuple(index for index in network.matrix_axes if index not in own)
    batch, width = math.prod(network.size(shared)), math.prod(network.size(ranks))
    if batch * math.prod(network.size(away)) * width <= _MOST_DESIGN:
        design = contract(others, (*shared, *away, *ranks)).reshape(batch, -1, width)
        wanted = target.permute([network.matrix_axes.index(index) for index in (*shared, *away, *private)])
        # gelsd: of all best ones the smallest, where the others leave some directions without a say.
        found = torch.linalg.lstsq(design, wanted.reshape(batch, design.shape[1], -1), driver="gelsd").solution
    else:
        gram = _gram(network, others, shared, ranks).reshape(batch, width, width)
        wanted = contract([(target, network.matrix_axes), *others], (*shared, *ranks, *private))
        found = torch.linalg.pinv(gram, rtol=1e-13, hermitian=True) @ wanted.reshape(batch, width, -1)
    lengths = network.size((*shared, *ranks, *private))
    order = [(*shared, *ranks, *private).index(index) for index in own]
    return found.reshape(lengths).permute(order)


def _gram(network: Network, others: list[tuple[Tensor, Axes]], shared: Axes, ranks: Axes) -> Tensor:
    """What the others' product times itself is, for every value of the shared axes: (shared, ranks, ranks again)."""
    # The copy's ranks are other axes: named after the factors that they join, of a side of their own.
    copies = {index: Index("s", index.factors) for _, axes in others for index in axes if index.side == "r"}
    parts = []
    for tensor, axes in others:
        parts += [(tensor, axes), (tensor, tuple(copies.get(index, index) for index in axes))]
    return contract(parts, (*shared, *ranks, *(copies[index] for index in ranks)))


def descend(
    network: Network,
    weight: Tensor,
    start: Factors,
    metric: Tensor | None = None,
    most_sweeps: int = 50,
    least_gain: float = LEAST_GAIN,
) -> tuple[Factors, list[float]]:
    """Factors no farther from a matrix than ``start`` in a metric, and the squared error before and after each sweep.

    ``metric`` C (d_in, d_in): the error is trace((W - W') C (W - W')^T), over the d_out rows that anybody reads; none:
    Frobenius. Entries that are cut or appended take no part.
    """
    far = _Distance(network, weight, metric)
    factors, errors = list(start), [far.of(start)]
    for _ in range(most_sweeps):
        for place in range(network.count):
            found = _descended(network, far, factors, place)
            if far.of((*factors[:place], found, *factors[place + 1 :])) <= far.of(tuple(factors)):
                factors[place] = found
        errors.append(far.of(tuple(factors)))
        if errors[-2] - errors[-1] <= least_gain * errors[-2] or errors[-1] <= MET * far.whole:
            break
    return tuple(factors), errors


class _Distance:
    """The squared error of factors in a metric, and its gradient by a tensor of the matrix."""

    def __init__(self, network: Network, weight: Tensor, metric: Tensor | None) -> None:
        self._network, self._weight, self._metric = network, weight, metric
        self.whole = self._square(weight)

    def of(self, factors: Factors) -> float:
        """The squared error."""
        return self._square(self._weight - self._network.matrix(self._network.product(factors)))

    def rest(self, factors: Factors) -> Tensor:
        """(W - W') C along the axes of the matrix: minus half the gradient."""
        return self.through(self._weight - self._network.matrix(self._network.product(factors)))

    def through(self, weight: Tensor) -> Tensor:
        """A matrix (d_out, d_in) times C along the axes of the factors' matrix."""
        return self._network.tensor(weight if self._metric is None else weight @ self._metric)

    def _square(self, weight: Tensor) -> float:
        through = weight if self._metric is None else weight @ self._metric
        return float((through * weight).sum())


def _descended(network: Network, far: _Distance, factors: list[Tensor], place: int) -> Tensor:
    """One factor after some conjugate gradients towards the best beside the others."""
    own = network.axes[place]
    others = [(factors[at], axes) for at, axes in enumerate(network.axes) if at != place]

    def back(tensor: Tensor) -> Tensor:
        return contract([(tensor, network.matrix_axes), *others], own)

    def curvature(direction: Tensor) -> Tensor:
        moved = network.product((*factors[:place], direction, *factors[place + 1 :]))
        return back(far.through(network.matrix(moved)))

    found = factors[place]
    residual = back(far.rest(tuple(factors)))
    direction, square = residual, float(residual.square().sum())
    for _ in range(min(_STEPS, found.numel())):
        curved = curvature(direction)
        bend = float((direction * curved).sum())
        if not bend > 0:
            break
        found = found + (square / bend) * direction
        residual = residual - (square / bend) * curved
        new = float(residual.square().sum())
        direction, square = residual + (new / square) * direction, new
        if not square > 0:
            break
    return found
