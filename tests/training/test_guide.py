"""A guided run starts as the structured one, drops its guides at the step it says, and costs what the bill says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from structlin.anatomy.compute import batch_number, flops_until, step_flops, steps_for_flops
from structlin.anatomy.guide import guide_share, guide_steps, guided_linears, guides_at, matched_share
from structlin.config.doors import sweep_request
from structlin.config.guide import GuideConfig
from structlin.config.identity import science_from, to_mapping
from structlin.config.moe import MoeConfig
from structlin.config.optim import ScheduleConfig
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.errors import UserError
from structlin.nn.guide import Guide, guides
from structlin.planning.grid import plan_sweep
from structlin.runs.table import load
from structlin.structure import lookup, theta_of
from structlin.structure.families import output_order_of
from structlin.tasks.catalogue import open_learner
from structlin.training import checkpoint
from tests.structure.test_families import WRITTEN
from tests.tiny import PLACEMENT, tiny, train
from tests.training.test_exactness import assert_same_state, result

T = 12
LAST = 30


def guided(kind: str = "stochastic", structure: str = "btt", d_model: int = 16, **changes) -> Science:
    return tiny(structure, d_model, guide=GuideConfig(kind, steps=T), **changes)


FAMILIES = {
    **{name: (name, {}) for name in ("btt", "low_rank", "kronecker", "g2")},
    **WRITTEN,
    "block_shuffle-b2": ("block_shuffle", {"blocks": 2}, ""),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_at_first_a_guide_changes_nothing(name: str) -> None:
    """Of every family, BlockShuffle with its shuffles; whatever the share is."""
    family, arguments, *_ = FAMILIES[name]
    theta = theta_of(family, arguments=arguments) if arguments else lookup(family)
    structure = StructureConfig(str(theta), output_order=output_order_of(family))
    science = replace(tiny(), model=replace(tiny().model, d_model=64, dtype="float64"), structure=structure)
    model = open_learner(science).build_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    tokens = torch.arange(32).reshape(2, 16)
    plain = model(tokens)
    for shape in guided_linears(science):
        model.get_submodule(shape.name).take_guide()
    for share in (1.0, 0.5, 0.0):
        for _, guide in guides(model):
            guide.share = share
        assert torch.allclose(model(tokens), plain, rtol=1e-12, atol=1e-12)


def test_the_share_falls_as_a_cosine_and_is_zero_from_its_end_on() -> None:
    science = guided()
    shares = [guide_share(science, step) for step in range(T + 3)]
    assert shares[0] == 1.0
    assert shares[T // 2] == pytest.approx(0.5)
    assert shares[T:] == [0.0, 0.0, 0.0]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("kind", ["full", "stochastic"])
def test_the_bill_is_what_was_executed(kind: str, tmp_path: Path, data_root: Path, monkeypatch) -> None:
    executed = []
    forward = Guide.forward

    def counted(self: Guide, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        tokens = x.numel() // x.shape[-1]
        # Not what looks for kernels before a run, with fewer tokens.
        if self.training and self.is_drawn and tokens == 64:
            executed.append(self.weight.numel() * tokens)
        return forward(self, x, y)

    monkeypatch.setattr(Guide, "forward", counted)
    science = guided(kind)
    train(science, (5, LAST), tmp_path, data_root)
    assert 6 * sum(executed) == flops_until(science, LAST) - step_flops(science) * LAST
    table = load(tmp_path).set_index("step")
    assert table["in_guide"].tolist() == [True, False]
    assert table["training_flops"].tolist() == [flops_until(science, 5), flops_until(science, LAST)]
    assert table["paper_flops"].tolist() == [flops_until(science, step) / 6 for step in (5, LAST)]


def test_draws_have_the_mean_that_they_should() -> None:
    """The mean weight of W is s^2 at every time: a draw falls below s with probability s."""
    sciences = [guided(seed=seed) for seed in range(400)]
    for step in (3, 6, 9):
        drawn = [on for science in sciences for on in guides_at(science, step).values()]
        share = guide_share(sciences[0], step)
        assert sum(drawn) / len(drawn) == pytest.approx(share, abs=4 * (share * (1 - share) / len(drawn)) ** 0.5)


@pytest.mark.parametrize("kind", ["full", "stochastic"])
@pytest.mark.parametrize("cut", [7, T, 20])
def test_a_guided_run_resumes_bit_by_bit(kind: str, cut: int, tmp_path: Path, data_root: Path) -> None:
    """Inside of the guide, at its end and across it."""
    science = guided(kind)
    train(science, (cut,), tmp_path / "cut", data_root)
    _, resumed = train(science, (cut, LAST), tmp_path / "cut", data_root)
    _, whole = train(science, (cut, LAST), tmp_path / "whole", data_root)
    assert result(resumed) == result(whole)
    assert_same_state(resumed, whole, LAST)
    assert not any("guide" in name for name in checkpoint.read(whole.checkpoints[LAST])["model"])


def test_recomputed_blocks_and_parts_draw_alike(tmp_path: Path, data_root: Path) -> None:
    science = guided()
    _, plain = train(science, (LAST,), tmp_path / "plain", data_root)
    again = replace(PLACEMENT, recompute=True)
    _, recomputed = train(science, (LAST,), tmp_path / "again", data_root, placement=again)
    assert result(plain) == result(recomputed)


def test_a_guide_changes_what_is_learned_and_ends_without_a_trace(tmp_path: Path, data_root: Path) -> None:
    _, plain = train(tiny(), (LAST,), tmp_path, data_root)
    _, other = train(guided("full"), (LAST,), tmp_path, data_root)
    assert plain.run_id != other.run_id
    assert result(plain) != result(other)
    one, two = (checkpoint.read(folder.checkpoints[LAST])["model"] for folder in (plain, other))
    assert one.keys() == two.keys()


def test_a_budget_buys_the_steps_nearest_to_it() -> None:
    def run(steps: int) -> Science:
        return tiny(guide=GuideConfig("stochastic", share=0.4), schedule=ScheduleConfig("cosine", 4, steps))

    for steps in (1, 7, 100, 1234):
        cost = flops_until(run(steps), steps)
        assert steps_for_flops(run, cost) == steps
        gap = flops_until(run(steps + 1), steps + 1) - cost
        assert steps_for_flops(run, cost + 0.4 * gap) == steps
        assert steps_for_flops(run, cost + 0.6 * gap) == steps + 1
    assert steps_for_flops(run, 0.4 * flops_until(run(1), 1)) == 0


def test_a_matched_run_costs_what_the_dense_one_does_and_reads_its_batches() -> None:
    dense = tiny("dense", 64)
    for kind, tolerance in (("full", 1e-3), ("stochastic", 0.01)):

        def run(steps: int, kind: str = kind) -> Science:
            return tiny("btt", 64, guide=GuideConfig(kind, match="dense"), schedule=ScheduleConfig("cosine", 4, steps))

        fresh = 2000
        steps = steps_for_flops(run, flops_until(dense, fresh))
        science = run(steps)
        assert steps - guide_steps(science) == pytest.approx(fresh, rel=tolerance)
        read = [batch_number(science, step) for step in range(steps)]
        assert read == [*range(steps - guide_steps(science)), *range(guide_steps(science))]
        assert guide_steps(science) == round(matched_share(science) * steps)


PUBLISHED = {"s": (768, 0.30), "m": (1024, 0.38), "l": (1536, 0.41), "xl": (2048, 0.43)}


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("structure", ["low_rank structure.rank=d/4", "block_shuffle structure.blocks=4"])
def test_a_matched_share_is_the_published_one(size: str, structure: str) -> None:
    """rho of arXiv 2406.16450's scripts, by the counts of this project; the run costs what the dense one does."""
    words = f"scale=structured_ffn model.size={size} guide=stochastic guide.match=dense dry_run=true structure="
    guided_, dense = (plan_sweep(sweep_request(f"{words}{one}".split())).cells[0] for one in (structure, "dense"))
    width, rho = PUBLISHED[size]
    share = matched_share(guided_.science)
    assert guided_.science.model.d_model == width
    assert share / (1 - share) == pytest.approx(rho, abs=0.005)
    assert guided_.step == round(dense.step * (1 + share / (1 - share)))
    assert guided_.training_flops == pytest.approx(dense.training_flops, rel=0.001)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 0.3, "steps": 4}, "guide.share = 0.3 and guide.steps = 4"),
        ({"share": 0.0}, "guide.share = 0.0 must lie in"),
        ({"steps": 0}, "guide.steps"),
        ({"match": "sparse"}, "guide.match"),
    ],
)
def test_bad_guides_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        GuideConfig("full", **changes)


def test_a_dense_model_has_no_guide_and_experts_take_none() -> None:
    assert guided(structure="dense") == tiny("dense")
    with pytest.raises(UserError, match="experts are not guided"):
        guided(moe=MoeConfig("btt", num_experts=4))
    science = guided()
    assert science_from(to_mapping(science)).guide == science.guide
    assert science.variant == "btt+stochastic-guide-12"
