"""A study is a command line in a file: every one composes, plans and trains two tiny steps."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.missing import NEEDED
from structlin.anatomy.compute import step_flops
from structlin.anatomy.ledger import ledger
from structlin.command.help import page
from structlin.config.compose import CONFIG_DIR
from structlin.config.doors import sweep_request, train_request
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.config.study import expand_study, sizes, studies
from structlin.data import DataRecipe, prepare
from structlin.errors import UserError
from structlin.launch.carry_out import run_sweep
from structlin.planning.grid import plan_sweep
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.structure import Theta
from structlin.training.entry import execute
from tests.data.pictures import make_classes, make_folder
from tests.data.test_images import make_npz
from tests.tiny import PLACEMENT

FOLDER = CONFIG_DIR / "study"
STUDIES = [(name, size) for name in studies(FOLDER) for size in sizes(FOLDER, name)]


def words(name: str, size: str, root: Path) -> list[str]:
    """The command line of a study, with what it needs besides: generated images where it asks for some."""
    files = {"pixels": "npz", "imagenet": "classes", "weight_norm": "classes"}.get(name, "cifar-10-batches-bin")
    extra = [f"data.path={root / files}"] if (name, size) in NEEDED else []
    extra += ["data.classes=2"] if extra and files == "classes" else []
    return [f"study={name}", f"study.size={size}", f"data.root={root / 'data'}", "tracking=journal", *extra]


OF_ONE_RECIPE = ("compressed", "ffn_slopes", "overtraining", "wide_structured")
"""Studies of StructuredFFN, for which guided stands."""


@pytest.mark.parametrize(
    ("name", "size"), [pytest.param(*one, marks=[pytest.mark.long] * (one[0] in OF_ONE_RECIPE)) for one in STUDIES]
)
def test_a_study_composes_plans_and_trains(name: str, size: str, tmp_path: Path) -> None:
    make_npz(tmp_path / "npz", (300,))
    make_folder(tmp_path, "cifar10", "binary", 30)
    make_classes(tmp_path / "classes")
    tiny = ["model.dtype=float32", "schedule.warmup_steps=1"]
    tiny += ["data.width=8", "data.depth=1"] if name in ("regression", "learning_rates") else []
    request = sweep_request([*words(name, size, tmp_path), *tiny])
    assert plan_sweep(request).cells
    # What starts from another run needs that one first (tests/training/test_start.py), a guide the length of its run.
    science = next(one.science for one in reversed(request.templates) if one.science.start.parent is None)
    science = science.scheduled("cosine", 2) if science.guide.needs_horizon else science
    # Text comes from the embedded corpus here, images from generated files; a batch is two short sequences, a width
    # below that of the fused kernels, of which every study would build its own.
    if science.task == "language":
        heads = {} if science.model.d_head is None else {"d_head": 8}
        science = replace(science, data=DataRecipe("sotu"), model=replace(science.model, context=16, **heads))
    batch = 2 * science.model.context
    science = replace(science.at_width(32), optim=replace(science.optim, batch_tokens=batch))
    science = replace(science, evaluation=replace(science.evaluation, tokens=batch))
    prepare(science.data, tmp_path / "data")
    assert execute(Job(science, (1, 2)), Store(tmp_path / "runs"), tmp_path / "data", PLACEMENT) == "done"


def test_the_small_regression_study_is_what_it_says(tmp_path: Path) -> None:
    plan = plan_sweep(sweep_request(words("regression", "small", tmp_path)))
    by_structure: dict[str, list] = {}
    for cell in plan.cells:
        by_structure.setdefault(cell.science.structure.theta, []).append(cell)
    assert len(by_structure) == 10
    for cells in by_structure.values():
        widths = sorted({cell.science.model.d_model for cell in cells})
        assert len(widths) >= 5
        for width in widths:
            runs = [cell for cell in cells if cell.science.model.d_model == width]
            assert max(cell.step for cell in runs) >= 1_000
            assert sorted(cell.science.seed for cell in runs) == (
                [0, 1, 2] if width in (widths[0], widths[-1]) else [0]
            )
        assert all(cell.science.optim.batch_tokens == 512 for cell in cells)
    for structure in by_structure:
        jobs = [job for job in plan.jobs if job.science.structure.theta == structure]
        flops = [step_flops(job.science) * step for job in jobs for step in job.evaluations]
        assert max(flops) / min(flops) >= 10**1.5
    places = {Theta.parse(theta).taxonomy for theta in by_structure}
    assert len(places) >= 7


def test_the_paper_sizes_are_the_published_ones(tmp_path: Path) -> None:
    make_npz(tmp_path / "npz", (300,))
    for name, widths, rows, lr in [
        ("regression", [64, 128, 512, 1024, 2048, 4096], 4096, 1e-3),
        ("pixels", [32, 64, 128, 256, 512, 1024], 64, 3e-3),
    ]:
        plan = plan_sweep(sweep_request(words(name, "paper", tmp_path)))
        sciences = [cell.science for cell in plan.cells]
        assert sorted({science.model.d_model for science in sciences}) == widths
        assert {science.rows for science in sciences} == {rows}
        assert {science.optim.lr for science in sciences} == {lr}
        assert {(science.schedule.kind, science.schedule.final) for science in sciences} == {("cosine", 0.0)}
        assert {science.model.num_layers for science in sciences} == {3}
        assert {science.model.base_width for science in sciences} == {64}
    assert ledger(sciences[0]).macs["attention"] == 2 * 193 * 32 * 3


def test_a_plan_that_is_only_shown_needs_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its runs have no identity yet; with the files they have one, and training asks for them."""
    make_npz(tmp_path / "npz", (300,))
    bare = ["study=pixels", "study.size=paper", "tracking=journal"]
    shown = ["dry_run=true", "format=json", f"runs={tmp_path}"]
    for more, known in (([], False), ([f"data.path={tmp_path / 'npz'}"], True)):
        request = sweep_request([*bare, *shown, *more])
        run_sweep(request)
        found = json.loads(capsys.readouterr().out)["cells"]
        assert len(found) == 41
        assert {line["run_id"] is not None for line in found} == {known}
        for line, cell in zip(found, plan_sweep(request).cells, strict=True):
            assert line["config"] == to_mapping(cell.science)
            assert line["run_id"] == (run_id(science_from(line["config"])) if known else None)
    with pytest.raises(UserError, match=r"data=cifar5m needs data\.path"):
        sweep_request(bare)


