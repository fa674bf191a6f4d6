"""The command line: lists are axes, a theta is one value, and every mistake is one line that names the way out."""

from pathlib import Path

import pytest
import yaml

from structlin.command.help import page
from structlin.config.compose import CONFIG_DIR, NAMED, groups
from structlin.config.doors import sweep_request, train_request
from structlin.config.model import Gpt2Config
from structlin.config.request import SweepRequest
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.laws import choices as laws_choices
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
    "optim.rate_rule=mup": "valid: naive, plain, structure",
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
    "scale=big": "valid: classification, paper, pixels, pixels_small, regression, regression_small, small",
    "augment=light": "task = language has no labelled images to augment",
    "data=c4": "valid: cifar10, cifar100, cifar5m, digits, images, openwebtext, sotu, teacher, text",
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
    "structure=[": "[ has no other half",
    "structure=btt,,": "a place of the list is empty; write structure=btt",
    "seed=0,,1": "write seed=0,1",
    "root=x": "did you mean 'data.root'",
    "optim.lr=1e-3)": ") has no other half",
    "model.dtype='float32": "a quotation mark has no other half",
    "data.max_epochs=1,2": "data.max_epochs belongs to the sweep",
    "grid.points=2,3": "grid.points belongs to the sweep",
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


@pytest.mark.parametrize("typed", ["my runs", "runs (new)", "a,b", "~/x", "a'b", "é#:%", "'quoted'", '"quoted"'])
@pytest.mark.parametrize("key", ["runs", "data.root"])
def test_a_path_is_taken_as_it_stands(key: str, typed: str) -> None:
    found = request(f"{key}={typed}")
    said = {"runs": found.site.runs, "data.root": found.site.data_root}[key]
    assert said == Path(typed.strip("'\"" if "quoted" in typed else "")).expanduser()


def test_fit_and_sweep_read_quotes_alike() -> None:
    for typed in ("runs/a b", "'runs/a b'", '"runs/a b"', "runs/a,b"):
        assert laws_choices.parse([f"runs={typed}"]).runs == str(request(f"runs={typed}").site.runs)


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
    text = page("sweep")
    assert "blast block_dense" in text
    assert "tokens_per_param" in text


_IMAGES = f"data.path={__file__}"
_NEEDS = {
    ("", "einsum"): ["structure.theta=1/3,0,2/3,0,2/3,1/3,1/4"],
    ("", "text"): [f"data.path={__file__}"],
    ("data", "cifar5m"): ["task=pixels", "scale=pixels", _IMAGES],
    ("data", "digits"): ["task=pixels", "scale=pixels_small"],
    ("data", "teacher"): ["task=regression", "scale=regression"],
    ("grid", "search"): ["target=1e15"],
    ("guide", "full"): ["grid=isoflop", "schedule=cosine"],
    ("guide", "stochastic"): ["guide.steps=100"],
    ("model", "mlp"): ["task=regression", "scale=regression"],
    ("augment", "light"): ["task=classification", "scale=classification"],
    ("augment", "published"): ["task=classification", "scale=classification"],
    ("data", "cifar10"): ["task=classification", "scale=classification", "dry_run=true"],
    ("data", "cifar100"): ["task=classification", "scale=classification", "dry_run=true"],
    ("data", "images"): ["task=classification", "scale=classification", "dry_run=true", "data.classes=1000"],
    ("model", "vit"): ["task=classification", "scale=classification"],
    ("scale", "classification"): ["task=classification"],
    ("task", "classification"): ["scale=classification"],
    ("scale", "pixels"): ["task=pixels", _IMAGES],
    ("scale", "pixels_small"): ["task=pixels"],
    ("scale", "regression"): ["task=regression"],
    ("scale", "structured_ffn"): ["dry_run=true"],
    ("scale", "regression_small"): ["task=regression"],
    ("task", "pixels"): ["scale=pixels", _IMAGES],
    ("task", "regression"): ["scale=regression"],
}
"""What an option asks for besides itself."""


def test_the_scale_of_another_task_is_told() -> None:
    with pytest.raises(UserError, match=r"model=mlp has no model.d_head.*scale=regression\|regression_small"):
        request("task=regression")


# The files of configs/study are argument lists, composed in test_study.py; NAMED stands for names, which are no files.
@pytest.mark.parametrize(
    "path",
    sorted(path for path in CONFIG_DIR.glob("*/*.yaml") if path.parent.name in groups() and path.stem != NAMED),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_every_option_of_every_group_composes(path: Path) -> None:
    group, name = path.parent.name, path.stem
    found = request(f"{group}={name}", *_NEEDS.get((group, name), _NEEDS.get(("", name), [])))
    assert all(isinstance(template.science, Science) for template in found.templates)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("model=gpt2", "is learned by model=mlp|vit, not gpt2"),
        ("data=sotu", "learns from data=cifar10|cifar100|digits|images, not sotu"),
        ("model.patch=3", "those that do: 1, 2, 4, 8"),
    ],
)
def test_a_mistake_about_images_names_the_way_out(words: str, named: str) -> None:
    with pytest.raises(UserError) as refused:
        sweep_request(["task=classification", "budget=1e12", words])
    assert named in str(refused.value)


