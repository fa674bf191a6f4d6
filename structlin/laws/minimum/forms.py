"""What shape can a law have? A constant and a sum of power laws, in coordinates in which its minimum can be found.

    AnchoredSum    f_i = m + sum_k drop_k shape(bend_k, u_ki)
    SumOfPowers    f_i = e_i . theta + sum_m exp(phi_mi . theta)
    PoweredSum     f_i = e_i . theta + (sum_m exp(phi_mi . theta))^g, g the last parameter

With theta = (E, log A, log B, alpha, beta) and features (1, -log N), (1, -log D) the second is E + A/N^alpha +
B/D^beta; with other features its terms are shared between structures. In these coordinates the minimum lies in a
bent, nearly flat valley whenever an exponent is small or large: E, A and alpha trade off. ``AnchoredSum`` is the
same law by what the data do determine: m is the loss at the far end of all axes, drop_k the loss lost along axis k,
and bend_k = alpha_k * (range of axis k) how curved the way there is:

    shape(k, u) = (e^(-k u) - e^-k) / (1 - e^-k),   u in [0, 1] along the axis:  1 at u = 0, 0 at u = 1.

Rows are shared by a batch of parameter vectors, so thousands of bootstrap refits are a few matrix products.

Shapes: n rows, p parameters, b parameter vectors; features (n, p), theta (b, p), predictions (b, n).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from structlin.laws.minimum.objective import Array


@dataclass(frozen=True)
class Evaluation:
    """A model at b parameter vectors, with what its derivatives need."""

    predicted: Array
    """f, (b, n)."""
    jacobian: Array
    """df/dtheta, (b, p, n): rows run fastest, so a column of it is one block of memory."""
    terms: tuple[Array, ...]
    """Each exponential term, (b, n)."""
    theta: Array
    """The parameters, (b, p)."""


class Model(Protocol):
    """A family of curves with first and second derivatives."""

    @property
    def lower(self) -> Array:
        """Lower bounds of theta, (p,)."""
        ...

    @property
    def upper(self) -> Array:
        """Upper bounds of theta, (p,)."""
        ...

    def predict(self, theta: Array) -> Array:
        """f at theta: (b, p) -> (b, n)."""
        ...

    def evaluate(self, theta: Array) -> Evaluation:
        """f and its Jacobian at theta (b, p)."""
        ...

    def curvature(self, at: Evaluation, weights: Array) -> Array:
        """sum_i weights_i * second derivative of f_i: (b, n) -> (b, p, p)."""
        ...


@dataclass(frozen=True)
class AnchoredSum:
    """f = m + sum_k drop_k shape(bend_k, u_k) with theta = (m, drop_1.., bend_1..)."""

    axes: tuple[Array, ...]
    """u_k in [0, 1], each (n,)."""
    lower: Array
    """Lower bounds of theta, (p,)."""
    upper: Array
    """Upper bounds of theta, (p,)."""

    def predict(self, theta: Array) -> Array:
        """f at theta: (b, p) -> (b, n)."""
        count = len(self.axes)
        total = np.repeat(theta[:, :1], len(self.axes[0]), axis=1)
        for k, u in enumerate(self.axes):
            bend = theta[:, 1 + count + k, None]
            end = np.exp(-bend)
            total += theta[:, 1 + k, None] / (1.0 - end) * (np.exp(-bend * u) - end)
        return total

    def evaluate(self, theta: Array) -> Evaluation:
        """f and its Jacobian at theta (b, p); terms are the second derivatives of the shapes."""
        count, n = len(self.axes), len(self.axes[0])
        jacobian = np.ones((len(theta), 1 + 2 * count, n))
        total = np.repeat(theta[:, :1], n, axis=1)
        terms = []
        for k, u in enumerate(self.axes):
            drop, bend = theta[:, 1 + k, None], theta[:, 1 + count + k, None]
            end = np.exp(-bend)
            here, span = np.exp(-bend * u), 1.0 - end
            # shape * span = here - end, differentiated once and twice in the bend, where span' = end.
            shape = (here - end) / span
            first = (end - u * here - shape * end) / span
            second = (u * u * here - end - 2.0 * first * end + shape * end) / span
            total += drop * shape
            jacobian[:, 1 + k] = shape
            jacobian[:, 1 + count + k] = drop * first
            # f is linear in the drop: the mixed derivative is ``first`` alone.
            terms += [first, drop * second]
        return Evaluation(total, jacobian, tuple(terms), theta)

    def curvature(self, at: Evaluation, weights: Array) -> Array:
        """Only a drop with its own bend, and a bend with itself, have second derivatives: (b, p, p)."""
        count = len(self.axes)
        b, p = at.theta.shape
        total = np.zeros((b, p, p))
        for k in range(count):
            mixed = np.einsum("bn,bn->b", weights, at.terms[2 * k])
            total[:, 1 + k, 1 + count + k] = total[:, 1 + count + k, 1 + k] = mixed
            total[:, 1 + count + k, 1 + count + k] = np.einsum("bn,bn->b", weights, at.terms[2 * k + 1])
        return total


def _outer_features(features: Array) -> Array:
    """phi phi^T of each row, flattened: (n, p) -> (n, p * p)."""
    n, p = features.shape
    return (features[:, :, None] * features[:, None, :]).reshape(n, p * p)


@dataclass(frozen=True)
class SumOfPowers:
    """f = e . theta + sum_m exp(phi_m . theta)."""

    constant: Array
    """e, (n, p)."""
    powers: tuple[Array, ...]
    """phi_m, each (n, p)."""
    lower: Array
    """Lower bounds of theta, (p,)."""
    upper: Array
    """Upper bounds of theta, (p,)."""

    def predict(self, theta: Array) -> Array:
        """f at theta: (b, p) -> (b, n)."""
        total = theta @ self.constant.T
        for phi in self.powers:
            total += np.exp(np.clip(theta @ phi.T, -700.0, 700.0))
        return total

    def evaluate(self, theta: Array) -> Evaluation:
        """f and its Jacobian at theta (b, p)."""
        total = theta @ self.constant.T
        jacobian = np.repeat(self.constant.T[None], len(theta), axis=0)
        terms = []
        for phi in self.powers:
            term = np.exp(np.clip(theta @ phi.T, -700.0, 700.0))
            terms.append(term)
            total += term
            jacobian += term[:, None, :] * phi.T
        return Evaluation(total, jacobian, tuple(terms), theta)

    def curvature(self, at: Evaluation, weights: Array) -> Array:
        """sum_i w_i sum_m t_mi phi_mi phi_mi^T: (b, p, p)."""
        b, p = at.theta.shape
        total = np.zeros((b, p * p))
        for term, phi in zip(at.terms, self.powers, strict=True):
            if b < 4:  # one product per problem: the outer products of wide features would fill the memory
                total += np.stack([((phi.T * row) @ phi).ravel() for row in weights * term])
            else:
                total += (weights * term) @ _outer_features(phi)
        return total.reshape(b, p, p)


@dataclass(frozen=True)
class PoweredSum:
    """f = e . theta + (sum_m exp(phi_m . theta))^g with g the last parameter; its feature columns are zero."""

    constant: Array
    """e, (n, p)."""
    powers: tuple[Array, ...]
    """phi_m, each (n, p), last column zero."""
    lower: Array
    """Lower bounds of theta, (p,)."""
    upper: Array
    """Upper bounds of theta, (p,)."""

    def predict(self, theta: Array) -> Array:
        """f at theta: (b, p) -> (b, n)."""
        logs = np.stack([np.clip(theta @ phi.T, -300.0, 300.0) for phi in self.powers])
        inner = np.logaddexp.reduce(logs, axis=0)
        powered: Array = theta @ self.constant.T + np.exp(np.clip(theta[:, -1:] * inner, -700.0, 700.0))
        return powered

    def evaluate(self, theta: Array) -> Evaluation:
        """f and its Jacobian at theta (b, p)."""
        logs = np.stack([np.clip(theta @ phi.T, -300.0, 300.0) for phi in self.powers])
        # The logarithm of the inner sum: the outer exponent then multiplies, and the sum itself cannot overflow.
        inner = np.logaddexp.reduce(logs, axis=0)
        shares = np.exp(logs - inner)
        g = theta[:, -1:]
        powered = np.exp(np.clip(g * inner, -700.0, 700.0))
        # The shares of the terms are the derivatives of that logarithm in each of theirs.
        slope = sum(share[:, None, :] * phi.T for share, phi in zip(shares, self.powers, strict=True))
        inside = g[:, :, None] * slope
        # d(g u) / dg = u; the features of g are zero, so nothing else stands in this row.
        inside[:, -1] = inner
        jacobian = self.constant.T + powered[:, None, :] * inside
        return Evaluation(theta @ self.constant.T + powered, jacobian, (powered, inner, *shares), theta)

    def curvature(self, at: Evaluation, weights: Array) -> Array:
        """sum_i w_i v_i (s s^T + g Hess u), s the logarithmic gradient of v = exp(g u): (b, p, p)."""
        powered, inner, *shares = at.terms
        b, p = at.theta.shape
        g = at.theta[:, -1:]
        c = weights * powered
        slope = sum(share[:, None, :] * phi.T for share, phi in zip(shares, self.powers, strict=True))
        inside = g[:, :, None] * slope
        inside[:, -1] = inner
        total = (inside * c[:, None, :]) @ np.swapaxes(inside, 1, 2)
        total -= (slope * (c * g)[:, None, :]) @ np.swapaxes(slope, 1, 2)
        for share, phi in zip(shares, self.powers, strict=True):
            total += ((c * g * share) @ _outer_features(phi)).reshape(b, p, p)
        cross = (slope @ c[:, :, None])[:, :, 0]
        total[:, -1, :] += cross
        total[:, :, -1] += cross
        return total
