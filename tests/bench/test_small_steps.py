"""What the comparison of two checkouts says: medians of both, and the median of the pairs' ratios."""

from __future__ import annotations

import pytest

from bench import small_steps
from structlin.errors import UserError


class Told:
    """A tree whose steps take what they are told."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = iter((seconds[0], *seconds))

    def ask(self, **request: object) -> dict[str, float]:
        if "words" in request:
            return {}
        seconds = next(self.seconds)
        return {"cpu": seconds, "wall": 2 * seconds}


def test_a_row_has_both_medians_and_the_median_ratio_of_pairs() -> None:
    row = small_steps._row([Told(1.0, 2.0, 3.0), Told(4.0, 4.0, 9.0)], "btt", 16, [], 3)
    assert row == {
        "structure": "btt",
        "width": 16,
        "seconds": 2.0,
        "seconds_before": 4.0,
        "ratio": 3.0,
        "wall": 4.0,
        "wall_before": 8.0,
    }


@pytest.mark.parametrize("arguments", [["small=true"], ["small=true", "against=/nowhere"]])
def test_it_asks_for_a_checkout(arguments: list[str]) -> None:
    with pytest.raises(UserError, match="is no checkout of this project; give the folder of one"):
        small_steps.main(arguments)
