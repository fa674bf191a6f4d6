"""Which rank does every linear of a model get, of so many parameters in all? By its singular values.

A map of rank k takes k (N + M) parameters in place of N M, so a rank pays below N M / (N + M); a linear whose share is
no smaller stays dense.

    lagrange   triple i of linear l is kept where sigma_li^2 / (N_l + M_l) > lambda: per parameter it takes away most of
               the summed squared error; lambda by bisection to the wanted parameters (derived here)
    welore     singular values scaled to [0, 1] within each matrix, (s - min) / (max - min), and those above one
               threshold for all are kept; the threshold by bisection (arXiv 2407.11239, whose own are tables)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from structlin.errors import UserError, suggest

Ranks = dict[str, int | None]
"""Linear -> its rank, None where it stays dense."""


@dataclass(frozen=True)
class Spectrum:
    """A linear as the rules see it."""

    d_in: int
    d_out: int
    values: Tensor
    """Singular values, falling: of W, or of W L under a moment of the inputs."""

    @property
    def triple(self) -> int:
        """Parameters of one singular triple."""
        return self.d_in + self.d_out

    @property
    def dense(self) -> int:
        """Parameters of the matrix."""
        return self.d_in * self.d_out

    def params(self, rank: int | None) -> int:
        """Parameters at a rank."""
        return self.dense if rank is None else rank * self.triple

    def squared_error(self, rank: int | None) -> float:
        """What truncation at a rank leaves."""
        return 0.0 if rank is None else float(self.values[rank:].square().sum())

    def rank_above(self, scores: Tensor, threshold: float) -> int | None:
        """How many falling scores lie above a threshold, at least one; None where dense takes no more parameters."""
        rank = max(1, int((scores > threshold).sum()))
        return None if self.params(rank) >= self.dense else rank


def _gain_per_parameter(one: Spectrum) -> Tensor:
    return one.values.square() / one.triple


def _scaled(one: Spectrum) -> Tensor:
    least, most = one.values[-1], one.values[0]
    return (one.values - least) / (most - least) if most > least else torch.ones_like(one.values)


RULES: dict[str, Callable[[Spectrum], Tensor]] = {"lagrange": _gain_per_parameter, "welore": _scaled}
"""Rule -> the falling score of each singular triple, to be held against one threshold for all linears."""


def spectrum(weight: Tensor, root: Tensor | None = None) -> Spectrum:
    """The spectrum of a matrix (d_out, d_in); ``root`` L (d_in, d_in): of W L, whose input has the moment L L^T."""
    d_out, d_in = weight.shape
    return Spectrum(d_in, d_out, torch.linalg.svdvals(weight if root is None else weight @ root))


def ranks_by(rule: str, spectra: Mapping[str, Spectrum], share: float) -> Ranks:
    """Ranks that take at most ``share`` of the parameters of all matrices, as near to it as one threshold comes.

    UserError for an unknown rule, and for a share outside (0, 1] or below what rank 1 everywhere takes.
    """
    if rule not in RULES:
        raise UserError(f"rule={rule} is unknown; {suggest(rule, RULES)}")
    whole = sum(one.dense for one in spectra.values())
    least = sum(min(one.triple, one.dense) for one in spectra.values())
    if not 0 < share <= 1 or share * whole < least:
        raise UserError(
            f"params={share:g} of {whole:,} parameters cannot be met: rank 1 everywhere takes {least / whole:.3g} of "
            "them; write a share between that and 1"
        )
    scores = {name: RULES[rule](one) for name, one in spectra.items()}

    def found(threshold: float) -> Ranks:
        return {name: one.rank_above(scores[name], threshold) for name, one in spectra.items()}

    # Only the scores themselves change anything: bisection over them in order ends exactly.
    steps = torch.cat([torch.tensor([-1.0]), *(one.to(torch.float64) for one in scores.values())]).unique()
    low, high = 0, len(steps) - 1  # at the last nothing is above it
    while low < high:
        middle = (low + high) // 2
        if params_of(spectra, found(float(steps[middle]))) <= share * whole:
            high = middle
        else:
            low = middle + 1
    return found(float(steps[high]))


def uniform(spectra: Mapping[str, Spectrum], share: float) -> Ranks:
    """The same share of every matrix: k = share N M / (N + M), rounded down and at least 1."""
    ranks = {name: max(1, int(share * one.dense / one.triple)) for name, one in spectra.items()}
    return {name: None if spectra[name].params(rank) >= spectra[name].dense else rank for name, rank in ranks.items()}


def params_of(spectra: Mapping[str, Spectrum], ranks: Mapping[str, int | None]) -> int:
    """Parameters of all linears at some ranks."""
    return sum(one.params(ranks[name]) for name, one in spectra.items())


def squared_error_of(spectra: Mapping[str, Spectrum], ranks: Mapping[str, int | None]) -> float:
    """The summed squared error."""
    return sum(one.squared_error(ranks[name]) for name, one in spectra.items())
