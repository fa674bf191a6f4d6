"""Which three factors with one rank over all of them give a matrix? By joint diagonalisation of its slices.

    W[a, j, m, i, e] = sum over r of P[a, j, r] Q[j, m, i, r] S[e, i, r]        for every value of an index of P and S

For BLAST j and i count blocks and m is absent. Where r is no larger than a and e, the blocks W_ji have common column
and row spaces, in which K_ji = A_j diag(q_ji) B_i^T, so that K_ji K_li^-1 K_lk K_jk^-1 has the columns of A_j as its
eigenvectors: of an exact map the factors follow, but for their scale. Of another matrix this is a start for an
iteration. Source: Jennrich's algorithm (Harshman 1970; Leurgans et al. 1993), for shared indices derived here.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from structlin.convert.network import Axes, Factors, Network
from structlin.structure.index import Index


def diagonalised(network: Network, weight: Tensor) -> Factors | None:
    """Three factors of a matrix (d_out, d_in); None where they are not of this kind, or no slice has an inverse."""
    rank = Index.parse("r123")
    if network.count != 3 or network.ranks != (rank,):
        return None
    for outer in itertools.combinations((1, 2, 3), 2):
        found = _of_ends(network, weight, *outer)
        if found is not None:
            return found
    return None


def _of_ends(network: Network, weight: Tensor, first: int, last: int) -> Factors | None:
    """The same with these two factors as P and S, which have no index in common but the rank."""
    middle = ({1, 2, 3} - {first, last}).pop()
    parts = [_axes(network, *numbers) for numbers in ((first,), (first, middle), (middle,), (middle, last), (last,))]
    axes = tuple(index for part in parts for index in part)
    rank = network.plan.sizes["r123"]
    if set(axes) != set(network.matrix_axes):
        return None
    a, j, m, i, e = (math.prod(network.size(part)) for part in parts)
    if rank > min(a, e) or (j * m < 2 and i * m < 2):
        return None
    W = network.tensor(weight).permute([network.matrix_axes.index(index) for index in axes]).reshape(a, j, m, i, e)
    found = _solved(W, rank)
    if found is None:
        return None
    of_P, of_Q, of_S = found
    lengths = [network.size(part) for part in parts]
    named = {
        first: (of_P.reshape(*lengths[0], *lengths[1], rank), (*parts[0], *parts[1])),
        middle: (of_Q.reshape(*lengths[1], *lengths[2], *lengths[3], rank), (*parts[1], *parts[2], *parts[3])),
        last: (of_S.reshape(*lengths[4], *lengths[3], rank), (*parts[4], *parts[3])),
    }
    return tuple(_ordered(network, number, *named[number]) for number in (1, 2, 3))


def _axes(network: Network, *numbers: int) -> Axes:
    """The axes of the matrix that join just these factors."""
    return tuple(index for index in network.matrix_axes if index.factors == tuple(sorted(numbers)))


def _ordered(network: Network, number: int, tensor: Tensor, axes: Axes) -> Tensor:
    named = (*axes, Index.parse("r123"))
    return tensor.permute([named.index(index) for index in network.axes[number - 1]])


def _solved(W: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """P (a, j, r), Q (j, m, i, r) and S (e, i, r) of W (a, j, m, i, e)."""
    a, j, _, i, e = W.shape
    columns = torch.linalg.svd(W.permute(1, 0, 2, 3, 4).reshape(j, a, -1), full_matrices=False)[0][..., :rank]
    rows = torch.linalg.svd(W.permute(3, 4, 0, 1, 2).reshape(i, e, -1), full_matrices=False)[0][..., :rank]
    if columns.shape[-1] < rank or rows.shape[-1] < rank:
        return None
    K = torch.einsum("jar,ajmie,ies->jmirs", columns, W, rows)
    try:
        A0 = _eigenvectors(K)
        if A0 is None:
            return None
        # K_0mi = A_0 diag(q) B_i^T: the rows of A_0^-1 K_0i are those of B_i^T but for their scales.
        B = torch.linalg.solve(A0, _summed(K[0])).mT
        B = B / B.norm(dim=1, keepdim=True)
        # And then the columns of K_j0 B_0^-T those of A_j.
        A = torch.linalg.solve(B[0], _summed(K.transpose(0, 2)[0].transpose(0, 1)).mT).mT
        A = A / A.norm(dim=1, keepdim=True)
        Q = torch.linalg.solve(A[:, None, None], torch.linalg.solve(B[None, None], K.mT).mT)
    except RuntimeError:  # torch's LinAlgError: a matrix without an inverse
        return None
    P, S = torch.einsum("jar,jrs->ajs", columns, A), torch.einsum("ier,irs->eis", rows, B)
    found = P, torch.diagonal(Q, dim1=-2, dim2=-1), S
    return found if all(bool(torch.isfinite(one).all()) for one in found) else None


def _summed(K: Tensor) -> Tensor:
    """A mixture of the slices along the first axis, which has no slice's own zeros: (m, ..., r, r) -> (..., r, r)."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.randn(K.shape[0], generator=generator, dtype=torch.float64).to(K)
    found: Tensor = torch.tensordot(shares, K, 1)
    return found


def _eigenvectors(K: Tensor) -> Tensor | None:
    """A_0 (r, r) but for the scales of its columns, of slices K (j, m, i, r, r); None where they are not real."""
    j, m, i = K.shape[:3]
    if m > 1:
        one, other = _summed(K[0, :, 0]), _summed(K[0, :, 0].flip(0))
        product = one @ torch.linalg.inv(other)
    elif j > 1 and i > 1:
        K = K[:, 0]
        inverse = torch.linalg.inv(K[1, 0])
        product = K[0, 0] @ inverse @ K[1, 1] @ torch.linalg.inv(K[0, 1])
    else:
        return None
    values, vectors = torch.linalg.eig(product)
    if float(values.imag.abs().max()) > 1e-6 * float(values.abs().max()):
        # Not the map of such factors: the nearest real start.
        vectors = vectors.real + vectors.imag
        return vectors if float(torch.linalg.cond(vectors)) < 1e8 else None
    real: Tensor = vectors.real
    return real
