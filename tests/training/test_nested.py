"""Any leading share of a nested run's ranks is a model: it costs what the bill says and is evaluated as what it is."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from structlin.anatomy.compute import flops_until, step_flops, steps_for_flops
from structlin.anatomy.ledger import ledger, ledger_at
from structlin.anatomy.nested import nested_linears, shares_at
from structlin.config.doors import sweep_request
from structlin.config.guide import GuideConfig
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.config.moe import MoeConfig
from structlin.config.nested import canonical, menu_of
from structlin.config.science import Science, StartConfig
from structlin.config.structure import StructureConfig
from structlin.errors import UserError
from structlin.kernels.products.layout import ProductSizes
from structlin.laws.choices import Choices
from structlin.laws.evaluations.own import from_runs
from structlin.nn import linear
from structlin.nn.linear import EinsumLinear, LinearOptions, make_linear
from structlin.nn.nested import take_share
from structlin.planning.grid import plan_sweep
from structlin.runs.table import load
from structlin.runs.tracking.payload import payload
from structlin.structure import Theta, plan_linear, theta_of
from structlin.structure.families import output_order_of
from structlin.structure.plan import plan_theta
from structlin.tasks.catalogue import open_task
from structlin.training import checkpoint
from tests.tiny import ARGUMENTS, PLACEMENT, tiny, train
from tests.training.test_exactness import assert_same_state, result

MENU = "1/8,1/4,1/2,1"
LAST = 12


def structure(family: str = "low_rank", **arguments) -> StructureConfig:
    theta = theta_of(family, arguments=arguments or {"rank": 8})
    return StructureConfig(str(theta), output_order=output_order_of(family))


def nested(menu: str = MENU, **changes) -> Science:
    return replace(tiny(), **{"structure": structure(), "nested": menu, **changes})


def evaluations(folder) -> list[dict]:
    return json.loads(result(folder))["evaluations"]


THETAS = {
    "low_rank": "(1|0|0|0|1|0|8*0)",
    "btt": "(1/2|0|1/2|0|1/2|1/2|8*0)",
    "all indices": "(1/3|1/3|1/3|1/3|1/3|1/3|8*0)",
}


@pytest.mark.parametrize("name", THETAS)
@pytest.mark.parametrize("shape", [(64, 256), (256, 64)])
@pytest.mark.parametrize("order", ["fed", "efd"])
def test_leading_ranks_are_the_layer_of_that_rank(name: str, shape: tuple[int, int], order: str) -> None:
    """In both orders of contraction and of the output: the factors cut along their rank, in a layer of its own."""
    torch.manual_seed(0)
    plan = plan_theta(Theta.parse(THETAS[name]), *shape, output_order=order)
    assert plan.sizes.r == 8
    whole = make_linear(plan, LinearOptions(16.0)).double()
    assert isinstance(whole, EinsumLinear)
    x = torch.randn(5, shape[0], dtype=torch.float64)
    for share in menu_of(MENU):
        rank = int(plan.sizes.r * share)
        narrow = make_linear(plan_linear(plan.sizes.of_rank(rank), output_order=order), LinearOptions(16.0)).double()
        A, B = whole.equation_factors()
        narrow.take_factors((A[:, :, :rank], B[:, :, :rank]))
        whole.take_ranks(share)
        for gelu in (False, True):
            assert torch.allclose(whole(x, gelu=gelu), narrow(x, gelu=gelu), rtol=1e-12, atol=1e-12)
        assert narrow.plan.macs == share * plan.macs
    with pytest.raises(ValueError, match="no whole rank"):
        whole.take_ranks(Fraction(1, 3))


@pytest.mark.parametrize("menu", [MENU, f"layer:{MENU}"])
def test_the_bill_is_what_was_executed(menu: str, tmp_path: Path, data_root: Path, monkeypatch) -> None:
    """By the shapes of all products that are made in training; so do the table and the result say."""
    executed = []
    product = linear.structured_product

    def counted(x, first, second, a_first, gelu=False):
        # Not what looks for kernels before a run, with fewer tokens.
        if torch.is_grad_enabled() and x.shape[0] == 64:
            executed.append(64 * ProductSizes.of(first.shape, second.shape, a_first).macs)
        return product(x, first, second, a_first, gelu)

    monkeypatch.setattr(linear, "structured_product", counted)
    science = nested(menu)
    _, folder = train(science, (5, LAST), tmp_path, data_root)
    others = ledger(science).macs_per_token - sum(shape.plan.macs for shape in nested_linears(science))
    assert flops_until(science, LAST) == 6 * (sum(executed) + 64 * LAST * others)
    table = load(tmp_path)
    assert (table["training_flops"] == [flops_until(science, step) for step in table["step"]]).all()
    assert (table["paper_flops"] * 6 == table["training_flops"]).all()
    assert json.loads(result(folder))["training_flops"] == flops_until(science, LAST)
    assert flops_until(science, LAST) < step_flops(science) * LAST


@pytest.mark.parametrize("menu", [MENU, f"layer:{MENU}"])
def test_draws_are_spread_evenly_and_count_over_blocks_of_steps(menu: str) -> None:
    science = nested(menu)
    steps = [list(shares_at(science, step).values()) for step in range(1500)]
    drawn = [share for one in steps for share in (one if menu != MENU else one[:1])]
    assert all(len(one) == 6 and (len(set(one)) == 1 or menu != MENU) for one in steps)
    assert any(len(set(one)) > 1 for one in steps) == (menu != MENU)
    for share in menu_of(MENU):
        assert drawn.count(share) / len(drawn) == pytest.approx(0.25, abs=4 * (3 / 16 / len(drawn)) ** 0.5)
    for first, last in ((0, 1), (4090, 4100), (8191, 8193)):
        macs = {shape.name: shape.plan.macs for shape in nested_linears(science)}
        fixed = ledger(science).macs_per_token - sum(macs.values())
        steps = [sum(macs[name] * share for name, share in shares_at(science, s).items()) for s in range(first, last)]
        cost = 6 * 64 * (sum(steps) + fixed * (last - first))
        assert flops_until(science, last) - flops_until(science, first) == cost
    for steps in (1, 7, 100, 5000):
        assert steps_for_flops(lambda _: science, flops_until(science, steps)) == steps


@pytest.mark.parametrize("cut", [5])
def test_it_resumes_bit_by_bit(cut: int, tmp_path: Path, data_root: Path) -> None:
    science = nested()
    train(science, (cut,), tmp_path / "cut", data_root)
    _, resumed = train(science, (cut, LAST), tmp_path / "cut", data_root)
    again = replace(PLACEMENT, recompute=True)
    _, whole = train(science, (cut, LAST), tmp_path / "whole", data_root, placement=again)
    assert result(resumed) == result(whole)
    assert_same_state(resumed, whole, LAST)


def test_every_share_is_evaluated_as_the_model_that_it_is(tmp_path: Path, data_root: Path) -> None:
    """Against a model without any menu that is given the weights, and its layers a rank."""
    science = nested()
    _, folder = train(science, (5, LAST), tmp_path, data_root)
    rows = evaluations(folder)
    assert [(row["step"], row["rank_share"]) for row in rows] == [
        (step, float(share)) for step in (5, LAST) for share in menu_of(MENU)
    ]
    seen = [row for row in folder.journal.rows() if row["step"] == LAST and "rank_share" in row]
    assert {row["kind"]: row["rank_share"] for row in seen} == {
        "eval_1_8": 0.125, "eval_1_4": 0.25, "eval_1_2": 0.5, "eval": 1.0,
    }  # fmt: skip
    assert payload(seen[0], science)["over_tokens/eval_1_8_loss"] == seen[0]["val_loss"]
    plain = replace(science, nested="none")
    task = open_task(plain, data_root)
    model = task.build_model()
    model.load_state_dict(checkpoint.read(folder.checkpoints[LAST])["model"])
    losses = {}
    for share in menu_of(MENU):
        take_share(model, share)
        losses[float(share)] = task.validation_loss(model.eval(), torch.device("cpu"))
    assert losses == {row["rank_share"]: row["val_loss"] for row in rows if row["step"] == LAST}
    assert len(set(losses.values())) == 4
    # Who asks for the run's evaluations, as a search or a status does, is told of the whole rank.
    whole = [row["val_loss"] for row in rows if row["rank_share"] == 1]
    assert [row["val_loss"] for row in folder.published()] == whole
    assert [row["val_loss"] for row in folder.journal.evaluations()] == whole


def test_tables_and_laws_know_a_share_as_a_variant(tmp_path: Path, data_root: Path) -> None:
    science = nested()
    train(science, (5, LAST), tmp_path, data_root)
    train(replace(science, nested="none"), (5, LAST), tmp_path, data_root)
    table = load(tmp_path)
    ours = table[table["config.nested"] == MENU]
    of_share = {share: ours[ours["rank_share"] == share] for share in (0.25, 1)}
    assert set(of_share[0.25]["variant"]) == {"low_rank-r8+nested@1/4"}
    assert set(of_share[1]["variant"]) == {"low_rank-r8+nested"}
    narrow = ledger(replace(science, structure=structure(rank=2), nested="none"))
    assert ledger_at(science, Fraction(1, 4)).macs == narrow.macs
    assert (of_share[0.25]["macs_per_token"] == narrow.macs_per_token).all()
    assert (of_share[0.25]["params_total"] == narrow.params_total).all()
    assert (of_share[0.25]["weight_bytes"] == ledger(science).weight_bytes).all()
    frame, _, cautions = from_runs(table, Choices())
    assert frame.groupby("variant", observed=True)["run"].nunique().to_dict() == {
        "low_rank-r8": 1, "low_rank-r8+nested": 1, **{f"low_rank-r8+nested@1/{k}": 1 for k in (2, 4, 8)},
    }  # fmt: skip
    assert frame["run"].nunique() == 5
    assert frame.groupby("variant", observed=True)["N"].first()["low_rank-r8+nested@1/4"] == narrow.macs_per_token
    assert {one.variant for one in cautions if one.name == "nested_ranks"} == {*frame["variant"]} - {"low_rank-r8"}
    assert load(tmp_path).equals(table)


def test_ranks_that_are_not_drawn_do_not_move(data_root: Path) -> None:
    science = nested()
    task = open_task(science, data_root)
    model = task.build_model()
    take_share(model, Fraction(1, 4))
    task.loss(model, task.train_batch(0)).backward()
    layer = model.get_submodule("blocks.0.attention.v")
    first, second = (getattr(layer, factor.name) for factor in layer.plan.factors)
    assert not first.grad[:, 2:].any()
    assert not second.grad[..., 2:].any()
    other = model.get_submodule("blocks.0.ffn.down")
    assert other.leading == 2


def test_a_nested_run_starts_from_a_dense_one(tmp_path: Path, data_root: Path) -> None:
    """At rank d its whole rank knows all and has the loss of the parent, which is trained without a menu."""
    parent = tiny("dense", model=replace(tiny().model, dtype="float64"))
    _, dense = train(parent, (LAST,), tmp_path, data_root)
    science = nested("1/2,1", model=parent.model, structure=structure(rank="d"), start=StartConfig(parent, LAST))
    _, folder = train(science, (0, 3), tmp_path, data_root)
    assert evaluations(folder)[1]["val_loss"] == pytest.approx(evaluations(dense)[-1]["val_loss"], rel=1e-10)
    words = ["structure=low_rank", "structure.rank=8", "start.structure=dense", "start.share=.5", "schedule=cosine"]
    words += ["grid=isoflop", "grid.widths=[16]", "budget=1e9", "model.weight_norm=none", "nested.menu=[1/2,1]"]
    (cell,) = plan_sweep(sweep_request([*ARGUMENTS, *words])).cells
    assert cell.science.start.parent.nested == "none"
    assert cell.training_flops == pytest.approx(1e9, rel=0.02)


SPELLED = {
    "[1, 1/2]": "1/2,1",
    "0.125,.5,1": "1/8,1/2,1",
    "2/4,1/2,1": "1/2,1",
    "none": "none",
    "layer:1,.5": "layer:1/2,1",
}


@pytest.mark.parametrize("text", SPELLED)
def test_a_menu_has_one_spelling(text: str) -> None:
    assert canonical(text) == SPELLED[text]
    science = nested(text)
    assert science.nested == SPELLED[text]
    assert science_from(to_mapping(science)).nested == science.nested
    assert (run_id(science) == run_id(nested("none"))) == (text == "none")


def test_names_and_axes() -> None:
    assert nested().variant == "low_rank-r8+nested"
    assert nested("1/4,1").variant == "low_rank-r8+nested-1:4"
    assert nested(f"layer:{MENU}").variant == "low_rank-r8+nested-layer"
    words = ["structure=low_rank,dense", "structure.rank=8", "grid.widths=[16]", "budget=1e9"]
    request = sweep_request(
        [*ARGUMENTS, *words, "nested.menu=none,[1/2,1]", "nested.draw=layer", "model.weight_norm=none"]
    )
    assert [template.science.variant for template in request.templates] == [
        "low_rank-r8", "low_rank-r8+nested-layer-1:2", "dense",
    ]  # fmt: skip


def test_widths_that_are_chosen_have_whole_ranks() -> None:
    words = ["structure=low_rank", "structure.rank=d/4", "budget=1e11", "nested.menu=[1/8,1]"]
    widths = {cell.science.model.d_model for cell in plan_sweep(sweep_request([*ARGUMENTS, *words])).cells}
    assert len(widths) > 1
    assert all(width % 32 == 0 for width in widths)


@pytest.mark.parametrize(
    ("menu", "changes", "said"),
    [
        ("1/2", {}, r"\[1/2\] lacks 1, the whole rank"),
        ("1", {}, "the whole rank alone"),
        ("[]", {}, "is no share of a rank"),
        ("2,1", {}, "2 is no share"),
        ("1/0,1", {}, "1/0 is no share"),
        ("x,1", {}, "x is no share"),
        (MENU, {"structure": tiny("dense").structure}, "dense, which has no ranks"),
        (MENU, {"structure": structure("btt", rank=4, factors=3)}, "of 3 factors"),
        (MENU, {"moe": MoeConfig("ffn", num_experts=4)}, "moe = ffn"),
        (MENU, {"guide": GuideConfig("full", steps=3)}, "guide = full"),
    ],
)
def test_bad_menus_are_refused(menu: str, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        nested(menu, **changes)


@pytest.mark.parametrize(
    ("family", "rank", "said"),
    [
        ("low_rank", 4, r"1/8 of rank 4, which blocks.0.* a menu that fits is nested.menu=\[1/4,1/2,1\], .* 8 divides"),
        ("btt", 1, r"1/8 of rank 1, .* whole rank; ranks that 8 divides fit"),
    ],
)
def test_a_share_is_a_whole_rank(family: str, rank: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ledger(nested(structure=structure(family, rank=rank)))
