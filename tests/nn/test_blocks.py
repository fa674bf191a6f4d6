"""Blocks that are computed again give the same bits, keep their inputs alone and route every batch once."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from structlin.anatomy.ledger import ledger
from structlin.config.model import MlpConfig
from structlin.config.moe import MoeConfig
from structlin.config.science import Science
from structlin.data import DataRecipe
from structlin.nn.blocks import recompute
from structlin.nn.router import auxiliary_loss, router_record, routers
from structlin.tasks.catalogue import open_learner
from structlin.tasks.protocol import Batch, Learner
from tests.models.cases import science_of

GPTS = {
    "dense": science_of("dense"),
    "btt": science_of("btt", d_model=64),
    "g2-learned": science_of("g2", weight_norm="learned"),
    "bfloat16": science_of("btt", dtype="bfloat16"),
}
MIXTURES = {
    "btt-moe": replace(science_of("dense", d_model=64), moe=MoeConfig("btt", num_experts=4)),
    "ffn-moe": replace(science_of("btt"), moe=MoeConfig("ffn", num_experts=4, layers="ffn")),
    "capacity": replace(science_of("dense"), moe=MoeConfig("low_rank", num_experts=4, capacity=1.25)),
}
MLP = Science(model=MlpConfig(d_model=32), task="regression", data=DataRecipe("teacher"))
SCIENCES = {**GPTS, **MIXTURES, "mlp": MLP}


def prepared(science: Science, *, recomputes: bool) -> tuple[Learner, nn.Module, Batch]:
    """A learner, its model with nothing at zero any more, and a batch."""
    learner = open_learner(science)
    model, generator = learner.build_model(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    if recomputes:
        recompute(model)
    return learner, model, learner.random_batch(8, generator)


def step(science: Science, *, recomputes: bool) -> dict[str, Tensor]:
    """Loss and all gradients."""
    learner, model, batch = prepared(science, recomputes=recomputes)
    loss = learner.loss(model, batch)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(gradients) == len(list(model.parameters()))
    return {"loss": loss.detach(), **gradients}


@pytest.mark.parametrize("name", SCIENCES)
def test_losses_and_gradients_are_the_same_bits(name: str) -> None:
    plain, again = (step(SCIENCES[name], recomputes=recomputes) for recomputes in (False, True))
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[key], again[key]) for key in plain)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_batch_is_routed_and_counted_once(name: str) -> None:
    """After the backward pass the losses have been given out, and the statistics are those of the forward pass."""
    records = []
    for recomputes in (False, True):
        learner, model, batch = prepared(MIXTURES[name], recomputes=recomputes)
        learner.loss(model, batch).backward()
        assert auxiliary_loss(model, 0.1) is None
        assert not any(router.is_repeated for _, router in routers(model))
        records.append(router_record(model))
    assert records[0] == records[1]


def test_an_evaluation_after_a_step_has_no_losses_of_routers() -> None:
    losses = []
    for recomputes in (False, True):
        learner, model, batch = prepared(MIXTURES["btt-moe"], recomputes=recomputes)
        learner.loss(model, batch).backward()
        model.eval()
        with torch.no_grad():
            losses.append(float(learner.loss(model, batch)))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("name", "spared"), [("dense", 4096), ("btt", 0), ("g2-learned", 1024), ("mlp", 256)])
def test_what_is_computed_again_is_a_forward_pass_of_the_blocks(name: str, spared: int) -> None:
    """But for the last product of a block, whose result nothing reads: torch stops before it (a kernel is whole)."""
    science = SCIENCES[name]
    counted = []
    for recomputes in (False, True):
        learner, model, batch = prepared(science, recomputes=recomputes)
        with FlopCounterMode(display=False) as counter:
            learner.loss(model, batch).backward()
        counted.append(counter.get_total_flops())
    costs = ledger(science)
    # Torch's attention on CPUs is counted as nothing.
    again = costs.recomputed_macs_per_token - costs.macs["attention"] - science.model.num_layers * spared
    assert counted[1] - counted[0] == 2 * again * batch[0].shape[0] * science.model.context


@pytest.mark.parametrize("name", ["btt", "ffn-moe"])
def test_it_goes_through_torch_compile(name: str) -> None:
    losses, gradients = [], []
    for compiles in (False, True):
        torch._dynamo.reset()
        learner, model, batch = prepared(SCIENCES[name], recomputes=True)
        forward = torch.compile(model, backend="aot_eager") if compiles else model
        loss = learner.loss(forward, batch)  # type: ignore[arg-type]
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        assert auxiliary_loss(model, 0.1) is None
    torch.testing.assert_close(losses[0], losses[1])
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key])
