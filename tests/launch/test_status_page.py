"""The page of a sweep: what is done, runs, waits and has failed, from the store alone."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest

from structlin.command import status
from structlin.errors import UserError
from structlin.host.files import write_json
from structlin.launch import status_page
from structlin.launch.status_page import find, look, page, said, share
from structlin.runs.job import Job
from tests.runs.tracking.test_wandb import stop_at
from tests.tiny import tiny, train


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Three runs: one done, one stopped in the middle, one that nobody has begun."""
    runs = tmp_path_factory.mktemp("runs")
    train(tiny("btt"), (5, 10), runs, data_root)
    train(tiny("dense"), (5, 10), runs, data_root, should_stop=stop_at(6))
    identities = [Job(science, (10,)).run_id for science in (tiny("btt"), tiny("dense"), tiny("low_rank"))]
    cells = [{"run_id": run, "step": step, "budget_flops": 1e7} for run in identities for step in (5, 10)]
    manifest = {"name": "three", "command": "python sweep.py <a&b>", "design": "frontier", "cells": cells}
    write_json(runs / "sweeps" / "three.json", manifest)
    return runs


def test_every_run_stands_there_once_with_its_state(store: Path) -> None:
    seen = look(store, find(store, "three"))
    assert [one.state for one in seen] == ["done", "interrupted", "waiting"]
    assert [one.target for one in seen] == [10, 10, 10]
    assert seen[0].done_flops == seen[0].flops
    assert 0 < seen[1].step < 10
    assert seen[2].flops == 1e7
    assert share(seen) == pytest.approx(sum(one.done_flops for one in seen) / sum(one.flops for one in seen))
    assert said(seen).startswith("1 of 3 runs done, 1 interrupted, 1 waiting; ")


def test_time_left_follows_from_the_speeds_of_what_runs(store: Path) -> None:
    from dataclasses import replace

    seen = look(store, find(store, ""))
    assert status_page.seconds_left(seen) is None
    running = replace(seen[1], state="running", last={"tokens_per_second": 1000.0})
    speed = running.flops / running.target / running.science.optim.batch_tokens * 1000.0
    left = running.flops - running.done_flops + seen[2].flops
    assert status_page.seconds_left([seen[0], running, seen[2]]) == pytest.approx(left / speed)


def test_the_page_holds_progress_curves_failures_and_the_command(store: Path) -> None:
    from dataclasses import replace

    manifest = find(store, "three")
    seen = look(store, manifest)
    broken = replace(seen[1], state="failed", reason="out of <memory>")
    text = page(manifest, [seen[0], broken, seen[2]], store, 30)
    assert 'id="reload" data-seconds="30"' in text
    assert 'role="progressbar"' in text
    assert "Failures (1)" in text
    assert "out of &lt;memory&gt;" in text
    assert "python sweep.py &lt;a&amp;b&gt;" in text
    assert text.count("<tr data-variant=") == 3
    charts = json.loads(text.split('id="data">')[1].split("</script>")[0])
    (losses,) = charts
    assert [one["label"] for one in losses["series"]] == ["btt, width 16, seed 0", "dense, width 16, seed 0"] or len(
        losses["series"]
    ) == 2
    evaluations = seen[0].evaluations
    assert losses["series"][0]["y"] == pytest.approx([row["val_loss"] for row in evaluations], rel=1e-5)
    assert 'id="reload"' not in page(manifest, seen, store, 0)


def test_the_command_writes_the_last_sweep(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([f"html={tmp_path / 's.html'}", f"runs={store}"]) == 1
    assert "1 of 3 runs done" in capsys.readouterr().out
    assert "Sweep three" in unescape((tmp_path / "s.html").read_text())
    assert not list(tmp_path.glob("*.tmp"))
    with pytest.raises(UserError, match="holds no sweep 'tree'; did you mean 'three'"):
        status.main(["tree", "html=x.html", f"runs={store}"])
    with pytest.raises(UserError, match="holds no sweep"):
        status.main(["html=x.html", f"runs={tmp_path}"])
    with pytest.raises(UserError, match="every=often"):
        status.main(["html=x.html", "every=often", f"runs={store}"])


def test_it_is_written_anew_until_nothing_is_open(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            manifest = json.loads((store / "sweeps" / "three.json").read_text())
            monkeypatch.setattr(status_page, "look", lambda runs, _: real(runs, manifest)[:1])

    real = look
    monkeypatch.setattr(status_page, "sleep", nap)
    assert status_page.keep(store, "three", tmp_path / "s.html", 7) == 0
    assert naps == [7, 7]


def test_a_store_of_another_kind_is_no_page(tmp_path: Path) -> None:
    write_json(tmp_path / "sweeps" / "x.json", [1])
    with pytest.raises(UserError, match="no manifest"):
        find(tmp_path, "x")
