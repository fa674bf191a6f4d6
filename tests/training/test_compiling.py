"""A whole model is one graph, mixtures and parts of a batch included, and computes what it does as written."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from structlin.config.moe import MoeConfig
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.models.gpt2 import GPT2
from structlin.nn.router import Router
from structlin.tasks.catalogue import open_learner
from structlin.training.compiling import compiled
from structlin.training.parts import gradients
from structlin.training.world import ONE_PROCESS
from tests.tiny import tiny

MIXTURE = MoeConfig("btt", num_experts=4, auxiliary_weight=0.1, capacity=1.25)
SCIENCES = {
    "dense": tiny("dense"),
    "btt": tiny("btt", 64, model=replace(tiny("btt", 64).model, weight_norm="learned")),
    "mixture": tiny("dense", moe=MIXTURE),
    "recipe": tiny("low_rank", model=replace(tiny().model, positions="rope", tied=True, kv_heads=1, qk_norm=False)),
}


def losses(one: Science, parts: int, *, compiles: bool) -> list[float]:
    """Of two steps; compiled without a back end, which would take a minute of a CPU."""
    learner = open_learner(one)
    model = learner.build_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    torch._dynamo.reset()
    forward = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False) if compiles else model
    found = []
    for seed in range(2):
        batch = learner.random_batch(one.rows, torch.Generator().manual_seed(seed))
        found.append(float(gradients(one, learner, model, forward, batch, parts, ONE_PROCESS)))
    found.append(float(sum(parameter.grad.abs().sum() for parameter in model.parameters())))
    return found


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        pytest.param("dense", 1, marks=LONG),
        pytest.param("dense", 4, marks=LONG),
        ("btt", 1),
        pytest.param("btt", 4, marks=LONG),
        pytest.param("mixture", 1, marks=LONG),
        pytest.param("mixture", 4, marks=LONG),
        ("recipe", 1),
    ],
)
def test_one_graph_computes_what_the_model_does(name: str, parts: int) -> None:
    one = SCIENCES[name]
    assert losses(one, parts, compiles=True) == pytest.approx(losses(one, parts, compiles=False), rel=1e-5)


@LONG
def test_inductors_gradient_of_a_table_without_positions_is_right() -> None:
    """Its own scatter adds to wrong rows where the gradient arrives transposed (structlin/kernels/embedding.py)."""
    one = tiny("low_rank", 32, model=replace(tiny("low_rank", 32).model, positions="rope"))
    learner = open_learner(one)
    model = learner.build_model()
    assert isinstance(model, GPT2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch = learner.random_batch(one.rows, torch.Generator().manual_seed(0))
    torch._dynamo.reset()
    found = []
    for forward in (model, torch.compile(model, dynamic=False)):
        model.zero_grad()
        gradients(one, learner, model, forward, batch, 1, ONE_PROCESS)
        assert model.tokens.grad is not None
        found.append(model.tokens.grad.clone())
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@LONG
def test_parts_of_a_batch_need_no_graph_each() -> None:
    from torch._dynamo.utils import counters

    losses(SCIENCES["mixture"], 4, compiles=True)
    frames = counters["stats"]["unique_graphs"]
    losses(SCIENCES["mixture"], 2, compiles=True)
    counters.clear()
    losses(SCIENCES["mixture"], 4, compiles=True)
    # One of training and one of counting, whatever the part.
    assert counters["stats"]["unique_graphs"] == 2
    assert frames >= 2


def test_auto_compiles_on_a_gpu_alone() -> None:
    model = torch.nn.Linear(2, 2)
    cpu = torch.device("cpu")
    assert compiled(model, Placement(), cpu) is model
    assert compiled(model, Placement(compile="true"), cpu) is not model
    cases = (("auto", "cuda", True), ("false", "cuda", False), ("true", "cpu", True), ("combine", "cuda", True))
    for value, device, expected in cases:
        assert Placement(compile=value).compiles(device) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_compiled_router_learns_in_float32(dtype: torch.dtype) -> None:
    """Its backward pass is traced under the autocast of the forward pass, and its products are no layers'."""
    router = Router(16, 4, 2, base_d_in=16)
    with torch.no_grad():
        router.weight.copy_(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1)).to(dtype)

    def gradient(forward: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            weights_TK = forward(x)
        return torch.autograd.grad(weights_TK[:, 0].square().sum(), router.weight)[0]

    def weights(x: Tensor) -> Tensor:
        return router(x).weight_TK

    compiled_weights = torch.compile(weights, backend="aot_eager")
    torch.testing.assert_close(gradient(compiled_weights), gradient(weights), rtol=1e-6, atol=1e-6)
