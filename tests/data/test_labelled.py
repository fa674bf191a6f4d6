"""Labelled images: CIFAR's archives, folders of classes, the digits; and one line for whatever is wrong with them."""

import gzip
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from structlin.data import DataRecipe, folder, prepare, train_tokens
from structlin.data.labelled import LabelledImages
from structlin.data.pictures import decode
from structlin.data.recipe import LABELS
from structlin.errors import UserError
from tests.data.pictures import CLASSES, PARTS, make_archive, make_classes, make_folder, planes

KINDS = [(name, kind) for name in CLASSES for kind in ("python", "binary")]


def everything(place: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    found = LabelledImages.open(place, split)
    return found.read(np.arange(len(found)))


def by_pixel(data: np.ndarray) -> np.ndarray:
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


# --- what is read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_folder, make_archive])
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_an_archive_is_read_whole_and_in_order(name: str, kind: str, make: Callable[..., Path], tmp_path: Path) -> None:
    path = make(tmp_path / "in" if make is make_folder else tmp_path, name, kind)
    place = prepare(DataRecipe(name, path=str(path)), tmp_path / "data")
    for split, parts in (("train", PARTS[name][:-1]), ("validation", PARTS[name][-1:])):
        images, labels = everything(place, split)
        expected = [planes(name, part, 200) for part in parts]
        assert np.array_equal(images, np.concatenate([by_pixel(data) for data, _ in expected]))
        assert np.array_equal(labels, np.concatenate([own for _, own in expected]))


def test_the_folder_above_or_that_of_the_archive_does_too(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", "cifar10", "python", 20)
    (tmp_path / "b").mkdir()
    make_archive(tmp_path / "b", "cifar10", "python", 20)
    found = [everything(prepare(DataRecipe("cifar10", path=str(tmp_path / one)), tmp_path / f"d{one}"), "train")
             for one in "ab"]  # fmt: skip
    assert np.array_equal(found[0][0], found[1][0])


def test_mean_and_deviation_are_those_of_the_training_images(tmp_path: Path) -> None:
    place = prepare(DataRecipe("cifar10", path=str(make_folder(tmp_path, "cifar10", "binary", 20))), tmp_path / "data")
    pixels = everything(place, "train")[0].astype(float)
    found = LabelledImages.open(place, "train")
    assert found.mean == pytest.approx(pixels.mean((0, 1, 2)), rel=1e-6)
    assert found.std == pytest.approx(pixels.std((0, 1, 2)), rel=1e-6)


def test_digits_have_the_split_that_pixels_have(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    recipe, digits = DataRecipe("digits", LABELS), load_digits()
    assert train_tokens(recipe, tmp_path) == 1617
    place = prepare(recipe, tmp_path)
    held_out = np.arange(1797) % 10 == 5
    for split, chosen in (("train", ~held_out), ("validation", held_out)):
        images, labels = everything(place, split)
        assert np.array_equal(images[..., 0], (digits.images[chosen] * 255 / 16).round())
        assert np.array_equal(labels, digits.target[chosen])
    assert folder(recipe, tmp_path) != folder(DataRecipe("digits"), tmp_path)


@pytest.mark.parametrize("splits", [False, True])
def test_a_folder_of_classes(splits: bool, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for one in ("train", "val") if splits else ("",):
        make_classes(root / one)
    recipe = DataRecipe("images", path=str(root), size=8, validation_every=4)
    assert (recipe.classes, recipe.shape) == (2, (8, 8, 3))
    place = prepare(recipe, tmp_path / "data")
    train, held_out = (LabelledImages.open(place, split) for split in ("train", "validation"))
    assert (len(train) + len(held_out), len(held_out)) == ((48, 24) if splits else (24, 6))
    images, labels = everything(place, "train")
    if splits:
        paths = sorted((root / "train").glob("*/*.png"))
        assert np.array_equal(images, [decode(path, 8, 3, "refuse") for path in paths])
        assert labels.tolist() == [0] * 12 + [1] * 12
    # Class 1 is drawn brighter.
    assert images[labels == 1].mean() > images[labels == 0].mean() + 50


def test_an_image_is_scaled_by_its_shorter_side_and_cut_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 8, 3, "refuse"), pixels[:, 8:16])
    Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(tmp_path / "b.png")
    assert abs(decode(tmp_path / "b.png", 8, 3, "refuse").astype(int)[:, 1:-1] - 200).max() == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_bit(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_classes(tmp_path / "in", count=20)
    hashes = set()
    for number in (2, workers):
        monkeypatch.setattr("os.cpu_count", lambda number=number: number)
        place = prepare(DataRecipe("images", path=str(root), size=8), tmp_path / f"data{number}")
        hashes.add(LabelledImages.open(place, "train").manifest_hash)
    assert len(hashes) == 1


def test_the_identity_is_the_content_and_the_size(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "in")
    one = DataRecipe("images", path=str(root), size=8)
    shutil.copytree(root, tmp_path / "moved")
    assert DataRecipe("images", path=str(tmp_path / "moved"), size=8).to_dict() == one.to_dict()
    assert DataRecipe("images", path=str(root), size=16).to_dict() != one.to_dict()
    (root / "ant" / "00.png").rename(root / "bee" / "99.png")
    assert DataRecipe("images", path=str(root), size=8).to_dict() != one.to_dict()
    assert DataRecipe(**one.to_dict()).to_dict() == one.to_dict()


# --- what is wrong ------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 7])


def lacking_a_class(root: Path) -> Path:
    place = make_folder(root, "cifar10", "binary", 20)
    for file in place.iterdir():
        records = np.frombuffer(file.read_bytes(), np.uint8).reshape(20, -1).copy()
        records[records[:, 0] == 7, 0] = 6
        file.write_bytes(records.tobytes())
    return place


def altered(name: str, kind: str, file: str, how: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        place = make_folder(root, name, kind, 20)
        how(place / file)
        return place

    return make


def archive(how: Callable[[Path], object], kind: str = "python") -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        path = make_archive(root, "cifar10", kind, 20)
        how(path)
        return path

    return make


def foreign_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({b"data": Path("x"), b"labels": [1]}))


BAD_ARCHIVES = {
    "a truncated archive": (archive(cut), r"broken or no tar archive .* fetch it again"),
    "a truncated archive of records": (archive(cut, "binary"), r"broken or no tar archive"),
    "an empty archive": (archive(lambda path: path.write_bytes(b"")), r"empty \(0 bytes\)"),
    "wrong magic": (archive(lambda path: path.write_bytes(b"PK\x03\x04" + b"x" * 5000)), r"broken or no tar archive"),
    "gzip of no tar": (archive(lambda path: path.write_bytes(gzip.compress(b"x" * 9000))), r"broken or no tar archive"),
    "a truncated pickle": (altered("cifar10", "python", "data_batch_2", cut), r"data_batch_2 is no part .*unpickled"),
    "an empty pickle": (altered("cifar100", "python", "train", lambda p: p.write_bytes(b"")), r"train is no .*0 bytes"),
    "truncated records": (altered("cifar100", "binary", "test.bin", cut), r"test.bin is no part .*no whole records"),
    "a pickle that calls": (altered("cifar10", "python", "test_batch", foreign_pickle), r"test_batch .*names pathlib"),
    "a part that lacks": (altered("cifar10", "binary", "data_batch_3.bin", Path.unlink), r"lacks data_batch_3.bin"),
    "a class that lacks": (lacking_a_class, r"class 7 of 10 has no training image"),
    "nothing": (lambda root: root / "nowhere", r"nothing there; .*cifar-10-python.tar.gz"),
    "an empty folder": (lambda root: root, r"neither the files of data=cifar10 nor an archive"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_a_bad_archive_is_told_in_one_line(case: str, tmp_path: Path) -> None:
    make, said = BAD_ARCHIVES[case]
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in")
    name = "cifar100" if "100" in path.name else "cifar10"
    with pytest.raises(UserError, match=said) as refused:
        prepare(DataRecipe(name, path=str(path)), tmp_path / "data")
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "data").glob("cifar*")), "nothing half made is left"


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    place = make_folder(tmp_path, "cifar10", "binary", 20)
    records = bytearray((place / "test_batch.bin").read_bytes())
    records[0] = 10
    (place / "test_batch.bin").write_bytes(bytes(records))
    with pytest.raises(UserError, match="labels of 10 classes are 0 to 9"):
        prepare(DataRecipe("cifar10", path=str(place)), tmp_path / "data")


def grey(root: Path) -> None:
    Image.open(root / "bee" / "03.png").convert("L").save(root / "bee" / "03.png")


BAD_PICTURES = {
    "a zero-byte file": (lambda root: (root / "ant" / "05.png").write_bytes(b""), r"05.png is empty \(0 bytes\)"),
    "a truncated image": (lambda root: cut(root / "ant" / "05.png"), r"05.png is no image, or a broken one"),
    "no image": (lambda root: (root / "ant" / "05.png").write_text("hello"), r"05.png is no image"),
    "one grey image": (grey, r"03.png is grey among colour images; .*data.odd=convert"),
    "an empty class": (lambda root: (root / "cow").mkdir(), r"class cow has no images"),
    "one class": (lambda root: shutil.rmtree(root / "ant"), r"1 folders of images"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_bad_folder_is_told_in_one_line(case: str, tmp_path: Path) -> None:
    root = make_classes(tmp_path / "in")
    how, said = BAD_PICTURES[case]
    how(root)
    with pytest.raises(UserError, match=said) as refused:
        prepare(DataRecipe("images", path=str(root), size=8), tmp_path / "data")
    assert "\n" not in str(refused.value)


def test_a_class_of_one_split_alone_is_refused(tmp_path: Path) -> None:
    make_classes(tmp_path / "in" / "train", ("ant", "bee"))
    make_classes(tmp_path / "in" / "val", ("ant", "cow"))
    with pytest.raises(UserError, match="class bee is not in every split"):
        DataRecipe("images", path=str(tmp_path / "in"))


def test_grey_images_are_converted_where_that_is_asked_for(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "in")
    grey(root)
    place = prepare(DataRecipe("images", path=str(root), size=8, odd="convert"), tmp_path / "data")
    assert len(LabelledImages.open(place, "train")) > 10
    every = make_classes(tmp_path / "grey", mode="L")
    recipe = DataRecipe("images", path=str(every), size=8, channels=1)
    assert recipe.shape == (8, 8, 1)
    prepare(recipe, tmp_path / "data")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "cifar10"}, r"data=cifar10 needs data.path="),
        ({"name": "images"}, r"data=images needs data.path="),
        ({"name": "images", "content": "?"}, r"data.classes=0: classes are 2 to"),
        ({"name": "cifar10", "content": "?", "size": 16}, r"data.size=16: images of data=cifar10 have 32"),
        ({"name": "cifar10", "content": "?", "validation_every": 5}, r"comes with its own test images"),
        ({"name": "digits", "size": 4}, r"has no labelled images: data.size"),
        ({"name": "sotu", "classes": 4}, r"has no labelled images: data.classes"),
        ({"name": "images", "content": "?", "classes": 3, "odd": "drop"}, r"refuse or convert"),
        ({"name": "images", "content": "?", "classes": 3, "channels": 2}, r"1 \(grey\) or 3"),
        ({"name": "sotu", "tokenizer": "labels"}, r"tokenizer=labels"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DataRecipe(**fields)
