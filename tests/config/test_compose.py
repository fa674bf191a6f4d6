"""The command line: lists are axes, a theta is one value, and every mistake is one line that names the way out."""

from pathlib import Path

import pytest

from structlin.config.compose import CONFIG_DIR, options
from structlin.config.doors import sweep_request, train_request
from structlin.config.model import Gpt2Config
from structlin.config.request import SweepRequest
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.structure import CATALOG, lookup
from structlin.structure.sample import sample_thetas

BUDGET = ["scale=small", "budget=1e13"]


def request(*arguments: str) -> SweepRequest:
    return sweep_request([*BUDGET, *arguments])


def names(*arguments: str) -> list[str]:
    return [template.science.structure.name for template in request(*arguments).templates]


def thetas(*arguments: str) -> list[str]:
    return [template.science.structure.theta for template in request(*arguments).templates]


# --- axes ---------------------------------------------------------------------------------------------------------


def test_commas_are_axes_and_all_are_crossed() -> None:
    found = sweep_request(
        ["scale=small", "structure=dense,btt", "budget=1e15,1e14", "seed=0,1", "model.num_layers=3,6"]
    )
    assert found.budgets == (1e14, 1e15)
    cells = {
        (t.science.structure.name, t.science.seed, t.science.model.num_layers, t.schedule) for t in found.templates
    }
    assert cells == {
        (name, seed, layers, "constant") for name in ("dense", "btt") for seed in (0, 1) for layers in (3, 6)
    }
    assert len(found.templates) == 8


def test_one_value_is_no_axis() -> None:
    assert len(request("structure=btt", "model.num_layers=6").templates) == 1


@pytest.mark.parametrize(
    ("argument", "seeds"), [("seed=0,1", [0, 1]), ("seed=range(3)", [0, 1, 2]), ("seed=choice(4,2)", [4, 2])]
)
def test_hydras_own_sweeps_work(argument: str, seeds: list[int]) -> None:
    assert [template.science.seed for template in request("structure=btt", argument).templates] == seeds


def test_a_list_in_brackets_is_one_value() -> None:
    found = request("structure=btt", "grid.widths=[64,128]", "grid.tokens_per_param=[2,20]")
    assert (found.grid.widths, found.grid.tokens_per_param) == ((64, 128), (2.0, 20.0))
    assert request("model.structured=[blocks.*,head]").templates[0].science.model.structured == ("blocks.*", "head")


@pytest.mark.parametrize(
    ("grid", "schedules"), [("frontier", "constant"), ("isoflop", "cosine"), ("cooldown", "cooldown")]
)
def test_a_grid_brings_its_schedule(grid: str, schedules: str) -> None:
    found = request("structure=btt", f"grid={grid}")
    assert (found.grid.design, found.templates[0].schedule) == (grid, schedules)


def test_scales_are_fixed_and_can_be_overridden() -> None:
    small = request("structure=btt").templates[0].science
    assert (small.data.name, small.model.d_head, small.schedule.warmup_steps) == ("sotu", 16, 100)
    paper = sweep_request(["structure=btt", "budget=1e19"]).templates[0].science
    assert (paper.data.name, paper.model.d_head, paper.schedule.warmup_steps) == ("openwebtext", 64, 2000)
    assert (paper.optim.batch_tokens, paper.optim.lr, paper.model.dtype) == (65_536, 3e-3, "bfloat16")
    assert request("schedule.warmup_steps=7").templates[0].science.schedule.warmup_steps == 7


# --- structures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_structure_composes(name: str) -> None:
    assert thetas(f"structure={name}") == [str(lookup(name))]


@pytest.mark.parametrize(
    "written",
    [
        "1/3,0,2/3,0,2/3,1/3,1/4",
        "(1/3|0|2/3|0|2/3|1/3|1/4)",
        "'(1/3|0|2/3|0|2/3|1/3|1/4)'",
        "1/3|0|2/3|0|2/3|1/3|1/4",
        "[1/3,0,2/3,0,2/3,1/3,0.25]",
        "(1/3,0,2/3,0,2/3,1/3,.25)",
        " 1/3, 0, 2/3, 0, 2/3, 1/3, 1/4",
    ],
)
def test_seven_numbers_are_one_theta(written: str) -> None:
    assert thetas("structure=einsum", f"structure.theta={written}") == [str(lookup("btt13"))]


