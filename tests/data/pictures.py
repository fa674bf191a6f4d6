"""Archives and folders of images as their authors ship them, small and random."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

PARTS = {
    "cifar10": [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"],
    "cifar100": ["train", "test"],
}
FOLDERS = {
    ("cifar10", "python"): "cifar-10-batches-py",
    ("cifar10", "binary"): "cifar-10-batches-bin",
    ("cifar100", "python"): "cifar-100-python",
    ("cifar100", "binary"): "cifar-100-binary",
}
CLASSES = {"cifar10": 10, "cifar100": 100}


def planes(name: str, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images by channel (n, 3072) and labels (n,) of a part: every class comes in each."""
    generator = np.random.default_rng(PARTS[name].index(part))
    labels = generator.permutation(np.arange(count) % CLASSES[name])
    return generator.integers(0, 256, (count, 3072)).astype(np.uint8), labels


def contents(name: str, kind: str, count: int) -> dict[str, bytes]:
    """Name -> bytes of all files of an archive."""
    found = {}
    for part in PARTS[name]:
        data, labels = planes(name, part, count)
        if kind == "binary":
            before = [labels] if name == "cifar10" else [labels // 5, labels]
            table = np.concatenate([np.stack(before, 1).astype(np.uint8), data], axis=1)
            found[f"{part}.bin"] = table.tobytes()
            continue
        key = b"labels" if name == "cifar10" else b"fine_labels"
        found[part] = pickle.dumps({b"data": data, key: labels.tolist(), b"batch_label": b"x"}, protocol=2)
    return found


def make_folder(root: Path, name: str, kind: str, count: int = 200) -> Path:
    """A folder as an archive unpacks to; returns it."""
    folder = root / FOLDERS[name, kind]
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents(name, kind, count).items():
        (folder / file).write_bytes(content)
    return folder


def make_archive(root: Path, name: str, kind: str, count: int = 200) -> Path:
    """A .tar.gz as it is served; returns it."""
    path = root / f"{name.replace('cifar', 'cifar-')}-{kind}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for file, content in contents(name, kind, count).items():
            member = tarfile.TarInfo(f"{FOLDERS[name, kind]}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_classes(folder: Path, classes: tuple[str, ...] = ("ant", "bee"), count: int = 12, mode: str = "RGB") -> Path:
    """A folder of folders with PNG files of several sizes; returns it."""
    generator = np.random.default_rng(len(folder.name))
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = generator.integers(8, 20, 2)
            pixels = generator.integers(0, 128, (height, width, 3)) + 100 * label
            picture = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
            picture.save(folder / name / f"{number:02d}.png")
    return folder
