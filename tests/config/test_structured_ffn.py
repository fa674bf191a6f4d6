"""scale=structured_ffn: the published sizes, counts and settings of arXiv 2406.16450, and what overrides them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from structlin.anatomy.compute import flops_until
from structlin.anatomy.ledger import ledger
from structlin.command import sweep as sweep_command
from structlin.config.doors import sweep_request, train_request
from structlin.config.structured_ffn import SIZES
from structlin.errors import UserError
from structlin.models.gpt2 import GPT2
from structlin.planning.grid import Cell, plan_sweep

SCALE = ["scale=structured_ffn", "dry_run=true"]


def cell(*words: str) -> Cell:
    (found,) = plan_sweep(sweep_request([*SCALE, *words])).cells
    return found


# ---- counts ---------------------------------------------------------------------------------------------------------

PARAMETERS = [
    # Millions, as published.
    ("s", "dense", 63, 110), ("m", "dense", 63, 335), ("l", "dense", 63, 729), ("xl", "dense", 63, 1274),
    ("xl", "low_rank", 63, 985), ("xl", "block_dense", 63, 955), ("xl", "block_shuffle", 63, 985),
    ("xl", "low_rank", 32, 744), ("xl", "block_dense", 32, 728), ("xl", "block_shuffle", 32, 744),
]  # fmt: skip


@pytest.mark.parametrize(("size", "structure", "percent", "millions"), PARAMETERS)
def test_parameters_are_the_published_ones(size: str, structure: str, percent: int, millions: int) -> None:
    found = cell(f"model.size={size}", f"structure={structure}", f"structure.percent={percent}")
    assert round(ledger(found.science).params_total / 1e6) == millions
    with torch.device("meta"):
        model = GPT2(found.science)
    assert sum(parameter.numel() for parameter in model.parameters()) == ledger(found.science).params_total


@pytest.mark.parametrize(
    ("words", "flops"),
    [
        (["structure=dense"], "2.10e+20"),
        (["structure=low_rank", "structure.rank=d/2"], "1.66e+20"),
        (["structure=block_shuffle", "structure.blocks=2"], "1.66e+20"),
        (["structure=low_rank", "structure.rank=d/4"], "1.29e+20"),
        (["structure=block_shuffle", "structure.blocks=4"], "1.29e+20"),
    ],
    ids=" ".join,
)
def test_training_flops_of_the_largest_are_the_published_ones(words: list[str], flops: str) -> None:
    found = cell("model.size=xl", *words)
    assert found.tokens == 48_638 * 512 * 1024 >= 25_500_000_000 > (48_638 - 1) * 512 * 1024
    assert f"{flops_until(found.science, found.step):.2e}" == flops
    # One sequence of the built model, by torch's own counter.
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        GPT2(found.science)(torch.zeros(1, 1024, dtype=torch.long))
    assert counter.get_total_flops() == 2 * 1024 * ledger(found.science).macs_per_token


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("percent", "least", "most"), [(63, 0.58, 0.64), (32, 0.29, 0.33)])
def test_a_share_is_that_of_the_feed_forward_parameters(size: str, percent: int, least: float, most: float) -> None:
    width = SIZES[size].d_model
    for structure in ("low_rank", "block_shuffle", "block_dense"):
        found = cell(f"model.size={size}", f"structure={structure}", f"structure.percent={percent}")
        params = ledger(found.science).params_by_linear
        of_second = params["blocks.1.ffn.up"] + params["blocks.1.ffn.down"] - 5 * width
        assert least < of_second / (8 * width**2) < most, structure
        assert params["blocks.0.ffn.up"] == params["blocks.0.ffn.down"] + 3 * width == 4 * width**2 + 4 * width


def test_a_rank_or_blocks_that_are_given_count() -> None:
    names = {
        "structure=low_rank": "low_rank-d:2",
        "structure=low_rank structure.percent=32": "low_rank-d:4",
        "structure=low_rank structure.rank=64": "low_rank-r64",
        "structure=block_shuffle": "block_shuffle-b2",
        "structure=block_shuffle structure.blocks=8 structure.percent=32": "block_shuffle-b8",
        "structure=block_dense": "block_dense-b2-2d:3",
        "structure=block_dense model.size=xl structure.percent=32": "block_dense-b4-3d:8",
        "structure=low_rank structure.percent=null": "low_rank",
        "structure=btt": "btt",
    }
    for words, name in names.items():
        assert cell(*words.split()).science.structure.name == name
    with pytest.raises(UserError, match=r"structure.percent = 50 must be 63 or 32, the published shares"):
        cell("structure=low_rank", "structure.percent=50")


# ---- settings -------------------------------------------------------------------------------------------------------

PUBLISHED: dict[str, Any] = {
    "model.context": 1024, "model.positions": "rope", "model.tied": True, "model.qk_norm": False,
    "model.branch_scale": "one", "model.logit_scale": "sqrt", "model.ffn_expansion": 4, "model.weight_norm": "none",
    "model.init_std": 0.02, "model.zero_start": (), "model.biases": ("blocks.*", "norm"),
    "model.structured": ("blocks.[1-9]*.ffn.*",), "model.kv_heads": None, "model.attention_width": None,
    "optim.rate_rule": "plain", "optim.beta1": 0.9, "optim.beta2": 0.999, "optim.weight_decay": 0.1,
    "optim.batch_tokens": 512 * 1024, "schedule.kind": "cosine", "schedule.final": 0.1,
}  # fmt: skip
OF_SIZES = {
    "s": (768, 12, 12, 6e-4, 2.2e9), "m": (1024, 24, 16, 3e-4, 6.7e9), "l": (1536, 24, 12, 2.5e-4, 14.6e9),
    "xl": (2048, 24, 16, 2e-4, 25.5e9),
}  # fmt: skip


@pytest.mark.parametrize("size", OF_SIZES)
def test_settings_are_the_published_ones(size: str) -> None:
    found = cell(f"model.size={size}", "structure=low_rank")
    for path, value in PUBLISHED.items():
        group, name = path.split(".")
        assert getattr(getattr(found.science, group), name) == value, path
    model, optim, schedule = found.science.model, found.science.optim, found.science.schedule
    assert set(optim.decayed) >= {"factor", "embedding", "gain", "bias"}
    tokens = OF_SIZES[size][4]
    assert (model.d_model, model.num_layers, model.heads, optim.lr) == OF_SIZES[size][:4]
    assert 0 <= found.tokens - tokens < optim.batch_tokens
    assert (schedule.horizon_steps, schedule.warmup_steps) == (found.step, round(found.step / 10))


def test_every_structure_starts_as_published() -> None:
    inits = {name: cell(f"structure={name}").science.model.init for name in ("dense", "low_rank", "block_shuffle")}
    assert inits == {"dense": "fixed", "low_rank": "svd", "block_shuffle": "orthonormal"}
    assert cell("structure=block_dense").science.model.init == "orthonormal"
    assert cell("structure=low_rank", "model.init=fixed").science.model.init == "fixed"
    assert cell("structure=btt").science.model.init == "fixed"


def test_what_is_given_overrides_the_size() -> None:
    found = cell("model.size=xl", "structure=dense", "grid.widths=[512]", "model.num_layers=6", "model.d_head=32")
    model = found.science.model
    assert (model.d_model, model.num_layers, model.d_head) == (512, 6, 32)
    assert found.tokens // 10**8 == 255
    assert cell("structure=dense", "optim.lr=1e-3").science.optim.lr == 1e-3
    assert cell("structure=dense", "model.num_heads=4").science.model.heads == 4
    (short,) = plan_sweep(sweep_request([*SCALE, "structure=dense", "grid.tokens=[1e8]"])).cells
    assert (short.science.model.d_model, short.step) == (768, 191)
    by_budget = cell("structure=dense", "budget=1e17")
    assert by_budget.training_flops == pytest.approx(1e17, rel=1e-2)
    assert by_budget.science.schedule.warmup_steps == round(by_budget.step / 10)


def test_sizes_are_an_axis() -> None:
    cells = plan_sweep(sweep_request([*SCALE, "model.size=s,m,l,xl", "structure=dense,low_rank"])).cells
    assert len(cells) == 8
    assert {one.science.model.d_model for one in cells} == {768, 1024, 1536, 2048}
    assert len({one.science.variant for one in cells}) == 2


def test_a_design_that_is_asked_for_has_its_own_schedule() -> None:
    kinds = {}
    for grid in ("", "grid=isoflop", "grid=frontier", "grid=cooldown"):
        words = [*SCALE, "structure=dense", "budget=1e19", *([grid] if grid else [])]
        kinds[grid] = plan_sweep(sweep_request(words)).cells[0].science.schedule.kind
    assert kinds == {
        "": "cosine", "grid=isoflop": "cosine", "grid=frontier": "constant", "grid=cooldown": "cooldown"
    }  # fmt: skip
    with pytest.raises(UserError, match=r"schedule.warmup_share = 1.5 must lie in \[0, 1\]"):
        cell("structure=dense", "schedule.warmup_share=1.5")


def test_a_share_of_warm_up_goes_with_every_cosine() -> None:
    words = ["scale=small", "grid=isoflop", "structure=dense", "budget=1e13", "grid.widths=[64]", "dry_run=true"]
    for more, steps in (([], 100), (["schedule.warmup_share=0.25"], None)):
        (found,) = plan_sweep(sweep_request([*words, *more])).cells
        assert found.science.schedule.warmup_steps == (steps or round(found.step / 4))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.size=xxl"], r"model.size = xxl is unknown; did you mean 'xl'\?"),
        (["scale=paper", "model.size=s", "budget=1e15"], r"unknown key 'model.size'"),
        (["model.num_layers=1"], r"matches no linear"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep_request([*SCALE, "structure=low_rank", *words])


# ---- without files, and with them -----------------------------------------------------------------------------------


def test_a_dry_run_needs_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scale=structured_ffn", "model.size=xl", "structure=block_dense", "dry_run=true", f"runs={tmp_path}"]
    assert sweep_command.main(words) == 0
    said = capsys.readouterr().out
    assert "955M" in said
    assert "25.5B" in said


def test_training_needs_the_text_and_a_tokenizer(tmp_path: Path) -> None:
    text = tmp_path / "some.txt"
    text.write_text("words\n" * 100)
    for request in (sweep_request, train_request):
        with pytest.raises(UserError, match=r"data=text needs data.path="):
            request(["scale=structured_ffn", "structure=dense"])
        with pytest.raises(
            UserError, match=r"data.tokenizer=vocab32000 is known by its size alone.*data.tokenizer=PATH"
        ):
            request(["scale=structured_ffn", "structure=dense", f"data.path={text}"])


def test_one_run_has_the_width_and_the_length_of_its_size(tmp_path: Path) -> None:
    text = tmp_path / "some.txt"
    text.write_text("words\n" * 100)
    words = ["scale=structured_ffn", f"data.path={text}", "data.tokenizer=gpt2"]
    request = train_request([*words, "model.size=m"])
    assert (request.d_model, request.tokens) == (1024, 6_700_000_000)
    request = train_request([*words, "model.d_model=512", "tokens=1e8"])
    assert (request.d_model, request.tokens) == (512, 10**8)


def test_the_small_scale_is_typed_as_others_are() -> None:
    words = ["scale=structured_ffn_small", "structure=low_rank", "model.d_model=64", "tokens=1e5"]
    request = train_request(words)
    run = request.template.run(64, 98)
    assert run.data.name == "sotu"
    assert run.variant == "low_rank-d:2+structured-ffn"
    assert (run.schedule.kind, run.schedule.warmup_steps) == ("cosine", 10)
    assert train_request([*words, "structure.percent=32"]).template.science.structure.name == "low_rank-d:4"
    with pytest.raises(UserError, match="needs a width and a length"):
        train_request(words[:2])


def test_a_parent_is_drawn_and_warmed_up_as_its_own_structure_is() -> None:
    words = ["scale=structured_ffn_small", "structure=dense", "start.structure=1|0|0|0|1|0|1/4*1", "start.share=.5"]
    words += ["grid.widths=[32]", "budget=1e11"]
    for more, init, steps in (([], "svd", 100), (["model.init=fixed", "schedule.warmup_steps=50"], "fixed", 50)):
        (cell,) = plan_sweep(sweep_request([*words, *more])).cells
        parent = cell.science.start.parent
        assert parent is not None
        assert (parent.structure.name, parent.model.init, parent.schedule.warmup_steps) == ("low_rank-d:4", init, steps)
        assert cell.science.schedule.warmup_steps == round(0.1 * cell.step)
