"""Assignments sorted by expert: all of them, in order, and under a capacity the earliest."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from structlin.kernels.experts.choice import Choice
from structlin.kernels.experts.routes import Routes, sort_by_expert


def some_choice(tokens: int, experts: int, top_k: int, seed: int = 0) -> Choice:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(tokens, experts, generator=generator).topk(top_k).indices
    weights = torch.rand(tokens, top_k, generator=generator, dtype=torch.float64)
    return chosen_with(chosen, weights, experts)


def chosen_with(chosen: Tensor, weights: Tensor, experts: int) -> Choice:
    return replace(Choice.of(chosen, torch.zeros(len(chosen), experts)), weight_TK=weights)


def rows_of(routes: Routes) -> list[list[tuple[int, float]]]:
    """Token and weight of every row of each expert."""
    ends = routes.ends_E.tolist()
    pairs = list(zip(routes.token_N.tolist(), routes.weight_N.tolist(), strict=True))
    return [pairs[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5), st.data())
def test_every_expert_gets_its_tokens_in_their_order(tokens: int, experts: int, seed: int, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, experts))
    choice_of = some_choice(tokens, experts, top_k, seed)
    chosen, weights = choice_of.chosen_TK, choice_of.weight_TK
    wanted: list[list[tuple[int, float]]] = [[] for _ in range(experts)]
    for token in range(tokens):
        for choice in range(top_k):
            wanted[int(chosen[token, choice])].append((token, float(weights[token, choice])))
    routes = sort_by_expert(choice_of)
    assert rows_of(routes) == wanted
    assert not routes.drops
    assert bool(routes.kept_N().all())
    slots = routes.slots_TK()
    assert torch.equal(routes.weight_N[slots], weights)


@pytest.mark.parametrize("capacity", [1.0, 1.25, 2.0])
def test_a_capacity_keeps_the_earliest_and_moves_the_rest_to_the_end(capacity: float) -> None:
    tokens, experts, top_k = 30, 4, 2
    chosen = some_choice(tokens, experts, top_k, seed=3).chosen_TK
    chosen[::2, 0] = 1
    chosen[::2, 1] = 2
    weights = torch.rand(tokens, top_k, dtype=torch.float64)
    choice = chosen_with(chosen, weights, experts)
    free, bound = (sort_by_expert(choice, c) for c in (0.0, capacity))
    most = math.ceil(capacity * tokens * top_k / experts)
    assert rows_of(bound) == [rows[:most] for rows in rows_of(free)]
    lost = sum(max(0, len(rows) - most) for rows in rows_of(free))
    assert int((~bound.kept_N()).sum()) == lost
    assert lost > 0 or capacity == 2.0
    assert sorted(bound.order_N.tolist()) == list(range(tokens * top_k))


def test_weights_keep_their_gradient() -> None:
    choice = some_choice(7, 3, 2)
    weights = choice.weight_TK.requires_grad_()
    routes = sort_by_expert(choice)
    scale = torch.arange(14, dtype=torch.float64)
    (routes.weight_N * scale).sum().backward()
    assert torch.equal(weights.grad, scale[routes.slots_TK()])
