"""Images as tokens: CIFAR-5M's npz files made small, the embedded digits, and whole images a batch."""

from pathlib import Path

import numpy as np
import pytest

from structlin.data import DataRecipe, TokenShards, image_batch, prepare, train_tokens, validation_images
from structlin.data.batches import num_images
from structlin.data.images import CIFAR_TOKENS, DIGITS_TOKENS, shrink
from structlin.data.manifest import Manifest
from structlin.errors import UserError

START = 256


def make_npz(folder: Path, counts: tuple[int, ...] = (30, 20), seed: int = 0) -> np.ndarray:
    """Files in CIFAR-5M's format with smooth random images; returns all images."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, count in enumerate(counts):
        coarse = generator.integers(0, 256, (count, 8, 8, 3))
        fine = coarse.repeat(4, axis=1).repeat(4, axis=2) + generator.integers(-20, 21, (count, 32, 32, 3))
        parts.append(fine.clip(0, 255).astype(np.uint8))
        np.savez(folder / f"cifar5m_part{number}.npz", X=parts[-1], Y=generator.integers(0, 10, count))
    return np.concatenate(parts)


@pytest.fixture
def cifar(tmp_path: Path) -> tuple[DataRecipe, np.ndarray]:
    images = make_npz(tmp_path / "npz")
    return DataRecipe("cifar5m", path=str(tmp_path / "npz"), validation_every=5), images


def test_shrinking_averages_squares_of_four_pixels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    small = shrink(image)
    assert (small.shape, small.dtype) == ((2, CIFAR_TOKENS), np.uint8)
    for row, column, channel in [(0, 0, 0), (3, 5, 1), (7, 7, 2)]:
        square = image[1, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4, channel].astype(float)
        assert small[1, (row * 8 + column) * 3 + channel] == round(square.mean())


def test_npz_files_become_shards_of_whole_images(cifar: tuple[DataRecipe, np.ndarray], tmp_path: Path) -> None:
    recipe, images = cifar
    place = prepare(recipe, tmp_path / "data")
    expected = shrink(images)
    held_out = np.arange(50) % 5 == 2
    for split, chosen in (("train", ~held_out), ("validation", held_out)):
        shards = TokenShards.open(place, split)
        tokens = shards.read(np.array([0]), shards.num_tokens).reshape(-1, CIFAR_TOKENS)
        assert np.array_equal(tokens, expected[chosen])
    assert train_tokens(recipe, tmp_path / "data") == 40 * CIFAR_TOKENS
    Manifest.read(place).check_contents(place)


def test_the_identity_is_the_content_of_the_files(cifar: tuple[DataRecipe, np.ndarray], tmp_path: Path) -> None:
    recipe, _ = cifar
    moved = tmp_path / "elsewhere"
    (tmp_path / "npz").rename(moved)
    assert DataRecipe("cifar5m", path=str(moved / "*.npz"), validation_every=5).to_dict() == recipe.to_dict()
    make_npz(moved, seed=1)
    assert DataRecipe("cifar5m", path=str(moved), validation_every=5).to_dict() != recipe.to_dict()


def test_absent_and_foreign_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data=cifar5m needs data.path=.*preetum/cifar5m"):
        DataRecipe("cifar5m")
    with pytest.raises(UserError, match="no npz file there"):
        DataRecipe("cifar5m", path=str(tmp_path))
    np.savez(tmp_path / "wrong.npz", X=np.zeros((4, 28, 28), np.uint8))
    with pytest.raises(UserError, match=r"wrong.npz is no npz file with an array X of uint8 images .*28, 28"):
        prepare(DataRecipe("cifar5m", path=str(tmp_path)), tmp_path / "data")
    np.savez(tmp_path / "wrong.npz", Y=np.zeros(4))
    with pytest.raises(UserError, match="no npz file with an array X"):
        prepare(DataRecipe("cifar5m", path=str(tmp_path)), tmp_path / "data")


def test_a_file_cut_short_is_told(cifar: tuple[DataRecipe, np.ndarray], tmp_path: Path) -> None:
    file = tmp_path / "npz" / "cifar5m_part1.npz"
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"cifar5m_part1\.npz is no npz file"):
        prepare(DataRecipe("cifar5m", path=str(tmp_path / "npz")), tmp_path / "data")


def test_the_digits_are_all_there(tmp_path: Path) -> None:
    recipe = DataRecipe("digits")
    known = train_tokens(recipe, tmp_path)
    place = prepare(recipe, tmp_path)
    train, held_out = (TokenShards.open(place, split) for split in ("train", "validation"))
    assert train.num_tokens == known
    assert num_images(train, DIGITS_TOKENS) + num_images(held_out, DIGITS_TOKENS) == 1_797
    pixels = train.read(np.array([0]), train.num_tokens)
    assert set(np.unique(pixels)) == {round(value * 255 / 16) for value in range(17)}
    # The corners of a digit are empty and its middle is not.
    images = pixels.reshape(-1, 8, 8).mean(0)
    assert images[0, 0] < 1 < 50 < images[3, 3]


def test_an_epoch_visits_every_image_once_in_a_fresh_order(
    cifar: tuple[DataRecipe, np.ndarray], tmp_path: Path
) -> None:
    shards = TokenShards.open(prepare(cifar[0], tmp_path / "data"), "train")
    options = {"image_tokens": CIFAR_TOKENS, "rows": 8, "seed": 3, "start": START}
    epochs = []
    for epoch in range(2):
        batches = [image_batch(shards, step=5 * epoch + step, **options) for step in range(5)]
        for inputs, targets in batches:
            assert (inputs[:, 0] == START).all()
            assert np.array_equal(inputs[:, 1:], targets[:, :-1])
        epochs.append([row.tobytes() for _, targets in batches for row in targets])
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert len(set(epochs[0])) == 40
    assert epochs[0] != epochs[1]
    again, _ = image_batch(shards, step=7, **options)
    assert np.array_equal(again, image_batch(shards, step=7, **options)[0])
    assert not np.array_equal(again, image_batch(shards, step=7, **{**options, "seed": 4})[0])


def test_validation_is_fixed_and_never_repeats_an_image(cifar: tuple[DataRecipe, np.ndarray], tmp_path: Path) -> None:
    shards = TokenShards.open(prepare(cifar[0], tmp_path / "data"), "validation")
    options = {"image_tokens": CIFAR_TOKENS, "rows": 4, "start": START}
    everything = [targets for _, targets in validation_images(shards, tokens=10**9, **options)]
    assert sum(map(len, everything)) == 10
    some = np.concatenate([t for _, t in validation_images(shards, tokens=5 * CIFAR_TOKENS, **options)])
    assert len({row.tobytes() for row in some}) == 5


def test_a_wrong_context_is_told(cifar: tuple[DataRecipe, np.ndarray], tmp_path: Path) -> None:
    shards = TokenShards.open(prepare(cifar[0], tmp_path / "data"), "train")
    with pytest.raises(UserError, match=r"not whole images of 100; set model\.context"):
        image_batch(shards, image_tokens=100, rows=1, seed=0, step=0, start=START)
