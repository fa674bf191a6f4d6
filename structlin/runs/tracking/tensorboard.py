"""How do runs stand in TensorBoard? Event files beside each journal: tensorboard --logdir runs.

    runs/<id>/tensorboard/<name of the run>/events.out.tfevents...

A process writes the whole journal anew, in place of what earlier attempts left, so nothing is there twice. Scalars:
train/loss, eval/val_loss and the like over steps, and over_flops/val_loss, over_tokens/val_loss, whose "step" is the
training FLOPs in units of 1e9 and the tokens.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO

from structlin.anatomy.compute import flops_at
from structlin.config.science import Science
from structlin.runs.store import RunFolder
from structlin.runs.tracking.copier import Copier, Row
from structlin.runs.tracking.events import record, scalars_event, version_event
from structlin.runs.tracking.payload import numbers

GIGA = 1e9
LEFT_OUT = ("step", "tokens", "time")


class Events(Copier):
    """A thread that writes the journal's rows as events."""

    tracker = "TensorBoard"
    afterwards = "the journal has everything"

    def __init__(self, science: Science, folder: RunFolder) -> None:
        self._name = f"{science.variant}-d{science.model.d_model}-s{science.seed}".replace("/", "_")
        self._science = science
        super().__init__(folder)

    def _open(self) -> tuple[BinaryIO, int]:
        place = self._folder.path / "tensorboard" / self._name
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()
        path = place / f"events.out.tfevents.{time.time():.0f}.{os.uname().nodename}.{os.getpid()}"
        stream = path.open("ab")
        stream.write(record(version_event(time.time())))
        return stream, 0

    def _put(self, place: BinaryIO, number: int, row: Row) -> None:
        values = {f"{row['kind']}/{key}": value for key, value in numbers(row).items() if key not in LEFT_OUT}
        when, step = float(row.get("time") or time.time()), int(row["step"])
        place.write(record(scalars_event(when, step, values)))
        loss, tokens = row.get("val_loss"), row.get("tokens")
        if isinstance(loss, float) and isinstance(tokens, int):
            name = "val_loss" if row["kind"] == "eval" else f"{row['kind']}_loss"
            place.write(record(scalars_event(when, tokens, {f"over_tokens/{name}": loss})))
            flops = round(flops_at(self._science, tokens) / GIGA)
            place.write(record(scalars_event(when, flops, {f"over_flops/{name}": loss})))
        place.flush()

    def _end(self, place: BinaryIO) -> None:
        place.close()


def files_of(folder: RunFolder) -> list[Path]:
    """The event files of a run."""
    return sorted(folder.path.glob("tensorboard/*/events.out.tfevents.*"))
