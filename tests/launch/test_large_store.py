"""A store of many finished runs is reconciled by their published results, in time that grows no faster than it."""

import time
from pathlib import Path

import pytest

from bench import reconcile as bench
from structlin.launch.reconcile import reconcile
from structlin.runs.store import Store
from structlin.runs.table import load
from tests.tiny import tiny, train

JOBS, DONE, UNFINISHED = 1000, 500, 20


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    bench.write_store(root, bench.jobs_of(JOBS), DONE, UNFINISHED)
    return root


def test_every_job_is_what_the_store_says_within_the_time(runs: Path) -> None:
    jobs = bench.jobs_of(JOBS)
    begin = time.process_time()
    found = reconcile(jobs, Store(runs))
    seconds = time.process_time() - begin
    expected = ["done"] * DONE + ["interrupted"] * UNFINISHED + ["missing"] * (JOBS - DONE - UNFINISHED)
    assert [state.state for state in found] == expected
    assert found[DONE].step == bench.EVALUATIONS[19]
    # 10 s for twenty times as many is the promise; four times as much here still excludes anything that grows faster.
    assert seconds < 4 * 10 / 20


def test_a_line_for_each_run_that_was_begun(runs: Path) -> None:
    assert len(bench.show(bench.jobs_of(JOBS), runs)) == UNFINISHED


def test_the_table_of_a_large_store(runs: Path) -> None:
    table = load(runs)
    assert len(table) == DONE * len(bench.EVALUATIONS) + UNFINISHED * 20
    done = table[table["status"] == "done"]
    assert set(done.groupby("run_id")["step"].apply(tuple)) == {bench.EVALUATIONS}
    assert (done["val_loss"] == 3 + 1 / done["step"]).all()
    assert (table["training_flops"] == 6 * table["macs_per_token"] * table["tokens"]).all()


def test_a_finished_run_is_known_without_its_journal(tmp_path: Path) -> None:
    jobs = bench.jobs_of(3)
    bench.write_store(tmp_path, jobs, 3, 0)
    for path in tmp_path.glob("*/attempts/*/metrics.jsonl"):
        path.unlink()
    assert {state.state for state in reconcile(jobs, Store(tmp_path))} == {"done"}
    assert len(load(tmp_path)) == 3 * len(bench.EVALUATIONS)


def test_the_simulated_store_has_the_files_of_a_real_one(runs: Path, tmp_path: Path, data_root: Path) -> None:
    def names(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".pt"}

    _, real = train(tiny(), (5,), tmp_path, data_root)
    assert names(Store(runs).folder(bench.jobs_of(1)[0].science).path) == names(real.path)
