"""Does reading images wait? Images a second that a step's batch is made of, beside those that a step trains.

    python -m bench.loader                                    all cases, one line each
    python -m bench.loader cases=digits-vit seconds=3

A batch is read, cropped, flipped, mixed and standardised as in training, by one thread, from prepared shards of random
images of the data set's shape; the step is that of a model at the given width on this machine (training/probe.py).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from structlin.config.doors import train_request
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.data import prepare
from structlin.errors import UserError, asks_help, door, key_values, suggest
from structlin.tasks.classification import ClassificationTask
from structlin.training.probe import tokens_per_second

CASES = {
    "digits-vit": ("model=vit data=digits", 64),
    "digits-mlp": ("model=mlp data=digits", 64),
    "cifar-mlp": ("model=mlp data=cifar10", 256),
    "cifar-vit": ("model=vit data=cifar10", 128),
}
"""Name -> words of the command line and width: the smallest models that anybody trains there."""
_IMAGES = 2_000
_LEAST_BATCHES = 5


def science_of(case: str, root: Path) -> Science:
    """The science of a case; random images stand for CIFAR's."""
    words, width = CASES[case]
    files = [f"data.path={_archive(root)}"] if "cifar" in words else []
    request = train_request(
        ["task=classification", *words.split(), *files, "structure=btt", f"model.d_model={width}", "tokens=1e5"]
    )
    return request.template.trunk(width)


def _archive(root: Path) -> Path:
    """A folder of CIFAR-10's binary files with random images."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        table = np.random.default_rng(number).integers(0, 256, (_IMAGES, 3_073)).astype(np.uint8)
        table[:, 0] = np.arange(_IMAGES) % 10
        (folder / f"{stem}.bin").write_bytes(table.tobytes())
    return folder


def images_read(science: Science, root: Path, seconds: float) -> float:
    """Images a second that ``train_batch`` makes, the median over its steps."""
    task = ClassificationTask(science, root)
    task.train_batch(0)
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < _LEAST_BATCHES or time.perf_counter() - began < seconds:
        before = time.perf_counter()
        task.train_batch(1 + len(took))
        took.append(time.perf_counter() - before)
    return science.rows / median(took)


def main(arguments: list[str]) -> int:
    """Print a line a case."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    values = key_values(arguments, {"cases": ",".join(CASES), "seconds": "2"})
    with tempfile.TemporaryDirectory() as folder:
        for case in values["cases"].split(","):
            if case not in CASES:
                raise UserError(f"cases={case} is unknown; {suggest(case, CASES)}")
            science = science_of(case, Path(folder))
            prepare(science.data, Path(folder))
            read = images_read(science, Path(folder), float(values["seconds"]))
            step = tokens_per_second(science, Placement(device="cpu", tracking="journal"))
            print(f"{case:<12}{read:>12,.0f} images/s read{step:>12,.0f} images/s trained   reading {step / read:.1%}")
    return 0


if __name__ == "__main__":
    door(main)
