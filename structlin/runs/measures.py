"""What does an evaluation say? The loss, and of images errors and those of the training images too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MORE = ("val_error", "train_loss", "train_error", "clean_loss", "clean_error", "feature_update")
"""What some tasks say besides val_loss: of training images as augmented (train) and as they are (clean); and how far
the features have moved since the first weights, RMS."""


def share_of_row(row: Mapping[str, Any]) -> tuple[float, ...]:
    """The share of the ranks that it is of, where the run nests them; else nothing."""
    return (row["rank_share"],) if "rank_share" in row else ()


def of_row(row: Mapping[str, Any]) -> dict[str, float]:
    """What an evaluation's row says besides its loss, by name; what is no finite number is left out."""
    found = {name: row.get(name) for name in MORE}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