def test_several_in_parentheses_are_several() -> None:
    written = "structure.theta=(1/3|0|2/3|0|2/3|1/3|1/4),(1/2|0|1/2|0|1/2|1/2|0)"
    assert names("structure=einsum", written) == ["btt13", "btt"]


def test_decimals_are_kept_as_written() -> None:
    assert thetas("structure=einsum", "structure.theta=0.33,0,0.67,0,0.67,0.33,0") == [
        "(33/100|0|67/100|0|67/100|33/100|0)"
    ]


@pytest.mark.parametrize(
    ("rho", "found"),
    [("1/4", ["btt11"]), ("0.25", ["btt11"]), ("0", ["btt"]), ("0,1/4,1/3", ["btt", "btt11", "btt12"])],
)
def test_rho_overrides(rho: str, found: list[str]) -> None:
    assert names("structure=btt", f"structure.rho={rho}") == found


def test_the_papers_rounding_is_in_the_name_and_takes_its_decimals() -> None:
    assert names("structure=btt2", "structure.rounding=paper,exact") == ["btt2/paper", "btt2"]
    assert thetas("structure=btt2", "structure.rounding=paper")[0].startswith("(33/100|")


def test_a_sample_is_a_sweep() -> None:
    bounds = {"psi": (1.0, 1.0)}
    found = thetas("structure=sample", "structure.count=5", "structure.psi=[1,1]", "structure.seed=3")
    assert found == [str(theta) for theta in sample_thetas(5, 3, bounds)]
    assert len(thetas("structure=sample")) == 32


def test_one_run_by_train() -> None:
    found = train_request(["scale=small", "structure=btt", "model.d_model=512", "tokens=1e7"])
    assert (found.d_model, found.tokens, found.template.science.structure.name) == (512, 10**7, "btt")


# --- mistakes -----------------------------------------------------------------------------------------------------

WRONG = {
    "structure=bt": "did you mean 'btt'",
    "structre=btt": "did you mean 'structure'",
    "model.num_layer=3": "did you mean 'model.num_layers'",
    "nonsense": "is no key=value",
    "--structure=btt": "is no key=value",
    "+x=1": "neither added",
    "~structure": "is no key=value",
    "structure.theta=1/2,0,1/2": "structure=btt has its own theta",
    "structure=einsum": "structure.theta=1/3,0,2/3,0,2/3,1/3,1/4",
    "structure.rho=0.9": "degenerate",
    "structure.rho=much": "not a number",
    "structure.rounding=floor": "valid: exact, paper",
    "structure.count=3": "unknown key",
    "model.dtype=float16": "valid: bfloat16, float32, float64",
    "model.num_layers=2.5": "whole number",
    "model.num_layers=0": "at least 1",
    "model.structured=[block.*]": "matches no linear",
    "model.structured=[]": "use structure=dense",
    "model.d_model=64": "grid.widths=[..]",
    "model.context=100": "no multiple of model.context",
    "optim.lr=fast": "a number",
    "optim.lr=inf": "above 0",
    "optim.lr=nan": "above 0",
    "optim.clip=inf": "at least 0",
    "optim.weight_decay=-1": "at least 0",
    "optim.rate_rule=mup": "valid: naive, structure",
    "budget=much": "is not a number",
    "budget=0": "between 0 and 1e30",
    "budget=inf": "between 0 and 1e30",
    "budget=nan": "between 0 and 1e30",
    "seed=-1": "seed = -1",
    "seed=4294967296": "must lie in",
    "grid=isoflops": "did you mean 'isoflop'",
    "grid.points=0": "at least 1",
    "grid.points=2,6": "belongs to the sweep as a whole",
    "grid.widths=64,128": "grid.widths=[64,128]",
    "grid.widths=[]": "at least 1",
    "grid.tokens=[1e5]": "give one of them",
    "grid.tokens_per_param=[5,inf]": "low <= high",
    "grid.tokens_per_param=[9,3]": "low <= high",
    "dry_run=maybe": "true or false",
    "format=xml": "valid: json, table",
    "format=json": "add dry_run=true",
    "scale=big": "valid: paper, pixels, pixels_small, regression, regression_small, small",
    "data=c4": "valid: cifar5m, digits, openwebtext, sotu, teacher, text",
    "data.tokenizer=bpe": "char96",
    "data.max_epochs=0": "above 0",
    "device=tpu": "valid: auto, cpu, cuda",
    "threads=0": "at least 1",
    "threads=1,2": "belongs to the sweep as a whole",
    "grid=frontier,isoflop": "design belongs to the sweep as a whole",
    "launch.workers=1,2": "belongs to the sweep as a whole",
    "tracking=auto,journal": "belongs to the sweep as a whole",
    "launch.workers=-1": "at least 0",
    "evals_per_decade=0": "at least 1",
    "structure=[": "cannot read",
}


