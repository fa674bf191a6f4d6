"""Which factors are nearest to a matrix where ranks join factors as a tree? One after another by truncated SVDs.

A factor that a rank joins to one other factor alone is a leaf. It is split off: for every value of the indices that it
shares with the others, the matrix (its own indices) x (the rest) is truncated at the rank, left singular vectors are
the factor, and what remains is split on. Of a tensor train or an MPO this is TT-SVD; of two factors the closed form of
``EinsumLinear.from_dense``. The left factors are orthonormal, so the squared error is the sum of all dropped squared
singular values, exactly; a map of the structure is met. Sources: Oseledets 2011 (TT-SVD), arXiv 2401.14109; with shared
indices derived here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from structlin.convert.network import Axes, Factors, Network, share_norms
from structlin.structure.index import Index


def leaves(network: Network) -> tuple[int, ...] | None:
    """The factors in an order in which each is a leaf of those that follow; None where ranks are no tree."""
    left, order = set(range(1, network.count + 1)), []
    if any(len(rank.factors) > 2 for rank in network.ranks):
        return None
    while len(left) > 1:
        leaf = next((number for number in sorted(left) if len(_bonds(network, number, left)) < 2), None)
        if leaf is None:
            return None
        order.append(leaf)
        left.remove(leaf)
    return (*order, *left)


def split(network: Network, weight: Tensor) -> tuple[Factors, float]:
    """The factors of a matrix (d_out, d_in), and the squared error: the sum of the dropped squared singular values.

    The error is that of the zero-padded, cut matrix which the factors use. ValueError where ranks are no tree.
    """
    order = leaves(network)
    if order is None:
        raise ValueError(f"the ranks of {network.plan.sizes} join its factors in no tree")
    found, dropped = split_along(network, weight, order)
    return share_norms(found), dropped


def split_along(network: Network, weight: Tensor, order: tuple[int, ...]) -> tuple[Factors, float]:
    """The same along any order of the factors; exact where it is one of leaves, a start for an iteration elsewhere."""
    rest, axes = network.tensor(weight), network.matrix_axes
    left, found, dropped = set(order), {}, 0.0
    for leaf in order[:-1]:
        left.remove(leaf)
        factor, own, rest, axes, tail = _split_off(network, rest, axes, leaf, left)
        found[leaf] = _in_order(factor, own, network.axes[leaf - 1])
        dropped += tail
    found[order[-1]] = _in_order(rest, axes, network.axes[order[-1] - 1])
    return tuple(found[number] for number in sorted(found)), dropped


def _bonds(network: Network, number: int, left: set[int]) -> Axes:
    """The ranks that join a factor to others that are left."""
    return tuple(rank for rank in network.ranks if number in rank and left & set(rank.factors) - {number})


def _split_off(
    network: Network, rest: Tensor, axes: Axes, leaf: int, left: set[int]
) -> tuple[Tensor, Axes, Tensor, Axes, float]:
    """A factor and its axes, what remains and its axes, and the dropped squared singular values."""
    others = {index for number in left for index in network.axes[number - 1]}
    shared = tuple(index for index in axes if leaf in index and index in others)
    own = tuple(index for index in axes if leaf in index and index not in others)
    away = tuple(index for index in axes if leaf not in index)
    bonds = tuple(bond for bond in _bonds(network, leaf, left | {leaf}) if bond not in axes)
    batch, rows, columns = (network.size(part) for part in (shared, own, away))
    matrices = _in_order(rest, axes, (*shared, *own, *away)).reshape(
        math.prod(batch), math.prod(rows), math.prod(columns)
    )
    U, S, V = torch.linalg.svd(matrices, full_matrices=False)
    rank = math.prod(network.size(bonds))
    kept = min(rank, S.shape[-1])
    factor = matrices.new_zeros(*U.shape[:2], rank)
    remains = matrices.new_zeros(V.shape[0], rank, V.shape[2])
    # The last split shares what is left by both, as the closed form of two factors does.
    scale = S[:, :kept].sqrt() if len(left) == 1 else torch.ones_like(S[:, :kept])
    factor[..., :kept] = U[..., :kept] * scale[:, None]
    remains[:, :kept] = V[:, :kept] * (S[:, :kept] / scale.clamp_min(torch.finfo(S.dtype).tiny))[..., None]
    lengths = network.size(bonds)
    return (
        factor.reshape(*batch, *rows, *lengths),
        (*shared, *own, *bonds),
        remains.reshape(*batch, *lengths, *columns),
        (*shared, *bonds, *away),
        float(S[:, kept:].square().sum()),
    )


def _in_order(tensor: Tensor, axes: Axes, wanted: tuple[Index, ...]) -> Tensor:
    return tensor.permute([axes.index(index) for index in wanted])
