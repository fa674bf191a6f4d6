"""Augmentation: pure functions of (seed, row), equal to a plain loop, with the distribution that they claim."""

import hashlib
import math

import numpy as np
import pytest

from structlin.data.augmentation import Augmentation, augmented, blocks, mixed, targets, weight_of_step
from structlin.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
ROWS = np.arange(40, dtype=np.int64)
WAYS = {"resized": Augmentation("resized"), "shifted": Augmentation("shifted"), "flip": Augmentation(flip=True),
        "all": Augmentation("resized", True, 0.8, 0.3)}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_a_row_is_augmented_alike_in_any_company(name: str) -> None:
    """Whatever part of a batch a rank or a thread makes, in whatever order."""
    how, whole = WAYS[name], augmented(IMAGES, ROWS, 3, WAYS[name])
    for part in (slice(0, 1), slice(7, 19), slice(39, 40)):
        assert np.array_equal(augmented(IMAGES[part], ROWS[part], 3, how), whole[part])
    order = np.random.default_rng(1).permutation(40)
    assert np.array_equal(augmented(IMAGES[order], ROWS[order], 3, how), whole[order])
    assert not np.array_equal(augmented(IMAGES, ROWS, 4, how), whole)
    assert not np.array_equal(augmented(IMAGES, ROWS + 40, 3, how), whole)


def test_none_changes_nothing() -> None:
    assert Augmentation().is_none
    assert augmented(IMAGES, ROWS, 0, Augmentation()) is IMAGES


def test_a_flip_mirrors_half_of_the_rows() -> None:
    many = np.repeat(IMAGES[:1], 4000, axis=0)
    found = augmented(many, np.arange(4000), 0, Augmentation(flip=True))
    mirrored = np.array([np.array_equal(one, IMAGES[0, :, ::-1]) for one in found])
    assert all(np.array_equal(one, IMAGES[0]) for one in found[~mirrored])
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)


def test_a_shift_moves_whole_pixels_and_leaves_zeros() -> None:
    many = np.repeat(IMAGES[:1] | 1, 400, axis=0)
    seen = set()
    for image in augmented(many, np.arange(400), 0, Augmentation("shifted")):
        ways = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(image, moved(many[0], down, right))
        ]
        assert len(ways) == 1
        seen.add(ways[0])
    assert len(seen) == 25


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """result[y, x] = image[y + down, x + right], zero outside."""
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    return padded[2 + down : 18 + down, 2 + right : 18 + right]


def test_a_resized_crop_is_a_box_scaled_back() -> None:
    """On an image that is linear in its place, bilinear scaling is exact: corners say which box it was."""
    y, x = np.mgrid[0:32, 0:32]
    plane = np.repeat(np.stack([8 * y, 8 * x, 0 * x], axis=-1)[None].astype(np.uint8), 2000, axis=0)
    found = augmented(plane, np.arange(2000), 0, Augmentation("resized")).astype(float)
    # From the first to the last of the new pixels a box of side b covers b (31 / 32) old ones; 8 grey values each.
    inner = found[:, 8:-8, 8:-8]
    height, width = ((inner[:, -1, 0, 0] - inner[:, 0, 0, 0]) / 8 * 32 / 15,
                     (inner[:, 0, -1, 1] - inner[:, 0, 0, 1]) / 8 * 32 / 15)  # fmt: skip
    area, ratio = height * width / 32**2, width / height
    assert 0.05 < area.min() < 0.13
    assert area.max() > 0.95
    assert area.mean() == pytest.approx(0.54, abs=0.03)
    assert np.quantile(ratio, [0.02, 0.98]) == pytest.approx([3 / 4, 4 / 3], abs=0.06)
    assert not inner[..., 2].any()


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_the_weight_of_mixup_is_a_beta(alpha: float) -> None:
    from scipy.stats import beta, kstest

    weights = [weight_of_step(step, 5, alpha) for step in range(2000)]
    assert kstest(weights, beta(alpha, alpha).cdf).pvalue > 1e-3
    assert weights[17] == weight_of_step(17, 5, alpha)
    assert weights[17] != weight_of_step(17, 6, alpha)


def test_targets_are_probabilities() -> None:
    labels = np.array([2, 0], np.int64)
    plain, smooth = targets(labels, 4), targets(labels, 4, 0.2)
    assert plain.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert smooth[0] == pytest.approx([0.05, 0.05, 0.85, 0.05])
    both = mixed(smooth, smooth[::-1], 0.25)
    assert both.sum(1) == pytest.approx([1, 1])
    assert both[0] == pytest.approx([0.25 * 0.05 + 0.75 * 0.85, 0.05, 0.25 * 0.85 + 0.75 * 0.05, 0.05])


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"crop": "big"}, "augment.crop = big"), ({"mixup": -1.0}, "mixup"), ({"smoothing": 1.0}, "smoothing"),
     ({"mixup": math.nan}, "mixup")],
)  # fmt: skip
def test_what_cannot_be_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Augmentation(**fields)


SHAPES = ((37, 32, 32, 3), (64, 8, 8, 1), (33, 17, 23, 3), (5, 64, 48, 3), (3, 1, 1, 1), (4, 2, 5, 2))
# Of all SHAPES and two seeds, under crop, then flip as well; runs are trained on these very bytes.
BITS = {"resized": "669464ee948c532f", "shifted": "8bcef4f18c65b1c8", "none": "89a3f6926eb5c0eb"}


@pytest.mark.parametrize("crop", BITS)
def test_augmented_images_are_the_same_bytes_for_ever(crop: str) -> None:
    generator, found = np.random.default_rng(0), hashlib.sha256()
    for shape in SHAPES:
        images = generator.integers(0, 256, shape).astype(np.uint8)
        for seed in (0, 7):
            for flip in (False, True):
                rows = np.arange(len(images)) + 5 * seed
                found.update(augmented(images, rows, seed, Augmentation(crop, flip)).tobytes())
    assert found.hexdigest()[:16] == BITS[crop]


def test_blocks_are_all_rows_once() -> None:
    for rows, row_bytes in ((1, 1), (1024, 3074), (3, 10**9), (200, 66), (0, 5)):
        parts = [np.arange(rows)[part] for part in blocks(rows, row_bytes)]
        assert np.concatenate([*parts, np.arange(0)]).tolist() == list(range(rows))
        assert all(len(part) for part in parts)


def test_mixed_in_blocks_is_mixed_at_once() -> None:
    first, second = np.random.default_rng(2).normal(size=(2, 90, 4096)).astype(np.float32)
    share = np.float32(0.3)
    assert np.array_equal(mixed(first, second, 0.3), first * share + second * (np.float32(1) - share))
