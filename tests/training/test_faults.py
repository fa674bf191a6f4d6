"""A matrix of random faults: every run ends in the undisturbed numbers, or says by name why not."""

from pathlib import Path

import pytest

from tests.training import faults

SEED = 0


def judge(found: list[tuple[str, str]]) -> None:
    wrong = [f"{outcome} ({what})" for what, outcome in found if not outcome.startswith(("equal", "refused"))]
    assert not wrong, "\n".join(wrong)
    refused = [outcome for _, outcome in found if outcome.startswith("refused")]
    assert all(len(outcome) > len("refused: ") for outcome in refused)
    assert len(refused) < len(found) / 10


def test_a_tenth_of_the_faults(tmp_path: Path, data_root: Path) -> None:
    judge(faults.run(SEED, 20, tmp_path, data_root))


@pytest.mark.long
def test_two_hundred_faults(tmp_path: Path, data_root: Path) -> None:
    judge(faults.run(SEED, 200, tmp_path, data_root))
