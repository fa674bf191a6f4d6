"""The router: ties fall evenly and by the global index, losses have their known values, statistics what they say."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from structlin.kernels.experts.choice import TIE, choose
from structlin.kernels.experts.routes import Routes
from structlin.nn.ranks import Alone, join
from structlin.nn.router import Router, auxiliary_loss, router_record, routers
from structlin.nn.spec import collect_specs, initialise

E, K, D = 8, 2, 12


def make_router(num_experts: int = E, top_k: int = K, d_in: int = D, **options: object) -> Router:
    return Router(d_in, num_experts, top_k, base_d_in=24, **options)  # type: ignore[arg-type]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(router: Router, seed: int = 1) -> Router:
    """With logits of about unit size instead of the zeros it starts with."""
    router = router.double()
    with torch.no_grad():
        router.weight.copy_(randn(*router.weight.shape, seed=seed))
    return router


# ---- choice ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("experts", "top_k"), [(8, 1), (8, 2), (16, 2), (6, 4), (5, 2), (4, 4), (1, 1)])
def test_ties_fall_evenly_on_all_experts(experts: int, top_k: int) -> None:
    chosen = choose(torch.zeros(4 * experts, experts), top_k)
    for window in chosen.split(experts):
        assert torch.bincount(window.flatten(), minlength=experts).tolist() == [top_k] * experts
    assert all(len(set(row)) == top_k for row in chosen.tolist())


@pytest.mark.parametrize(("experts", "top_k"), [(8, 1), (8, 3), (5, 2), (4, 4), (1, 1)])
@pytest.mark.parametrize("first", [0, 3, 1000])
def test_a_tie_takes_the_experts_that_its_token_prefers(experts: int, top_k: int, first: int) -> None:
    expected = [
        [(token * top_k + token // experts + rank) % experts for rank in range(top_k)]
        for token in range(first, first + 5 * experts)
    ]
    assert choose(torch.zeros(5 * experts, experts), top_k, first).tolist() == expected


@pytest.mark.parametrize("level", [0.0, 0.3, -7.45, 1e4])
def test_logits_nearer_than_a_tie_are_equal_at_any_level(level: float) -> None:
    """Levels and distances in units of a tie: what rounding leaves of equal logits changes nothing."""
    noise = 0.48 * (torch.rand(64, E, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5)
    assert torch.equal(choose((level + noise) * TIE, K), choose(torch.zeros(64, E), K))
    apart = torch.zeros(64, E, dtype=torch.float64)
    apart[:, [5, 2]] = torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert choose((level + noise + apart) * TIE, K).tolist() == [[5, 2]] * 64


@pytest.mark.parametrize("tie", ["all", "some"])
def test_a_batch_in_pieces_takes_the_same_experts(tie: str) -> None:
    logits = torch.zeros(64, E) if tie == "all" else torch.randint(3, (64, E), generator=torch.manual_seed(0)).float()
    pieces = [choose(part, K, first) for first, part in zip((0, 20, 40, 60), logits.split(20), strict=True)]
    assert torch.equal(torch.cat(pieces), choose(logits, K))


def test_the_second_rank_goes_on_where_the_first_ends() -> None:
    class Second(Alone):
        rank = 1
        world_size = 2

    whole, half, x = make_router(), make_router(), torch.ones(10, D)
    join(nn.ModuleList([half]), Second())
    expected = {(slot // K, e) for e, rows in enumerate(by_expert(whole(x))) for slot in rows if slot // K >= 5}
    found = {(slot // K + 5, e) for e, rows in enumerate(by_expert(half(x[5:]))) for slot in rows}
    assert found == expected


def by_expert(routes: Routes) -> list[list[int]]:
    ends = routes.ends_E.tolist()
    return [routes.order_N[start:end].tolist() for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def test_the_largest_logits_win_the_largest_first() -> None:
    logits = randn(50, E)
    assert torch.equal(choose(logits, 3), logits.topk(3).indices)


def test_weights_are_the_softmax_over_the_chosen() -> None:
    router, x = trained(make_router()), randn(20, D, seed=2)
    logits, routes = x @ router.weight.T, router(x)
    weights = routes.weight_N[routes.slots_TK()]
    torch.testing.assert_close(weights, logits.topk(K).values.softmax(-1), rtol=0, atol=1e-12)


def test_evaluation_may_take_other_numbers_of_experts() -> None:
    router, x = trained(make_router(evaluation_top_k=5)), randn(20, D)
    assert router(x).token_N.shape[0] == 20 * K
    router.eval()
    assert router(x).token_N.shape[0] == 20 * 5


def test_logits_are_wide_under_autocast() -> None:
    router, x = trained(make_router()).float(), randn(64, D).float()
    exact = router(x)
    with torch.autocast("cpu", torch.bfloat16):
        routes = router(x)
    assert routes.weight_N.dtype == torch.float32
    assert torch.equal(routes.weight_N, exact.weight_N)


def test_it_starts_at_zero_with_the_rate_of_a_dense_layer() -> None:
    router = make_router()
    initialise(router, 0)
    assert not router.weight.any()
    assert collect_specs(router)["weight"].rate == 24 / D


# ---- losses ---------------------------------------------------------------------------------------------------------


def balance(router: nn.Module, z_weight: float = 0) -> float:
    loss = auxiliary_loss(router, z_weight)
    assert loss is not None
    return float(loss.detach())


def test_the_balance_loss_is_one_at_even_use() -> None:
    router = make_router()
    router(randn(4 * E, D).float())
    assert balance(router) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_the_balance_loss_is_experts_over_k_at_collapse(top_k: int) -> None:
    router = make_router(top_k=top_k).double()
    with torch.no_grad():
        router.weight[:top_k] = 100.0
    router(torch.ones(40, D, dtype=torch.float64))
    assert balance(router) == pytest.approx(E / top_k, abs=1e-9)


def test_the_losses_are_their_formula_and_so_are_their_gradients() -> None:
    model = nn.ModuleList([trained(make_router(), 1), trained(make_router(), 2)])
    x = randn(30, D, seed=5)
    total = torch.zeros((), dtype=torch.float64)
    for router in model:
        router(x)
        logits = x @ router.weight.T
        p, chosen = logits.softmax(-1).mean(0), logits.topk(K).indices
        f = torch.bincount(chosen.flatten(), minlength=E).double() / (30 * K)
        total = total + E * (p * f).sum() + 0.1 * logits.exp().sum(-1).log().square().mean()
    found = auxiliary_loss(model, z_weight=0.1)
    assert found is not None
    torch.testing.assert_close(found, total / 2, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(total / 2, list(model.parameters()))
    for gradient, expected in zip(torch.autograd.grad(found, list(model.parameters())), wanted, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_the_z_loss_of_large_logits_is_finite() -> None:
    router = make_router()
    with torch.no_grad():
        router.weight.fill_(1e3)
    router(torch.ones(4, D))
    assert balance(router, z_weight=1) == pytest.approx(1 + (1e3 * D + math.log(E)) ** 2, rel=1e-5)


def test_losses_are_given_out_once_and_only_in_training() -> None:
    router, x = make_router(), torch.ones(4, D)
    assert auxiliary_loss(router, 0.1) is None
    router(x)
    assert auxiliary_loss(router, 0.1) is not None
    assert auxiliary_loss(router, 0.1) is None
    router.eval()
    router(x)
    assert auxiliary_loss(router, 0.1) is None
    assert auxiliary_loss(nn.Linear(2, 2), 0.1) is None


@dataclass
class Pair:
    """Two ranks in turn: the sum over both is known from a first pass."""

    rank: int
    total: Tensor
    world_size: int = 2

    def sum(self, values: Tensor) -> Tensor:
        return self.total.expand_as(values)


def test_the_mean_of_two_ranks_is_the_loss_of_the_whole_batch() -> None:
    router, x = trained(make_router()), randn(40, D, seed=7)
    counts = torch.bincount(choose(x @ router.weight.T, K).flatten(), minlength=E).double()
    router(x)
    whole = auxiliary_loss(router, 0.1)
    expected = torch.autograd.grad(whole, router.weight)[0]
    losses = []
    for rank, half in enumerate(x.split(20)):
        join(router, Pair(rank, counts))
        router(half)
        losses.append(auxiliary_loss(router, 0.1))
    mean = sum(losses) / 2
    torch.testing.assert_close(mean, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(mean, router.weight)[0], expected, rtol=0, atol=1e-12)


# ---- statistics -----------------------------------------------------------------------------------------------------


def test_statistics_of_even_and_uncertain_routing() -> None:
    router = make_router()
    assert router.statistics() is None
    router(torch.ones(2 * E, D))
    found = router.statistics()
    assert found.usage == (1 / E,) * E
    assert found.token_perplexity == pytest.approx(E, rel=1e-5)
    assert found.aggregate_perplexity == pytest.approx(E, rel=1e-5)
    assert found.dropped == 0


def test_the_record_has_a_column_a_statistic_and_plain_numbers() -> None:
    model = nn.ModuleDict({"a": trained(make_router(), 1), "b": trained(make_router(), 2)})
    assert router_record(model) is None
    for router in model.values():
        router(randn(30, D))
    record = json.loads(json.dumps(router_record(model)))
    assert record["routers"] == ["a", "b"]
    for name in ("token_perplexity", "aggregate_perplexity", "dropped", "balance", "z"):
        exact = [getattr(router.statistics(), name) for router in model.values()]
        assert record[name] == pytest.approx(exact, rel=1e-3)
    assert [sum(usage) for usage in record["usage"]] == pytest.approx([1, 1], rel=1e-3)
    assert record["least_share"] == pytest.approx(E * min(map(min, record["usage"])), rel=1e-3)
    losses = [b + 0.1 * z for b, z in zip(record["balance"], record["z"], strict=True)]
    assert sum(losses) / 2 == pytest.approx(balance(model, 0.1), rel=1e-3)


def test_certain_tokens_that_differ_are_certain_each_and_even_together() -> None:
    router = make_router(top_k=1, d_in=E).double()
    with torch.no_grad():
        router.weight.copy_(50 * torch.eye(E))
    router(torch.eye(E, dtype=torch.float64))
    found = router.statistics()
    assert found.token_perplexity == pytest.approx(1, abs=1e-9)
    assert found.aggregate_perplexity == pytest.approx(E, abs=1e-9)


def test_the_dropped_share() -> None:
    router = make_router(top_k=1, capacity=1.0).double()
    with torch.no_grad():
        router.weight[3] = 1.0
    router(torch.ones(4 * E, D, dtype=torch.float64))
    found = router.statistics()
    assert found.usage == (0, 0, 0, 1, 0, 0, 0, 0)
    assert found.dropped == 1 - 1 / E


def test_statistics_are_those_of_the_last_training_batch() -> None:
    router, x = trained(make_router()), randn(30, D)
    router(x)
    before = router.statistics()
    router.eval()
    router(randn(30, D, seed=9))
    assert router.statistics() == before


def test_routers_are_found_by_name_behind_wrappers() -> None:
    model = nn.ModuleDict({"a": nn.ModuleDict({"router": make_router()})})
    wrapped = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"module": model})})
    assert [name for name, _ in routers(wrapped)] == ["a.router"]


def test_nothing_waits_for_the_device() -> None:
    """On the meta device a value that the host wants to read is an error."""
    with torch.device("meta"):
        router = make_router(capacity=1.5)
        routes = router(torch.zeros(16, D))
        assert auxiliary_loss(router, 0.1).shape == ()
    assert routes.token_N.shape == (16 * K,)
    with pytest.raises(RuntimeError):
        router.statistics()


def test_its_state_is_its_weight() -> None:
    router = make_router()
    router(torch.ones(4, D))
    assert set(router.state_dict()) == {"weight"}


class _Half:
    """One of two ranks: remembers what it gives to a mean, and answers with the mean of both once both are known."""

    def __init__(self, rank: int, given: dict[int, Tensor]) -> None:
        self.rank, self.world_size, self._given = rank, 2, given

    def mean(self, values: Tensor) -> Tensor:
        self._given[self.rank] = values
        return (self._given[0] + self._given[1]) / 2 if len(self._given) == 2 else values

    def sum(self, values: Tensor) -> Tensor:
        return values

    def gather(self, values: Tensor) -> Tensor:
        return values[None]


def test_statistics_are_those_of_the_whole_batch_on_every_rank() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(64, 16, dtype=torch.float64), torch.randn(4, 16, dtype=torch.float64)
    given: dict[int, Tensor] = {}
    whole, *halves = (Router(16, 4, 2, base_d_in=16).double() for _ in range(3))
    for router in (whole, *halves):
        router.weight.data.copy_(weight)
    whole(x)
    for rank, router in enumerate(halves):
        router.ranks = _Half(rank, given)
        router(x[32 * rank : 32 * (rank + 1)])
    halves[0].statistics()  # gives its part
    expected, found = whole.statistics(), halves[1].statistics()
    assert expected is not None
    assert found is not None
    for name, value in vars(expected).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12), name
    assert halves[0].statistics() == found
