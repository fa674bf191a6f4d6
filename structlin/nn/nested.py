"""Which leading part of its ranks does a layer compute with? Said to all layers of a model at once.

The first k of r ranks are the first k slices of both factors along the index that they share; nothing is scaled for
what is left out. Source: Maestro (arXiv 2308.14929), for any two factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

from torch import nn

from structlin.nn.linear import EinsumLinear


def layers(model: nn.Module) -> Iterator[tuple[str, EinsumLinear]]:
    """The layers of two factors by their names."""
    for name, module in model.named_modules():
        if isinstance(module, EinsumLinear):
            yield name, module


def take_shares(model: nn.Module, shares: Mapping[str, Fraction]) -> None:
    """Let every layer compute with the share of its rank that stands at its name."""
    for name, layer in layers(model):
        layer.take_ranks(shares[name])


def take_share(model: nn.Module, share: Fraction) -> None:
    """Let all layers compute with one share of their ranks. ValueError where that is no whole number of a layer's."""
    for _, layer in layers(model):
        layer.take_ranks(share)
