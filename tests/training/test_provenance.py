"""What a run records of its machine is what trained it: a kernel that could not be built is no kernel."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from structlin.kernels import compiler
from structlin.kernels.attention import attention
from structlin.kernels.products import cpp
from structlin.runs import table
from structlin.training.provenance import unbuilt_kernels
from tests.tiny import tiny, train

REFUSED = "-DSL_E=16"
"""At width 64 the factors of a BTT's FFN have e = 16 or g = 16, those of attention have neither."""


@pytest.fixture
def fussy_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A g++ that builds every kernel, without optimisation, but for one shape."""
    program = tmp_path / "bin" / "g++"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/bash\ncase \"$*\" in *{REFUSED}*) echo 'internal compiler error' >&2; exit 1;; esac\n"
        f'exec {shutil.which("g++")} "${{@/-O3/-O0}}"\n'
    )
    program.chmod(0o755)
    caches = (compiler.find_compiler, compiler.version, cpp.kernel, attention.kernel)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_a_kernel_that_cannot_be_built_is_recorded_by_the_runs_that_need_it(
    fussy_compiler, tmp_path: Path, data_root: Path
) -> None:
    """The smallest kernel of all is built, so the processor's backend is cpp; the second run finds the failure kept."""
    first, second = tiny("btt", 64), tiny("btt", 64, seed=1)
    for science in (first, second):
        state, folder = train(science, (2,), tmp_path / "runs", data_root)
        assert state == "done"
        (record,) = folder.provenance()
        assert record["backend"].startswith("cpp (g++")
        assert record["backend"].endswith("), in part torch")
        (shape,) = record["unbuilt"]
        assert shape.startswith("products ProductSizes(")
        assert "e=16" in shape
    _, other = train(tiny("dense", 64), (2,), tmp_path / "runs", data_root)
    (record,) = other.provenance()
    assert record["backend"].endswith(")")
    assert record["unbuilt"] == []
    assert sorted(table.load(tmp_path / "runs")["backend"].str.endswith("torch")) == [False, True, True]


def test_a_whole_run_records_no_more_than_its_backend(tmp_path: Path, data_root: Path) -> None:
    _, folder = train(tiny("btt", 64), (2,), tmp_path, data_root)
    (record,) = folder.provenance()
    assert record["backend"].startswith("cpp (g++" if shutil.which("g++") else "torch")
    assert record["unbuilt"] == [] or not shutil.which("g++")


def test_looking_for_kernels_leaves_no_trace(data_root: Path) -> None:
    from structlin.tasks.catalogue import open_task

    task = open_task(tiny("btt", 64), data_root)
    model, state = task.build_model(), torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    unbuilt_kernels(task, model, torch.device("cpu"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