@pytest.mark.parametrize(("argument", "named"), WRONG.items(), ids=WRONG)
def test_a_mistake_is_one_line_that_names_the_way_out(argument: str, named: str) -> None:
    with pytest.raises(UserError) as refused:
        sweep_request([*BUDGET, "structure=btt", argument])
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["structure=einsum", "structure.theta=1/2,0,1/2"], "3 numbers, but needs 7"),
        (["structure=einsum", "structure.theta=0,1/2,1/2,1/2,0,1/2,0"], "swap A and B"),
        (["structure=einsum", "structure.theta=1/2,0,0.6,0,1/2,1/2,0"], "must be 1"),
        (["structure=sample", "structure.count=0"], "structure.count"),
        (["structure=sample", "structure.count=x"], "structure.count"),
        (["structure=sample", "structure.seed=x"], "structure.seed"),
        (["structure=sample", "structure.psi=1"], "[low, high]"),
        (["structure=sample", "structure.count=2", "structure.nu=[3,4]"], "widen the bounds"),
        (["structure=btt", "model.structured=[blocks.3.*]"], "blocks.<0..2>"),
    ],
)
def test_mistakes_of_several_words(arguments: list[str], named: str) -> None:
    with pytest.raises(UserError) as refused:
        request(*arguments)
    assert named in str(refused.value)


def test_a_sweep_needs_a_budget() -> None:
    with pytest.raises(UserError, match="budget=1e15"):
        sweep_request(["scale=small", "structure=btt"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["tokens=1e6"], "model.d_model=512 tokens=1e7"),
        (["model.d_model=64"], "model.d_model=512 tokens=1e7"),
        (["model.d_model=64", "tokens=1e6", "structure=btt,dense"], "use sweep.py"),
        (["model.d_model=64", "tokens=1e6", "structure=sample"], "use sweep.py"),
        (["model.d_model=64", "tokens=0"], "tokens = 0"),
        (["model.d_model=64", "tokens=1e6", "budget=1e15"], "unknown key 'budget'"),
    ],
)
def test_mistakes_of_train(arguments: list[str], named: str) -> None:
    with pytest.raises(UserError) as refused:
        train_request(["scale=small", *arguments])
    assert named in str(refused.value)


def test_a_width_that_no_head_divides_names_the_nearest() -> None:
    with pytest.raises(UserError, match="nearest widths: 64, 128"):
        Gpt2Config(d_model=100)


def test_help_lists_groups_and_keys() -> None:
    text = options("sweep")
    assert "structure=btt|btt1|" in text
    assert "tokens_per_param" in text


_IMAGES = f"data.path={__file__}"
_NEEDS = {
    ("", "einsum"): ["structure.theta=1/3,0,2/3,0,2/3,1/3,1/4"],
    ("", "text"): [f"data.path={__file__}"],
    ("data", "cifar5m"): ["task=pixels", "scale=pixels", _IMAGES],
    ("data", "digits"): ["task=pixels", "scale=pixels_small"],
    ("data", "teacher"): ["task=regression", "scale=regression"],
    ("model", "mlp"): ["task=regression", "scale=regression"],
    ("scale", "pixels"): ["task=pixels", _IMAGES],
    ("scale", "pixels_small"): ["task=pixels"],
    ("scale", "regression"): ["task=regression"],
    ("scale", "regression_small"): ["task=regression"],
    ("task", "pixels"): ["scale=pixels", _IMAGES],
    ("task", "regression"): ["scale=regression"],
}
"""What an option asks for besides itself."""


def test_the_scale_of_another_task_is_told() -> None:
    with pytest.raises(UserError, match=r"model=mlp has no model.d_head.*scale=regression\|regression_small"):
        request("task=regression")


# The files of configs/study are argument lists, composed in test_study.py.
@pytest.mark.parametrize(
    "path",
    sorted(path for path in CONFIG_DIR.glob("*/*.yaml") if path.parent.name != "study"),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_every_option_of_every_group_composes(path: Path) -> None:
    group, name = path.parent.name, path.stem
    found = request(f"{group}={name}", *_NEEDS.get((group, name), _NEEDS.get(("", name), [])))
    assert all(isinstance(template.science, Science) for template in found.templates)