def test_lines_may_have_widths_of_their_own(tmp_path: Path) -> None:
    """And a word of the user counts for all lines."""
    cells = plan_sweep(sweep_request(["study=fig4", "study.size=paper", "tracking=journal"])).cells
    widths = {name: {cell.science.model.d_model for cell in cells if (cell.science.variant == "dense") == name}
              for name in (True, False)}  # fmt: skip
    assert widths == {True: {256, 512, 768, 1024}, False: {256, 512, 768, 1024, 2048, 4096}}
    one = ["study=fig4", "study.size=paper", "grid.widths=[128]", "structure=dense", "tracking=journal"]
    assert {cell.science.model.d_model for cell in plan_sweep(sweep_request(one)).cells} == {128}
    with pytest.raises(UserError, match="most_tokens belongs to the sweep as a whole"):
        sweep_request([*one, "grid.most_tokens=1e6,1e7"])


def test_what_is_said_on_the_command_line_counts(tmp_path: Path) -> None:
    request = sweep_request([*words("regression", "small", tmp_path), "structure=dense", "budget=1e10", "seed=7"])
    assert {template.science.structure.name for template in request.templates} == {"dense"}
    assert request.budgets == (1e10,)
    assert request.templates[0].science.seed == 7


def test_lines_are_command_lines_of_one_study(tmp_path: Path) -> None:
    head = "common: [a=1]\nsizes:\n  small: [b=2]\n  paper: [b=3]\n"
    (tmp_path / "x.yaml").write_text(f"{head}lines:\n  small:\n    - c=1,2 d=1\n    - c=3\n")
    small = [["a=1", "b=2", "c=1,2", "d=1", "e=5"], ["a=1", "b=2", "c=3", "e=5"]]
    assert expand_study(["study=x", "e=5"], tmp_path) == (small, "study=x study.size=small")
    assert expand_study(["study=x", "study.size=paper"], tmp_path)[0] == [["a=1", "b=3"]]
    request = sweep_request(["study=learning_rates", "optim.lr=1e-3", "seed=0"])
    kinds = {(t.science.structure.name, t.science.optim.rate_rule) for t in request.templates}
    # No line asks for a dense layer under the naive rule, and no two for the same run.
    assert len(kinds) == len(request.templates) == 5
    assert request.command == "python sweep.py study=learning_rates optim.lr=1e-3 seed=0"


def test_arguments_without_a_study_stay_as_they_are() -> None:
    arguments = ["structure=btt", "budget=1e15"]
    assert expand_study(arguments, FOLDER) == ([arguments], "")


def test_the_bill_names_the_study_and_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    request = sweep_request(["study=regression", "structure=dense", "grid.widths=[16]", "dry_run=true"])
    assert request.study == "study=regression study.size=small"
    run_sweep(request)
    assert capsys.readouterr().out.splitlines()[0].strip() == request.study


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study=regresion"], "study=regresion is unknown; did you mean 'regression'"),
        (["study=regression", "study.size=large"], r"study.size=large is unknown; valid: small, paper|paper, small"),
        (
            ["study.size=small"],
            r"study.size=small says the size of no study; add study=.*pixels\|rate_landscape\|regression",
        ),
    ],
)
def test_mistakes_list_what_is_valid(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep_request(arguments)


def test_a_study_is_a_sweep_and_help_names_it() -> None:
    with pytest.raises(UserError, match="study"):
        train_request(["study=regression"])
    assert f"study=        {' '.join(studies(FOLDER))}" in " ".join(
        page("sweep").replace("\n" + 16 * " ", " ").split("\n")
    )
    assert "study=" not in page("train")


def test_extra_seeds_are_at_the_ends_of_each_structure(tmp_path: Path) -> None:
    request = sweep_request(
        ["scale=small", "structure=dense,btt", "budget=1e11", "grid.widths=[32,64,96]", "grid.extra_seeds=[5]"]
    )
    seeds = {(cell.science.structure.name, cell.science.model.d_model): set() for cell in plan_sweep(request).cells}
    for cell in plan_sweep(request).cells:
        seeds[cell.science.structure.name, cell.science.model.d_model].add(cell.science.seed)
    for name in ("dense", "btt"):
        assert [seeds[name, width] for width in (32, 64, 96)] == [{0, 5}, {0}, {0, 5}]


def test_no_run_is_longer_than_asked(tmp_path: Path) -> None:
    arguments = ["scale=small", "structure=dense", "budget=1e11", "grid.widths=[32,96]"]
    free = plan_sweep(sweep_request(arguments)).cells
    bound = plan_sweep(sweep_request([*arguments, f"grid.most_tokens={free[0].tokens // 2}"])).cells
    assert bound[0].tokens <= free[0].tokens // 2 + 1024 < free[0].tokens
    assert bound[1] == free[1]
    with pytest.raises(UserError, match=r"grid.most_tokens = 0"):
        replace(sweep_request(arguments).grid, most_tokens=0)
