"""A batch in parts trains to the numbers of the whole: losses, gradients, routing, and the same bits on resuming."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from structlin.config.moe import MoeConfig
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.nn.blocks import recompute
from structlin.nn.router import router_record
from structlin.tasks.catalogue import open_learner
from structlin.training.optim import make_optimizer
from structlin.training.parts import gradients, number_of_parts
from structlin.training.world import ONE_PROCESS
from tests.tiny import PLACEMENT, tiny, train
from tests.training.test_exactness import assert_same_state, result

MIXTURES = {
    "btt": MoeConfig("btt", num_experts=4, auxiliary_weight=0.1, z_weight=0.1),
    "ffn": MoeConfig("ffn", num_experts=4, layers="ffn", auxiliary_weight=0.1),
    "dense": MoeConfig("dense", num_experts=4, auxiliary_weight=0.1),
    "low_rank": MoeConfig("low_rank", num_experts=4, auxiliary_weight=0.1, top_k=3),
    "capacity": MoeConfig("low_rank", num_experts=4, capacity=1.25, auxiliary_weight=0.1),
    "no balance": MoeConfig("btt", num_experts=4, auxiliary_weight=0.0),
}
STEPS = 4


def science(moe: str = "none", structure: str = "btt") -> Science:
    """Eight sequences of eight tokens in float64."""
    model = replace(tiny().model, num_layers=2, context=8, dtype="float64", weight_norm="learned")
    mixture = MoeConfig() if moe == "none" else MIXTURES[moe]
    return tiny("dense" if moe != "none" else structure, model=model, moe=mixture)


def steps(one: Science, parts: int, *, recomputes: bool = False) -> tuple[list[float], list[torch.Tensor], object]:
    """Losses and the last gradients of some steps, and what the routers say of the last batch."""
    learner = open_learner(one)
    model, generator = learner.build_model(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    if recomputes:
        recompute(model)
    optimizer = make_optimizer(model, one.optim)
    losses = []
    for step in range(STEPS):
        batch = learner.random_batch(one.rows, torch.Generator().manual_seed(step))
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(gradients(one, learner, model, model, batch, parts, ONE_PROCESS)))
        if step + 1 < STEPS:
            optimizer.step()
    return losses, [parameter.grad for parameter in model.parameters()], router_record(model)


CASES = [("none", "btt"), ("none", "g2"), ("none", "dense"), *((moe, "dense") for moe in MIXTURES)]


@pytest.mark.parametrize("parts", [2, 4, 8])
@pytest.mark.parametrize(("moe", "structure"), CASES)
def test_losses_gradients_and_routing_are_those_of_the_whole(moe: str, structure: str, parts: int) -> None:
    one = science(moe, structure)
    (whole, d_whole, routed), (divided, d_divided, routed_in_parts) = steps(one, 1), steps(one, parts)
    assert divided == pytest.approx(whole, rel=1e-12, abs=0)
    for one_gradient, other in zip(d_whole, d_divided, strict=True):
        torch.testing.assert_close(other, one_gradient, rtol=0, atol=1e-12)
    # Rounded to four digits, so that a tie of rounding would show as one in the last.
    assert routed_in_parts == routed


def test_all_experts_tie_at_first_and_each_part_goes_on_where_the_last_has_ended() -> None:
    """Zero routers: only the place of a token in the whole batch chooses."""
    one = science("btt")
    learner = open_learner(one)
    records = []
    for parts in (1, 8):
        model = learner.build_model()
        batch = learner.random_batch(one.rows, torch.Generator().manual_seed(0))
        gradients(one, learner, model, model, batch, parts, ONE_PROCESS)
        records.append(router_record(model))
    assert records[0] == records[1]
    assert records[0]["least_share"] == 1.0


def test_a_capacity_is_that_of_the_whole_batch() -> None:
    """Some assignments are dropped, and as many in parts as in one."""
    (_, _, whole), (_, _, divided) = (steps(science("capacity"), parts) for parts in (1, 4))
    assert max(whole["dropped"]) > 0
    assert divided["dropped"] == whole["dropped"]


@pytest.mark.parametrize("moe", ["none", "btt", "capacity"])
def test_blocks_that_are_computed_again_give_the_same_bits_in_parts(moe: str) -> None:
    plain, again = steps(science(moe), 4), steps(science(moe), 4, recomputes=True)
    assert plain[0] == again[0]
    assert all(torch.equal(one, other) for one, other in zip(plain[1], again[1], strict=True))


@pytest.mark.parametrize(
    ("rows", "context", "most", "parts"),
    [
        (8, 128, None, 1),
        (8, 128, 1024, 1),
        (8, 128, 5000, 1),
        (8, 128, 1023, 2),
        (8, 128, 300, 4),
        (8, 128, 100, 8),
        (480, 512, 65_536, 4),
        (7, 16, 32, 7),
        (1, 64, 1, 1),
    ],
)
def test_parts_are_equal_whole_sequences_and_as_few_as_allowed(rows: int, context: int, most, parts: int) -> None:
    assert number_of_parts(rows, context, most) == parts


# ---- runs -----------------------------------------------------------------------------------------------------------


def placed(micro_tokens: str) -> Placement:
    return replace(PLACEMENT, micro_tokens=micro_tokens)


@pytest.mark.parametrize("moe", ["none", "btt"])
def test_training_2n_steps_is_training_n_and_resuming_n_in_the_same_parts(
    moe: str, tmp_path: Path, data_root: Path
) -> None:
    one = tiny("dense", moe=MoeConfig() if moe == "none" else MIXTURES[moe])
    train(one, (10,), tmp_path / "cut", data_root, placement=placed("32"))
    state, cut = train(one, (10, 20), tmp_path / "cut", data_root, placement=placed("32"))
    _, whole = train(one, (10, 20), tmp_path / "whole", data_root, placement=placed("32"))
    assert state == "done"
    assert result(cut) == result(whole)
    assert_same_state(cut, whole, 20)


def test_a_run_records_its_parts_as_it_does_its_ranks(tmp_path: Path, data_root: Path) -> None:
    for micro_tokens, tokens in (("auto", 64), ("40", 32), ("16", 16), ("1", 16)):
        _, folder = train(tiny(), (2,), tmp_path / micro_tokens, data_root, placement=placed(micro_tokens))
        (record,) = folder.provenance()
        assert record["micro_tokens"] == tokens
        assert folder.run_id == train(tiny(), (2,), tmp_path / "auto", data_root)[1].run_id


@pytest.mark.parametrize("value", ["many", "-1", "1.5", ""])
def test_what_is_no_number_of_tokens_is_one_clear_line(value: str) -> None:
    with pytest.raises(UserError, match="micro_tokens"):
        placed(value)
    with pytest.raises(UserError, match="micro_tokens = 0 must be at least 1"):
        placed("0")
