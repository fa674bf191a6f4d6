"""Which map of a structure is nearest to a matrix on the inputs that it really meets?

With C the mean of x x^T over calibration rows the squared error is trace((W - W') C (W - W')^T), which is the mean of
|W x - W' x|^2. C = L L^T, and singular values are those of W L, which are W X's.

    low rank                W' = U_k U_k^T W with U of W L: the error is the dropped tail of W X
    block tensor trains     one block g of the input after another (Gauss-Seidel). With the others fixed the target is
    (b = d = 1)             W_g + sum over h != g of (W_h - W'_h) C_hg C_gg^-1, and each block (g, f) of it is truncated
                            as low rank is, under C_gg: the error never grows
    other thetas            from the nearest by Frobenius, conjugate gradients for one factor after another
                            (alternation.py): the error never grows

Sources: SVD-LLM (arXiv 2403.07378), LoRD (2309.14021) for low rank; the sweeps over blocks derived here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from structlin.convert import alternation, nearest
from structlin.convert.network import Factors, Network, share_norms
from structlin.convert.tree import split
from structlin.nn.linear import fit_features
from structlin.structure import LinearPlan

SWEEPS = 30
LEAST_GAIN = 1e-6
"""Sweeps end where one lessens the squared error by a smaller part of it."""
_LEAST_EIGENVALUE = 1e-13
"""Of the largest: below it a direction of the input counts as never met."""


def nearest_on(
    plan: LinearPlan, weight: Tensor, moment: Tensor, sweeps: int = SWEEPS
) -> tuple[nearest.Nearest, list[float]]:
    """The map of a plan near a matrix (d_out, d_in) under the moment C (d_in, d_in) of its input, both of float64.

    Also the squared errors, first of the nearest by Frobenius and then after each sweep; of low rank and dense layers
    the one error alone. ValueError for other shapes.
    """
    if moment.shape != (plan.sizes.d_in, plan.sizes.d_in):
        raise ValueError(f"a moment {tuple(moment.shape)} is none of an input of {plan.sizes.d_in} features")
    network, s = Network(plan), plan.sizes
    if plan.dense:
        found = nearest.nearest(plan, weight)
        return found, [0.0]
    if s.num_factors == 2 and s.b == s.d == s.g == s.f == 1:
        of_plan = split(network, truncated(weight, moment, s.r))[0]
        found = nearest.found_by(network, of_plan, weight, moment)
        return found, [found.error]
    start = nearest.nearest(plan, weight)
    if s.num_factors == 2 and s.b == s.d == 1 and s.used_in >= s.d_in:
        factors, errors = _by_blocks(network, weight, start.matrix, moment, sweeps)
    else:
        factors, errors = alternation.descend(network, weight, network.present(start.factors), moment, sweeps)
    return nearest.found_by(network, share_norms(factors), weight, moment), errors


def truncated(weight: Tensor, moment: Tensor, rank: int) -> Tensor:
    """The matrix of this rank that is nearest under the moment C; weight (..., d_out, d_in).

    Its squared error is the sum of the squared singular values of W L beyond the rank.
    """
    U = torch.linalg.svd(weight @ root(moment), full_matrices=False)[0][..., :rank]
    found: Tensor = U @ (U.mT @ weight)
    return found


def root(moment: Tensor) -> Tensor:
    """L with L L^T = C, symmetric; C may be singular."""
    values, vectors = torch.linalg.eigh(moment)
    found: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
    return found


def squared_error(weight: Tensor, other: Tensor, moment: Tensor) -> float:
    """trace((W - W') C (W - W')^T)."""
    rest = weight - other
    return float(((rest @ moment) * rest).sum())


def _by_blocks(
    network: Network, weight: Tensor, start: Tensor, moment: Tensor, sweeps: int
) -> tuple[Factors, list[float]]:
    """Gauss-Seidel over the blocks g of the input, for maps x[g, a] -> y[f, e] of blocks of rank r."""
    s = network.plan.sizes
    # Features that are appended to the input are never met, and rows that are cut are read by nobody: zeros are right.
    C = fit_features(fit_features(moment, s.used_in).T, s.used_in)
    whole, found = _rows_by_blocks(network, weight), _rows_by_blocks(network, start)
    roots, inverses = [], []
    for block in _blocks(s.g, s.a):
        own = C[block, block]
        roots.append(root(own))
        inverses.append(torch.linalg.pinv(own, rtol=_LEAST_EIGENVALUE, hermitian=True))
    errors = [squared_error(whole, found, C)]
    for _ in range(sweeps):
        for block, L, inverse in zip(_blocks(s.g, s.a), roots, inverses, strict=True):
            target = found[:, block] + (whole - found) @ C[:, block] @ inverse
            of_f = target.reshape(s.f, s.e, s.a)
            U = torch.linalg.svd(of_f @ L, full_matrices=False)[0][..., : s.r]
            tried = found.clone()
            tried[:, block] = (U @ (U.mT @ of_f)).reshape(s.f * s.e, s.a)
            # What rounding makes worse is left as it was.
            if squared_error(whole, tried, C) <= squared_error(whole, found, C):
                found = tried
        errors.append(squared_error(whole, found, C))
        if errors[-2] - errors[-1] <= LEAST_GAIN * errors[-2]:
            break
    tensor = found.reshape(s.f, s.e, s.used_in)
    if network.plan.output_order == "efd":
        tensor = tensor.transpose(0, 1)
    return split(network, network.matrix(tensor.reshape(s.used_out, s.used_in)))[0], errors


def _rows_by_blocks(network: Network, weight: Tensor) -> Tensor:
    """The used matrix (f e, g a) whatever the order of the output's axes."""
    s = network.plan.sizes
    used = network.tensor(weight).reshape(s.used_out, s.used_in)
    if network.plan.output_order == "efd":
        used = used.reshape(s.e, s.f, s.used_in).transpose(0, 1)
    return used.reshape(s.used_out, s.used_in).clone()


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(number * size, (number + 1) * size) for number in range(count)]
