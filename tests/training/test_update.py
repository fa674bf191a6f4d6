"""One step: rates in memory are the rates, checkpoints are read anywhere, and a graph changes no bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from structlin.config.moe import MoeConfig
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.nn.blocks import recompute
from structlin.tasks.next_token import NextTokenLearner
from structlin.training.compiling import compiled
from structlin.training.device import settle
from structlin.training.optim import make_optimizer, portable, rates_on_device, set_rates
from structlin.training.update import WARM_UPS, Replayed, make_update
from structlin.training.world import ONE_PROCESS
from tests.tiny import tiny

CPU = torch.device("cpu")


def trained(one: Science, placement: Placement, device: torch.device, steps: int, parts: int = 1) -> list[float]:
    """Losses and norms of some steps, at rates that change."""
    settle(device, placement, one)
    torch.manual_seed(0)
    learner = NextTokenLearner(one)
    model = learner.build_model().to(device)
    if placement.recompute:
        recompute(model)
    optimizer = make_optimizer(model, one.optim)
    forward = compiled(model, placement, device)
    update = make_update(one, learner, model, forward, optimizer, placement, device, parts, ONE_PROCESS)
    found = []
    for step in range(steps):
        batch = learner.random_batch(one.rows, torch.Generator().manual_seed(step))
        loss, norm = update((batch[0].to(device), batch[1].to(device)), 1e-3 / (1 + step))
        found += [float(loss), float(norm)]
    return found


def test_a_processor_takes_steps_one_by_one() -> None:
    learner = NextTokenLearner(tiny())
    model = learner.build_model()
    optimizer = make_optimizer(model, tiny().optim)
    update = make_update(tiny(), learner, model, model, optimizer, Placement(), CPU, 1, ONE_PROCESS)
    assert not isinstance(update, Replayed)
    assert all(isinstance(group["lr"], float) for group in optimizer.param_groups)


def stepped(on_device: bool, steps: int) -> tuple[list[torch.Tensor], dict]:
    """Weights after steps at falling rates, and the optimizer's state."""
    learner = NextTokenLearner(tiny())
    torch.manual_seed(0)
    model = learner.build_model()
    optimizer = make_optimizer(model, tiny().optim)
    if on_device:
        rates_on_device(optimizer, CPU)
        assert {group["lr"].dtype for group in optimizer.param_groups} == {torch.float32}
    for step in range(steps):
        learner.loss(model, learner.random_batch(4, torch.Generator().manual_seed(step))).backward()
        set_rates(optimizer, 1e-3 / (1 + step))
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach() for parameter in model.parameters()], optimizer.state_dict()


def test_rates_in_memory_are_the_rates_to_the_precision_of_float32() -> None:
    plain, _ = stepped(False, 5)
    held, _ = stepped(True, 5)
    for one, other in zip(plain, held, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_a_checkpoint_says_nothing_of_where_rates_were_held() -> None:
    for on_device in (False, True):
        _, state = stepped(on_device, 2)
        groups = portable(state)["param_groups"]
        assert all(type(group["lr"]) is float and group["capturable"] is False for group in groups)
        assert [group["lr"] for group in groups] == pytest.approx([5e-4 * group["rate"] for group in groups], rel=1e-6)


# ---- on a GPU -------------------------------------------------------------------------------------------------------

CASES = {
    "dense": tiny("dense"),
    "btt fused": tiny("btt", 1024, model=replace(tiny().model, d_model=1024, d_head=64, dtype="bfloat16")),
    "btt": tiny("btt", 64),
    "parts": tiny(),
    "recompute": tiny(),
    "bfloat16": tiny(model=replace(tiny().model, dtype="bfloat16")),
    "moe": tiny(moe=MoeConfig("btt", 4, 2, auxiliary_weight=0.01)),
}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compiles", ["false", "true"])
def test_a_recorded_step_has_the_bits_of_one_launched_kernel_by_kernel(name: str, compiles: str) -> None:
    steps, parts = WARM_UPS + 4, 2 if name == "parts" else 1
    way = Placement(compile=compiles, recompute=name == "recompute", deterministic=True)
    plain, recorded = (
        trained(CASES[name], replace(way, graphs=graphs), torch.device("cuda"), steps, parts)
        for graphs in ("false", "true")
    )
    assert recorded == plain


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_cannot_be_recorded_goes_on_kernel_by_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    learner = NextTokenLearner(tiny())
    model = learner.build_model().cuda()
    waited: list[float] = []
    # Waits for the device; what a hook returns would take the model's place.
    model.register_forward_hook(lambda *found: waited.append(float(found[-1].detach().sum())))
    optimizer = make_optimizer(model, tiny().optim)
    update = make_update(tiny(), learner, model, model, optimizer, Placement(), torch.device("cuda"), 1, ONE_PROCESS)
    assert isinstance(update, Replayed)
    batch = learner.random_batch(tiny().rows, torch.Generator().manual_seed(0))
    losses = [float(update((batch[0].cuda(), batch[1].cuda()), 1e-3)[0]) for _ in range(WARM_UPS + 3)]
    assert losses[-1] < losses[0]
    assert "cannot be recorded" in "".join(capsys.readouterr())
