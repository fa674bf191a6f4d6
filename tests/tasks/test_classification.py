"""Classes of images: the same batch on any number of ranks, errors beside losses, epochs counted and never refused."""

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from structlin.config.doors import sweep_request, train_request
from structlin.config.model import MlpConfig, VitConfig
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.science import EvaluationConfig, Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe, prepare
from structlin.data.augmentation import Augmentation
from structlin.data.recipe import LABELS
from structlin.launch.carry_out import run_sweep
from structlin.planning.bill import make_bill
from structlin.planning.grid import plan_run
from structlin.runs.store import Store, digest_of
from structlin.runs.table import load
from structlin.structure import lookup
from structlin.tasks.classification import ClassificationTask, pixel_order
from structlin.training.feed import read_ahead
from tests.data.pictures import make_folder
from tests.tiny import train

TYPED = "task=classification model=vit data=digits structure=btt model.d_model=64 tokens=60000"
AUGMENTED = Augmentation("resized", True, 0.8, 0.3)


def digits(model: str = "vit", augment: Augmentation = AUGMENTED, rows: int = 24) -> Science:
    config = VitConfig(d_model=16, num_layers=1, patch=4, num_heads=2) if model == "vit" else MlpConfig(
        d_model=16, num_layers=1, outer_norm="none")  # fmt: skip
    return Science(
        structure=StructureConfig(str(lookup("btt"))),
        model=config,
        data=DataRecipe("digits", LABELS),
        optim=OptimConfig(batch_tokens=rows, clip=0.0, lr=3e-3),
        schedule=ScheduleConfig(warmup_steps=0),
        evaluation=EvaluationConfig(tokens=100),
        augment=augment,
        task="classification",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    prepare(DataRecipe("digits", LABELS), folder)
    return folder


@dataclass(frozen=True)
class Rank:
    """One of several processes that only reads."""

    rank: int
    world_size: int

    def mean(self, values: Tensor) -> Tensor:
        raise NotImplementedError

    def sum(self, values: Tensor) -> Tensor:
        raise NotImplementedError

    def gather(self, values: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("model", ["vit", "mlp"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_step_has_the_same_bits_on_any_number_of_ranks(model: str, ranks: int, root: Path) -> None:
    """In any order, and whoever has read it before: 70 steps of 24 rows end in the second epoch of 1,617 images."""
    task = ClassificationTask(digits(model), root)
    for step in (69, 0):
        whole = task.train_batch(step)
        other = ClassificationTask(digits(model), root)
        parts = [other.train_batch(step, Rank(rank, ranks)) for rank in reversed(range(ranks))][::-1]
        for index in (0, 1):
            assert torch.equal(torch.cat([part[index] for part in parts]), whole[index])
    assert not torch.equal(task.train_batch(1)[0], whole[0])


def test_every_image_is_seen_once_an_epoch(root: Path) -> None:
    task = ClassificationTask(digits(augment=Augmentation(), rows=49), root)
    epochs = [torch.cat([task.train_batch(step)[0] for step in range(first, first + 33)]) for first in (0, 33)]
    images, _ = task.train.read(np.arange(len(task.train)))
    standard = torch.from_numpy((images - task.train.mean) / task.train.std)
    for seen in epochs:
        assert torch.equal(seen.flatten(1).sum(1).sort().values, standard.flatten(1).sum(1).sort().values)
    assert not torch.equal(*epochs)


def test_mixup_mixes_a_row_with_its_opposite_and_their_targets_alike(root: Path) -> None:
    plain = ClassificationTask(digits(augment=Augmentation(smoothing=0.1)), root).train_batch(3)
    mixed = ClassificationTask(digits(augment=Augmentation(smoothing=0.1, mixup=0.8)), root).train_batch(3)
    share = float(((mixed[0] - plain[0].flip(0)) / (plain[0] - plain[0].flip(0))).nanmedian())
    assert 0 < share < 1
    for index in (0, 1):
        expected = share * plain[index] + (1 - share) * plain[index].flip(0)
        assert torch.allclose(mixed[index], expected, atol=1e-5)
    assert mixed[1].sum(1) == pytest.approx([1.0] * 24, rel=1e-5)


def test_an_mlp_reads_pixels_in_one_random_order(root: Path) -> None:
    plain = Augmentation()
    rows, _ = ClassificationTask(digits("mlp", plain), root).train_batch(0)
    images, _ = ClassificationTask(digits("vit", plain), root).train_batch(0)
    order = pixel_order(64)
    assert sorted(order) == list(range(64))
    assert list(order) != sorted(order)
    assert torch.equal(rows, images.flatten(1)[:, order])
    other, _ = ClassificationTask(replace(digits("mlp", plain), seed=1), root).train_batch(0)
    assert other.shape == rows.shape


def test_an_evaluation_says_losses_and_errors_of_both_splits(root: Path) -> None:
    """A model that says the right class of every second held-out image errs in half of them."""
    task = ClassificationTask(digits(augment=Augmentation()), root)

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Identity()

        def forward(self, inputs: Tensor) -> Tensor:
            raise NotImplementedError

    model = Half()
    seen: list[Tensor] = []

    def forward(inputs: Tensor) -> Tensor:
        probabilities = targets_of[len(seen)]
        seen.append(model.head(inputs))
        logits = torch.log(probabilities.clamp(min=1e-9)).float()
        logits[::2] = logits[::2].roll(1, dims=1)
        return logits

    model.forward = forward  # type: ignore[method-assign]
    targets_of = [torch.from_numpy(batch[1]) for images in (task.held_out, task.train)
                  for batch in task._batches(images, Augmentation())]  # fmt: skip
    task._feature_update = lambda *_: 0.0  # type: ignore[method-assign]
    found = task.measures(model, torch.device("cpu"))
    assert found["val_error"] == 0.5
    assert found["train_error"] == found["clean_error"] == 0.5
    assert found["val_loss"] == pytest.approx(-0.5 * np.log(1e-9), rel=1e-4)
    assert len(seen) == len(targets_of) == 2


def test_an_evaluation_is_the_same_each_time_and_under_augmentation_another(root: Path) -> None:
    task = ClassificationTask(digits(), root)
    model = task.build_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    first, again = (task.measures(model, torch.device("cpu")) for _ in range(2))
    assert first == again
    assert set(first) == {
        "val_loss", "val_error", "train_loss", "train_error", "clean_loss", "clean_error", "feature_update"
    }  # fmt: skip
    assert first["train_loss"] != first["clean_loss"]
    assert all(0 <= first[name] <= 1 for name in first if name.endswith("error"))
    assert task.validation_loss(model, torch.device("cpu")) == first["val_loss"]


@pytest.mark.parametrize("model", ["vit", "mlp"])
def test_features_have_moved_by_what_the_head_reads_now_less_at_first(model: str, root: Path) -> None:
    task = ClassificationTask(digits(model), root)
    trained = task.build_model()
    assert task.measures(trained, torch.device("cpu"))["feature_update"] == 0.0
    inputs = torch.from_numpy(next(iter(task._batches(task.held_out, Augmentation())))[0])
    read: list[Tensor] = []
    trained.head.register_forward_pre_hook(lambda _, given: read.append(given[0].detach()))
    trained(inputs)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    trained(inputs)
    expected = float((read[1] - read[0]).square().mean().sqrt())
    assert task.measures(trained, torch.device("cpu"))["feature_update"] == pytest.approx(expected, rel=1e-5)
    assert expected > 0


@pytest.mark.parametrize("model", ["vit", "mlp"])
def test_a_run_keeps_its_errors_and_resumes_exactly(model: str, root: Path, tmp_path: Path) -> None:
    science = digits(model)
    for name, steps in (("whole", [(0, 3, 6)]), ("cut", [(0, 3), (0, 3, 6)])):
        for evaluations in steps:
            assert train(science, evaluations, tmp_path / name, root)[0] == "done"
    whole, cut = (Store(tmp_path / name).folder(science).path / "result.json" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    result = json.loads(whole.read_text())
    for row in result["evaluations"]:
        assert {"val_loss", "val_error", "train_loss", "train_error"} <= set(row)
    altered = [{**row, "val_error": row["val_error"] + 0.1} for row in result["evaluations"]]
    assert digest_of(altered) != digest_of(result["evaluations"]) == result["digest"]
    table = load(tmp_path / "whole")
    again = load(tmp_path / "whole")  # what is kept of it
    for found in (table, again):
        assert found["val_error"].tolist() == [row["val_error"] for row in result["evaluations"]]
        assert found["train_error"].tolist() == [row["train_error"] for row in result["evaluations"]]
        assert found["epochs"].tolist() == pytest.approx([0.0, 3 * 24 / 1617, 6 * 24 / 1617])


def test_a_table_of_runs_with_and_without_errors(root: Path, tmp_path: Path, data_root: Path) -> None:
    from tests.tiny import tiny

    train(digits(), (0, 1), tmp_path / "runs", root)
    train(tiny(), (0, 1), tmp_path / "runs", data_root)
    table = load(tmp_path / "runs")
    assert table.loc[table["task"] == "classification", "val_error"].notna().all()
    assert table.loc[table["task"] == "language", "val_error"].isna().all()


def test_epochs_are_counted_and_never_refused(root: Path, tmp_path: Path) -> None:
    words = ["task=classification", "structure=btt", "model.d_model=64", "tokens=60000", f"data.root={root}",
             f"runs={tmp_path}", "data.max_epochs=2"]  # fmt: skip
    request = train_request(words)
    plan = plan_run(request.template, request.d_model, request.tokens, 20)
    bill = make_bill(plan, request.site, 1)
    assert bill.lines[0].epochs == pytest.approx(60032 / 1617)


def test_the_command_as_it_is_typed_brings_what_digits_want() -> None:
    request = train_request(
        ["task=classification", "model=vit", "data=digits", "structure=btt", "model.d_model=64", "tokens=60000"]
    )
    science = request.template.trunk(64)
    assert (science.model.patch, science.model.num_heads, science.model.dtype) == (2, 4, "float32")
    assert (science.optim.batch_tokens, science.schedule.warmup_steps) == (64, 0)
    assert science.variant == "btt+input"


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_cifar_trains(kind: str, tmp_path: Path) -> None:
    recipe = DataRecipe("cifar10", path=str(make_folder(tmp_path / "in", "cifar10", kind, 30)))
    prepare(recipe, tmp_path / "data")
    science = replace(digits(), data=recipe, model=VitConfig(d_model=16, num_layers=1, patch=8, num_heads=2))
    assert train(science, (0, 2), tmp_path / "runs", tmp_path / "data")[0] == "done"


def test_a_sweep_is_billed_though_no_laws_of_its_task_are_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["task=classification", "structure=dense,btt", "budget=1e11", "dry_run=true", f"runs={tmp_path}"]
    for more in ([], ["format=json"]):
        run_sweep(sweep_request([*words, *more]))
        said = capsys.readouterr().out
        assert "not foretold" in said if not more else json.loads(said)["decides"] == []


@pytest.mark.parametrize("readers", [1, 4])
def test_threads_that_read_ahead_give_the_batches_of_their_steps(readers: int, root: Path) -> None:
    task = ClassificationTask(digits(), root)
    with read_ahead(task.train_batch, 12, readers) as ahead:
        for step in range(12):
            assert all(torch.equal(a, b) for a, b in zip(ahead(step), task.train_batch(step), strict=True))


MANY = ["dense", "btt", "btt structure.factors=3 structure.rank=2", "mpo structure.cores=3 structure.bond=2",
        "monarch structure.blocks=2", "blast structure.blocks=2 structure.rank=4",
        "low_rank structure.rank=d/4"]  # fmt: skip


def science_by(words: str, width: int) -> Science:
    return train_request(shlex.split(f"task=classification {words} model.d_model={width} tokens=1")).template.trunk(
        width
    )


@pytest.mark.parametrize("structure", MANY)
@pytest.mark.parametrize("model", ["vit", "mlp"])
def test_one_to_three_factors_train_two_steps_and_resume_exactly(
    model: str, structure: str, root: Path, tmp_path: Path
) -> None:
    words = (
        f"model={model} data=digits structure={structure} model.num_layers=1 optim.batch_tokens=16 evaluation.tokens=40"
    )
    # Patches of four values are too few for most structures.
    patches = ' model.structured=["blocks.*"]' if model == "vit" else ""
    science = science_by(words + patches, 16)
    for name, steps in (("whole", [(0, 2)]), ("cut", [(0, 1), (0, 2)])):
        for evaluations in steps:
            assert train(science, evaluations, tmp_path / name, root)[0] == "done"
    results = [
        json.loads((Store(tmp_path / name).folder(science).path / "result.json").read_text())["evaluations"][-1]
        for name in ("whole", "cut")
    ]
    assert results[0] == results[1]
    assert results[0]["step"] == 2


LONG = pytest.mark.long
BTT3, MONARCH4 = "btt structure.factors=3 structure.rank=2", "monarch structure.blocks=4"


@pytest.mark.parametrize(
    ("model", "structure"),
    [
        ("vit", BTT3),
        ("mlp", MONARCH4),
        *(pytest.param("vit", one, marks=LONG) for one in ("dense", "btt", MONARCH4)),
        *(pytest.param("mlp", one, marks=LONG) for one in ("dense", "btt", BTT3)),
    ],
)
def test_features_move_as_far_at_four_times_the_width(model: str, structure: str, root: Path, tmp_path: Path) -> None:
    """Under the structure-aware rule; mean over two seeds of what the head reads, eight steps from the start."""
    words = f"model={model} structure={structure} optim.batch_tokens=32 evaluation.tokens=100"
    words += ' optim.lr=1e-3 model.num_layers=2 model.structured=["blocks.*"]'
    moved = []
    for width in (32, 128):
        found = []
        for seed in (0, 1):
            science = replace(science_by(words, width), seed=seed)
            _, folder = train(science, (8,), tmp_path / "runs", root)
            found.append(folder.journal.evaluations()[-1]["feature_update"])
        moved.append(sum(found) / 2)
    assert 0.6 < moved[1] / moved[0] < 1.6


@pytest.mark.parametrize("augment", [Augmentation(), AUGMENTED], ids=["none", "all"])
@pytest.mark.parametrize("model", ["mlp", "vit"])
def test_batches_lie_in_memory_row_by_row(model: str, augment: Augmentation, root: Path) -> None:
    """Products round otherwise where rows lie side by side: the layout of a batch is part of the numerics."""
    science = digits(model, augment)
    task = ClassificationTask(science, root)
    assert all(part.is_contiguous() for part in (*task.train_batch(3), *task.train_batch(3, Rank(1, 2))))
