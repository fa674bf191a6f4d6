"""Costs: counted ones equal those written out by hand, nothing of a model changes, what is not counted is named."""

import pytest
import torch
from torch import Tensor, nn

from structlin import Linear, cost
from structlin.nn.spec import initialise
from tests.nn.test_layer import ALL, STRUCTURES
from tests.nn.test_swap import D, vit


@pytest.mark.parametrize("d", [16, 64])
@pytest.mark.parametrize("name", ALL)
def test_a_layer_costs_what_its_plan_says(name: str, d: int) -> None:
    structure, arguments = STRUCTURES[name]
    layer = Linear(d, 2 * d, structure, **arguments)
    found = cost(layer, torch.zeros(3, 5, d), tokens=15)
    assert (found.params, found.macs) == (layer.plan.params, 15 * layer.plan.macs)
    assert found.macs_per_token == layer.plan.macs
    assert (found.flops(), found.flops("paper")) == (6 * found.macs, found.macs)
    assert found.uncounted == ()


@pytest.mark.parametrize("training", [True, False])
def test_a_transformer_costs_what_is_written_out(training: bool) -> None:
    """Per image of T = 4 patches; attention is 2 T D a token, full."""
    model = vit().train(training)
    T, F = 4, 4 * D
    block = 4 * D * D + 2 * T * D + 2 * D * F
    found = cost(model, torch.zeros(3, T, 16), tokens=3)
    assert found.macs_per_token == T * 16 * D + 2 * T * block + 10 * D
    assert found.params == found.trainable == sum(parameter.numel() for parameter in model.parameters())
    assert found.uncounted == ()


class Looks(nn.Module):
    """A model that reads a value, draws numbers, and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.linear.bias.requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.norm(self.linear(x)) + torch.rand(4)
        return y if float(y.sum()) < 1e9 else x


@pytest.mark.parametrize("looks", [False, True])
def test_nothing_changes(looks: bool) -> None:
    model = Looks() if looks else nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    found = cost(model, torch.ones(6, 4))
    assert found.macs == 6 * 16
    assert found.trainable == found.params - 4 * looks
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_what_is_not_counted_is_named() -> None:
    model = nn.ModuleDict({"rnn": nn.LSTM(8, 8), "idle": nn.Linear(8, 8), "tokens": nn.Embedding(9, 8)})
    model.forward = lambda x: model["rnn"](model["tokens"](x))
    found = cost(model, torch.zeros(3, 2, dtype=torch.long))
    assert "idle" in found.uncounted
    assert "tokens" not in found.uncounted
    assert found.macs > 0 or "rnn" in found.uncounted
    assert f"not counted: {', '.join(found.uncounted)}" in str(found)


def test_arguments_by_place_and_by_name() -> None:
    model = nn.Bilinear(2, 3, 4)
    x, y = torch.zeros(5, 2), torch.zeros(5, 3)
    assert cost(model, (x, y)).params == cost(model, {"input1": x, "input2": y}).params == 4 * 2 * 3 + 4


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="tokens = 0: write how many tokens"):
        cost(nn.Linear(2, 2), torch.zeros(1, 2), tokens=0)
    found = cost(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"was not told; write structlin\.cost"):
        found.macs_per_token  # noqa: B018
    with pytest.raises(ValueError, match="unknown convention 'train'; did you mean 'training'"):
        found.flops("train")
    with pytest.raises(RuntimeError, match="shapes"):
        cost(nn.Linear(2, 2), torch.zeros(1, 3))


def test_a_foreign_model_has_no_start_of_ours() -> None:
    with pytest.raises(
        ValueError, match=r"no start and no rate is known for position, patch\.weight.*structlin\.Linear"
    ):
        initialise(vit(), 0)
