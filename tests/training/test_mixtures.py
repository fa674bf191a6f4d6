"""Training a mixture: resumed bit by bit, its routers in the journal, its experts kept in use."""

from pathlib import Path

import numpy as np
import pytest

from structlin.config.moe import MoeConfig
from tests.tiny import tiny, train
from tests.training.test_exactness import assert_same_state, result

MIXTURES = {
    "btt": MoeConfig("btt", num_experts=4),
    "ffn": MoeConfig("ffn", num_experts=4, layers="ffn"),
    "capacity": MoeConfig("low_rank", num_experts=4, capacity=1.25),
    "other-evaluation": MoeConfig("dense", num_experts=4, evaluation_top_k=1),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_training_2n_steps_is_training_n_and_resuming_n(name: str, tmp_path: Path, data_root: Path) -> None:
    science = tiny("dense", moe=MIXTURES[name])
    train(science, (20,), tmp_path / "cut", data_root)
    state, cut = train(science, (20, 40), tmp_path / "cut", data_root)
    _, whole = train(science, (20, 40), tmp_path / "whole", data_root)
    assert state == "done"
    assert result(cut) == result(whole)
    assert_same_state(cut, whole, 40)


def test_the_fused_kernels_resume_exactly(tmp_path: Path, data_root: Path) -> None:
    science = tiny("dense", 64, moe=MIXTURES["btt"])
    train(science, (10,), tmp_path / "cut", data_root)
    _, cut = train(science, (10, 20), tmp_path / "cut", data_root)
    _, whole = train(science, (10, 20), tmp_path / "whole", data_root)
    assert_same_state(cut, whole, 20)


@pytest.mark.parametrize("name", ["btt", "ffn"])
def test_a_mixture_learns_and_does_not_collapse(name: str, tmp_path: Path, data_root: Path) -> None:
    _, folder = train(tiny("dense", 32, moe=MIXTURES[name]), (0, 150), tmp_path, data_root)
    first, last = (row["val_loss"] for row in folder.journal.evaluations())
    assert first == pytest.approx(4.564348, abs=1e-4)
    assert last < first - 1.0
    rows = folder.journal.rows("router")
    assert [row["step"] for row in rows] == [row["step"] for row in folder.journal.rows("train")]
    routers = {"btt": 6, "ffn": 1}[name]
    for row in rows:
        assert len(row["routers"]) == len(row["usage"]) == len(row["token_perplexity"]) == routers
        assert row["dropped"] == [0] * routers
        assert all(1 <= perplexity <= 4.001 for perplexity in row["aggregate_perplexity"])
    # 1 at even use and E / k = 2 at collapse, where two experts take every token of the 64 in a batch.
    balance = np.mean([row["balance"] for row in rows[-10:]], axis=0)
    assert balance.max() < 1.5


def test_a_plain_model_writes_no_router_rows(tmp_path: Path, data_root: Path) -> None:
    _, folder = train(tiny(), (10,), tmp_path, data_root)
    assert folder.journal.rows("train")
    assert not folder.journal.rows("router")