@pytest.mark.parametrize("path", sorted((CONFIG_DIR / "setting").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_task_s_model_is_brought_what_it_was_published_with_on_a_data_set(path: Path) -> None:
    """And what is said on the command line counts, an option of a group too."""
    task, model, data = path.stem.split("_")
    words = [f"task={task}", f"model={model}", f"data={data}", "budget=1e12", "dry_run=true"]
    words += ["data.classes=1000"] if data == "images" else []
    brought = yaml.safe_load(path.read_text()).get("optim", {})
    science = sweep_request(words).templates[0].trunk(64)
    assert all(getattr(science.optim, key) == float(value) for key, value in brought.items())
    own = sweep_request([*words, "optim.batch_tokens=7", "augment=light"]).templates[0].trunk(64)
    assert own.optim.batch_tokens == 7
    assert (own.augment.crop, own.augment.mixup) == ("shifted", 0.0)


# --- families -----------------------------------------------------------------------------------------------------

BTT3 = "x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3 r12=4*0 r23=4*0"
FAMILY_LINES = {
    "structure=low_rank structure.rank=d/4": ["low_rank-d:4"],
    "structure=low_rank structure.rank=64": ["low_rank-r64"],
    "structure=low_rank structure.rank=1e2": ["low_rank-r100"],
    "structure=low_rank structure.rank=3/8*d": ["low_rank-3d:8"],
    "structure=low_rank structure.rank=d,d/4,64": ["low_rank-d", "low_rank-d:4", "low_rank-r64"],
    "structure=monarch structure.blocks=2,4,8,16": ["monarch-b2", "monarch-b4", "monarch-b8", "monarch-b16"],
    "structure=monarch": ["btt"],
    "structure=btt structure.rank=4 structure.factors=3": ["btt-r4-c3"],
    "structure=btt structure.factors=2,3,4": ["btt", "btt-c3", "btt-c4"],
    "structure=btt7 structure.rank=4": ["btt7-r4"],
    "structure=block_shuffle structure.blocks=4": ["block_shuffle-b4"],
    "structure=block_shuffle structure.blocks=4 structure.output_order=fed": ["monarch-b4"],
    "structure=block_dense structure.blocks=2 structure.rank=d/2": ["block_dense-b2-d:2"],
    "structure=blast structure.blocks=4 structure.rank=d/4": ["blast-b4-d:4"],
    "structure=kronecker_sum structure.terms=4": ["kronecker_sum-n4"],
    "structure=mpo structure.cores=3 structure.bond=8": ["mpo-c3-r8"],
    "structure=btt structure.output_order=fed,efd": ["btt", "btt-efd"],
    "structure=btt structure.contraction=first": ["btt"],
    "structure=btt,dense,monarch": ["btt", "dense"],
}


@pytest.mark.parametrize(("line", "wanted"), FAMILY_LINES.items(), ids=FAMILY_LINES)
def test_families_compose(line: str, wanted: list[str]) -> None:
    assert names(*line.split()) == wanted


@pytest.mark.parametrize("written", [BTT3, f"'{BTT3}'", f"({BTT3})", BTT3.replace(" ", ", ")])
def test_a_theta_by_its_indices_is_typed_without_quotes(written: str) -> None:
    arguments = ("structure=einsum", f"structure.theta={written}")
    assert (thetas(*arguments), names(*arguments)) == ([BTT3], ["btt-r4-c3"])


def test_thetas_of_both_kinds_are_several() -> None:
    written = f"structure.theta=({BTT3}),(1|0|0|0|1|0|1/4*1)"
    assert names("structure=einsum", written) == ["btt-r4-c3", "low_rank-d:4"]
    assert thetas("structure=einsum", "structure.theta=1,0,0,0,1,0,1/4*1") == ["(1|0|0|0|1|0|1/4*1)"]


def test_the_order_of_contraction_is_part_of_the_variant() -> None:
    found = request("structure=btt,dense", "structure.contraction=first").templates
    assert [template.science.variant for template in found] == ["btt+fixed-norm+first-order", "dense"]


def test_three_factors_are_sampled() -> None:
    found = thetas("structure=sample", "structure.factors=3", "structure.count=4")
    assert found == [str(theta) for theta in sample_thetas(4, factors=3)]
    assert len(set(names("structure=sample", "structure.factors=3", "structure.count=4"))) == 4


def test_one_run_of_a_family_by_train() -> None:
    arguments = ["scale=small", "structure=blast", "structure.blocks=4", "structure.rank=8", "model.d_model=64"]
    found = train_request([*arguments, "tokens=1e6"]).template
    assert (found.asked, found.science.structure.name) == ("blast", "blast-b4-r8")


def test_dense_beside_others_takes_none_of_their_keys() -> None:
    own = "structure.theta=1/6,0,5/6,0,5/6,1/6,0"
    found = [template.science.structure for template in request("structure=dense,einsum", own).templates]
    assert [one.name for one in found] == ["dense", "(1/6|0|5/6|0|5/6|1/6|0)"]
    ranked = request("structure=dense,btt", "structure.rank=1,4").templates
    assert [template.science.structure.name for template in ranked] == ["dense", "btt", "btt-r4"]
    alone = request("structure=dense").templates
    assert ranked[0] == alone[0]


_RANK = ": write a whole number such as 64, or a part of d = min(d_in, d_out): d, d/4, 3/8*d"
_OF_THREE = "structure=btt structure.factors=3"
WRONG_FAMILIES = {
    "structure=low_rank structure.rank=2*d": f"structure.rank = 2*d{_RANK}",
    "structure=low_rank structure.rank=0": f"structure.rank = 0{_RANK}",
    "structure=low_rank structure.rank=1.5": f"structure.rank = 1.5{_RANK}",
    "structure=low_rank structure.rank=x": f"structure.rank = x{_RANK}",
    "structure=low_rank structure.rank=[1,2]": f"structure.rank = [1, 2]{_RANK}",
    "structure=monarch structure.blocks=1": "structure.blocks = 1 must be a whole number of at least 2",
    "structure=monarch structure.blocks=inf": "structure.blocks = inf must be a whole number of at least 2",
    "structure=monarch structure.blocks=four": "structure.blocks = four must be a whole number of at least 2",
    "structure=btt structure.factors=5": "structure.factors = 5 must be a whole number from 2 to 4",
    "structure=monarch structure.rank=4": "structure=monarch takes no structure.rank; it takes structure.blocks",
    "structure=low_rank,monarch structure.rank=d/4": "structure=monarch takes no structure.rank",
    "structure=dense structure.rank=4": "a dense layer has none",
    "structure=blast": "needs structure.blocks and structure.rank, such as structure.blocks=4 structure.rank=d/4",
    "structure=block_dense structure.blocks=4": "block_dense needs structure.rank, such as structure.rank=d/4",
    "structure=btt structure.rank=4 structure.rho=1/4": "structure.rho = 1/4 and structure.rank = 4 both say the rank",
    "structure=btt structure.output_order=dfe": "valid: efd, fed",
    "structure=btt structure.contraction=best": "valid: cheapest, first",
    "structure=blst": "did you mean 'blast'",
    "structure=sample structure.rank=4": "takes no structure.rank; it draws thetas of structure.factors=2|3",
    "structure=sample structure.rho=1/4": "takes no structure.rho",
    "structure=sample structure.factors=4": "thetas of 2 or 3 factors are sampled",
    "structure=sample structure.factors=x": "structure.factors = 'x' is not a number",
    f"{_OF_THREE} moe=btt": "mixes experts of at most two factors, and structure btt-c3 has 3; use moe=none",
    f"{_OF_THREE} moe=ffn": "mixes experts of at most two factors",
    f"{_OF_THREE} structure.head_layout=nddn": "use structure=btt, or head_layout=none",
    f"{_OF_THREE} structure.output_order=efd": "use output_order=fed",
    f"{_OF_THREE} structure.rho=1/4": "joins no two factors by a rank",
    f"{_OF_THREE} structure.rank=d": "is degenerate: it costs d^3.33 per row",
    "structure=btt structure.output_order=efd structure.head_layout=nddn": "use output_order=fed",
    "structure=einsum structure.theta=1,0,0,0,1,0,1/2 structure.blocks=4": "structure=einsum takes no structure.blocks",
}


@pytest.mark.parametrize(("line", "named"), WRONG_FAMILIES.items(), ids=WRONG_FAMILIES)
def test_a_mistake_in_a_family_is_one_line(line: str, named: str) -> None:
    with pytest.raises(UserError) as refused:
        request(*line.split())
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("theta", "named"),
    [
        ("x1=1/2 x12=1/3 y2=1", "alpha + beta + gamma = 0.8333, but must be 1"),
        ("x1=1 y3=1", "factor 2 of theta x1=1 y3=1 has no index"),
        ("x1=1 y5=1", "'y5' is no index"),
        ("x1=2*1 y2=1", "multiply to 2, but must to 1"),
    ],
)
def test_a_mistake_in_a_theta_by_its_indices_is_one_line(theta: str, named: str) -> None:
    with pytest.raises(UserError) as refused:
        request("structure=einsum", f"structure.theta={theta}")
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
