"""A teacher and its labels: the published network, standardised, computed once, and longer when a longer run asks."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from structlin.data import DataRecipe, Labels, folder, is_prepared, prepare, train_tokens
from structlin.data.labels import BLOCK, LabelManifest
from structlin.data.teacher import DEPTH, WIDTH, Teacher, inputs
from structlin.errors import UserError

SMALL = DataRecipe("teacher", width=16, depth=2)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return prepare(SMALL, tmp_path)


def test_the_teacher_is_the_published_one() -> None:
    recipe = DataRecipe("teacher")
    assert (recipe.width, recipe.depth) == (WIDTH, DEPTH) == (1024, 6)
    weights = Teacher(0).weights
    assert [weight.shape for weight in weights] == [(8, 1024), *[(1024, 1024)] * 5, (1024, 1)]
    for weight in weights:
        assert weight.std() == pytest.approx(weight.shape[0] ** -0.5, rel=5 / np.sqrt(2 * weight.size))


def test_its_outputs_are_those_of_a_plain_loop() -> None:
    teacher = Teacher(5, width=12, depth=3)
    x = inputs(5, "train", 100, 4)
    found = teacher.outputs("train", 100, 4)
    for row, output in zip(x.astype(np.float64), found, strict=True):
        h = row
        for weight in teacher.weights[:-1]:
            h = np.sqrt(2) * np.maximum(0, weight.T.astype(np.float64) @ h)
        assert output == pytest.approx(float(h @ teacher.weights[-1][:, 0]), rel=1e-4, abs=1e-5)


def test_the_published_depth_keeps_the_scale_of_activations() -> None:
    """The factor sqrt 2 undoes what ReLU takes away: outputs of a wide deep teacher have about unit second moment."""
    outputs = np.concatenate([Teacher(seed, width=256, depth=6).outputs("train", 0, 256) for seed in range(8)])
    assert np.mean(outputs**2) == pytest.approx(1, abs=0.6)


def test_labels_are_standardised_by_the_manifest(place: Path) -> None:
    manifest = LabelManifest.read(place)
    raw = Teacher(0, 16, 2).outputs("validation", 0, 100)
    _, labels = Labels.open(place, "validation").samples(0, 100)
    assert labels[:, 0] == pytest.approx((raw - manifest.mean) / manifest.std, rel=1e-4, abs=1e-5)
    _, many = Labels.open(place, "train").samples(0, BLOCK)
    assert many.mean() == pytest.approx(0, abs=0.03)
    assert many.std() == pytest.approx(1, abs=0.03)


def test_a_sample_does_not_depend_on_the_batch_it_comes_in(place: Path) -> None:
    labels = Labels.open(place, "train")
    x, y = labels.samples(1_000, 50)
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((50, 8), (50, 1), np.float32, np.float32)
    again_x, again_y = labels.samples(1_010, 7)
    assert np.array_equal(x[10:17], again_x)
    assert np.array_equal(y[10:17], again_y)


def test_training_and_validation_share_no_sample(place: Path) -> None:
    train, held_out = (Labels.open(place, split).samples(0, 1_000)[0] for split in ("train", "validation"))
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in held_out}


def test_extending_keeps_what_is_there_and_the_identity(place: Path, tmp_path: Path) -> None:
    before = (place / "train.f32").read_bytes()
    old, identity = Labels.open(place, "train"), LabelManifest.read(place).hash
    assert not is_prepared(SMALL, tmp_path, BLOCK + 1)
    assert prepare(SMALL, tmp_path, samples=BLOCK + 1) == place
    assert is_prepared(SMALL, tmp_path, 2 * BLOCK)
    assert (place / "train.f32").read_bytes()[: len(before)] == before
    assert len(Labels.open(place, "train")) == 2 * BLOCK == 2 * len(old)
    assert LabelManifest.read(place).hash == identity
    LabelManifest.read(place).check_contents(place)


def test_labels_made_in_two_goes_are_those_made_at_once(place: Path, tmp_path: Path) -> None:
    prepare(SMALL, tmp_path, samples=2 * BLOCK)
    whole = prepare(SMALL, tmp_path / "other", samples=2 * BLOCK)
    assert (place / "train.f32").read_bytes() == (whole / "train.f32").read_bytes()
    assert LabelManifest.read(place).hash == LabelManifest.read(whole).hash


def test_what_a_killed_preparation_left_is_overwritten(place: Path, tmp_path: Path) -> None:
    with (place / "train.f32").open("ab") as stream:
        stream.write(b"torn")
    prepare(SMALL, tmp_path, samples=BLOCK + 1)
    whole = prepare(SMALL, tmp_path / "other", samples=BLOCK + 1)
    assert (place / "train.f32").read_bytes() == (whole / "train.f32").read_bytes()


@pytest.mark.parametrize("damage", ["short", "manifest", "foreign"])
def test_broken_labels_are_made_again(place: Path, tmp_path: Path, damage: str) -> None:
    good = (place / "train.f32").read_bytes()
    if damage == "short":
        (place / "train.f32").write_bytes(good[:1000])
    elif damage == "manifest":
        (place / "manifest.json").write_text("{")
    else:
        values = json.loads((place / "manifest.json").read_text())
        (place / "manifest.json").write_text(json.dumps({**values, "recipe": {"name": "another"}}))
    assert not is_prepared(SMALL, tmp_path)
    prepare(SMALL, tmp_path)
    assert (place / "train.f32").read_bytes() == good


def test_changed_labels_are_told(place: Path) -> None:
    data = bytearray((place / "train.f32").read_bytes())
    data[12345] ^= 1
    (place / "train.f32").write_bytes(data)
    with pytest.raises(UserError, match="has changed since it was made"):
        LabelManifest.read(place).check_contents(place)


def test_inputs_that_come_out_otherwise_are_told(place: Path) -> None:
    values = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps({**values, "inputs": hashlib.sha256(b"").hexdigest()}))
    with pytest.raises(UserError, match="come out otherwise on this machine"):
        Labels.open(place, "train")


def test_a_run_past_the_last_label_is_told_how_to_make_more(place: Path) -> None:
    labels = Labels.open(place, "train")
    labels.samples(BLOCK - 5, 5)
    with pytest.raises(UserError, match="holds 65,536 train labels, but sample 65,536 is asked for; make more"):
        labels.samples(BLOCK - 5, 6)


def test_the_identity_names_the_teacher_and_no_count(tmp_path: Path) -> None:
    assert DataRecipe("teacher").to_dict() == {"name": "teacher", "seed": 0, "width": 1024, "depth": 6, "version": 1}
    others = [DataRecipe("teacher", seed=1), DataRecipe("teacher", width=512), DataRecipe("teacher", depth=5)]
    assert len({folder(recipe, tmp_path) for recipe in [DataRecipe("teacher"), *others]}) == 4
    assert DataRecipe(**SMALL.to_dict()) == SMALL
    assert train_tokens(SMALL, tmp_path) == float("inf")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "sotu", "seed": 1}, "data=sotu has no teacher"),
        ({"name": "teacher", "width": 0}, "data.width = 0 must be at least 1"),
        ({"name": "teacher", "seed": -1}, "data.seed = -1 must be at least 0"),
        ({"name": "teacher", "tokenizer": "char96"}, "data=teacher has tokenizer=none"),
        ({"name": "teacher", "path": "/tmp"}, "takes no data.path"),
    ],
)
def test_what_means_nothing_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataRecipe(**fields)
