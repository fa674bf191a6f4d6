"""Any task x structure x width composes, plans, is measured, trains two steps and resumes exactly."""

import json
import math
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from structlin.anatomy.ledger import ledger
from structlin.config.doors import sweep_request
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.config.request import Site
from structlin.data import prepare
from structlin.planning.bill import make_bill, to_json
from structlin.planning.grid import Plan, plan_sweep
from structlin.planning.needs import data_needs
from structlin.runs.speeds import Throughputs
from structlin.runs.store import Store
from structlin.runs.table import load
from structlin.structure import CATALOG, Theta, name_of
from structlin.training.entry import execute
from structlin.training.probe import tokens_per_second
from tests.data.pictures import make_folder
from tests.data.test_images import make_npz
from tests.tiny import PLACEMENT

COMMON = ["model.num_layers=1", "schedule.warmup_steps=1", "device=cpu", "tracking=journal", "model.dtype=float32"]
TASKS = {
    "language": ["scale=small", "model.d_head=8", "model.context=16", "optim.batch_tokens=32", "evaluation.tokens=64"],
    "regression": [
        "task=regression",
        "scale=regression_small",
        "data.width=8",
        "data.depth=1",
        "optim.batch_tokens=16",
        "evaluation.tokens=100",
    ],
    "classification": ["task=classification", "optim.batch_tokens=8", "evaluation.tokens=40"],
    "images": ["task=classification", "model=mlp", "data=cifar10", "optim.batch_tokens=8", "evaluation.tokens=40"],
    "pixels": ["task=pixels", "data=cifar5m", "model.num_heads=4", "optim.batch_tokens=386", "evaluation.tokens=384"],
}
FIRST_LOSS = {"language": math.log(96), "regression": 1.0, "pixels": math.log(256), "classification": math.log(10),
              "images": math.log(10)}  # fmt: skip
"""A zero head knows nothing: as many nats as symbols have, or the variance of the labels."""

TASK_OF = {"images": "classification"}
"""Of the cases that are no name of a task."""

THETAS = sorted(set(CATALOG.values()))
NAMES = sorted({name_of(Theta.parse(theta)) for theta in THETAS})
WIDTHS = (16, 24)
STEPS = 2


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with npz files and room for prepared data and runs."""
    root = tmp_path_factory.mktemp("tasks")
    make_npz(root / "npz", (300,))
    make_folder(root, "cifar10", "binary", 30)
    return root


@cache
def plan(task: str, roots: Path) -> tuple[Plan, Site]:
    """Every structure at every width, two steps long."""
    words = [*COMMON, *TASKS[task], f"data.root={roots / 'data'}", f"runs={roots / 'runs'}"]
    files = {"pixels": "npz", "images": "cifar-10-batches-bin"}
    words += [f"data.path={roots / files[task]}"] if task in files else []
    batch = next(int(word.split("=")[1]) for word in words if word.startswith("optim.batch_tokens"))
    widths = ",".join(map(str, WIDTHS))
    # As values of one key: a group of its own for every structure takes a second each to compose.
    thetas = ",".join(f"({theta.replace(',', '|')})" for theta in THETAS)
    request = sweep_request(
        [
            *words,
            "structure=einsum",
            f"structure.theta={thetas}",
            f"grid.widths=[{widths}]",
            f"grid.tokens=[{STEPS * batch}]",
        ]
    )
    return plan_sweep(request), request.site


def prepared(jobs, roots: Path) -> None:
    for recipe, tokens in data_needs(jobs).items():
        prepare(recipe, roots / "data", samples=tokens)


@pytest.mark.parametrize("task", TASKS)
def test_every_structure_composes_plans_and_is_priced(task: str, roots: Path) -> None:
    found, site = plan(task, roots)
    assert len(found.cells) == len(THETAS) * len(WIDTHS) == len(found.jobs)
    assert sorted({cell.science.structure.name for cell in found.cells}) == NAMES
    lines = json.loads(to_json(make_bill(found, site, 1)))["cells"]
    for cell, line in zip(found.cells, lines, strict=True):
        assert cell.science.task == TASK_OF.get(task, task)
        assert run_id(science_from(to_mapping(cell.science))) == run_id(cell.science)
        assert line["flops"]["training"] == 6 * ledger(cell.science).macs_per_token * line["tokens"]
        assert line["step"] == STEPS
    assert len({run_id(cell.science) for cell in found.cells}) == len(found.cells)


# Each structure on a third of the tasks and each task under a third of the structures, at one width; all in long.
SHORT = {
    (structure, task, WIDTHS[0])
    for i, structure in enumerate(NAMES)
    for j, task in enumerate(TASKS)
    if (i + j) % 3 == 0
}
CELLS = [
    pytest.param(*cell, id="-".join(map(str, cell)), marks=() if cell in SHORT else pytest.mark.long)
    for cell in product(NAMES, TASKS, WIDTHS)
]


@pytest.mark.parametrize(("structure", "task", "width"), CELLS)
def test_two_steps_train_and_resume_exactly(task: str, structure: str, width: int, roots: Path, tmp_path: Path) -> None:
    jobs = [job for job in plan(task, roots)[0].jobs if job.science.structure.name == structure]
    assert [job.science.model.d_model for job in jobs] == list(WIDTHS)
    prepared(jobs, roots)
    job = jobs[WIDTHS.index(width)]
    cut, whole = Store(tmp_path / "cut"), Store(tmp_path / "whole")
    early = type(job)(job.science, (0, 1))
    assert execute(early, cut, roots / "data", PLACEMENT) == "done"
    longer = type(job)(job.science, (0, 1, STEPS))
    assert execute(longer, cut, roots / "data", PLACEMENT) == "done"
    assert execute(longer, whole, roots / "data", PLACEMENT) == "done"
    first, *_, last = [row["val_loss"] for row in cut.folder(job.science).journal.evaluations()]
    assert first == pytest.approx(FIRST_LOSS[task], rel=0.25 if task == "regression" else 1e-5)
    assert last != first
    results = [(store.folder(job.science).path / "result.json").read_bytes() for store in (cut, whole)]
    assert results[0] == results[1]


@pytest.mark.parametrize("task", TASKS)
def test_speed_is_measured_without_data_and_stands_in_the_table(task: str, roots: Path, tmp_path: Path) -> None:
    job = next(job for job in plan(task, roots)[0].jobs if job.science.structure.name == "btt")
    speed = tokens_per_second(job.science, PLACEMENT)
    assert 0 < speed < 1e9
    runs = tmp_path / "runs"
    Throughputs(runs).keep(job.science, PLACEMENT, speed)
    prepared([job], roots)
    execute(job, Store(runs), roots / "data", PLACEMENT)
    row = load(runs).iloc[-1]
    assert row["task"] == TASK_OF.get(task, task)
    assert row["tokens_per_second"] == speed
    assert row["tokens"] == STEPS * job.science.optim.batch_tokens
    assert row["training_flops"] == 6 * row["macs_per_token"] * row["tokens"]
    assert row[["macs_attention", "macs_linear", "macs_head", "macs_router"]].sum() == row["macs_per_token"]
    assert (row["params_embedding"] == 0) == (row["model"] == "mlp")
    assert ("val_error" in row) == (row["task"] == "classification")
