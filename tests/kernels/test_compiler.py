"""Builds are kept, shared safely by processes, keyed by all that matters, and may fail without harm."""

from __future__ import annotations

import logging
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from structlin.kernels import compiler
from structlin.kernels.backends import backend_name
from structlin.kernels.products import cpp, op
from tests.kernels.products.reference import CASES, assert_equal, expected, operands

SOURCE = 'extern "C" int answer() { return ANSWER; }\n'


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiler._say_once.cache_clear()
    path = tmp_path / "answer.cpp"
    path.write_text(SOURCE)
    return path


def builds():
    return sorted(path.name for path in compiler.cache_directory().iterdir())


def test_a_build_is_kept_and_keyed_by_its_options(source):
    assert compiler.load(source, ["-DANSWER=41"]).answer() == 41
    assert compiler.load(source, ["-DANSWER=42"]).answer() == 42
    kept = builds()
    assert len(kept) == 2
    assert compiler.load(source, ["-DANSWER=42"]).answer() == 42
    assert builds() == kept


def test_changed_source_is_built_anew(source):
    assert compiler.load(source, ["-DANSWER=1"]).answer() == 1
    source.write_text(SOURCE.replace("return ANSWER", "return ANSWER + 1"))
    assert compiler.load(source, ["-DANSWER=1"]).answer() == 2


def test_builds_at_the_same_time_leave_one_library(source):
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(lambda _: compiler.load(source, ["-DANSWER=7"]), range(4)))
    assert [library.answer() for library in libraries] == [7] * 4
    assert len(builds()) == 1


def test_a_failed_build_is_one_log_line_and_leaves_nothing(source, caplog):
    source.write_text("this is no program\n")
    with caplog.at_level(logging.WARNING):
        assert compiler.load(source, []) is None
        assert compiler.load(source, []) is None
    assert len(caplog.records) == 1
    assert "torch path" in caplog.text
    assert builds() == []


@pytest.fixture
def path(monkeypatch):
    """Set the PATH on which a compiler is looked for anew."""

    def forget():
        for cached in (compiler.find_compiler, compiler.works, compiler.version, cpp.kernel):
            cached.cache_clear()

    def set_path(value):
        monkeypatch.setenv("PATH", value)
        forget()

    yield set_path
    forget()


def assert_torch_serves_and_is_recorded(caplog):
    x, first, second, dy = operands(CASES[2], 20)
    with caplog.at_level(logging.WARNING):
        assert backend_name(torch.device("cpu"), torch.float32) == "torch"
        y = op.products(x, first, second, True)
        gradients = torch.ops.structlin.products_backward.default(dy, x, first, second, True, True, True)
    assert_equal((y, *gradients), expected(CASES[2], x, first, second, dy))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_a_compiler_the_operators_still_work(source, path, caplog):
    path("")
    assert_torch_serves_and_is_recorded(caplog)


@pytest.mark.parametrize(
    "program",
    ["raise SystemExit('out of order')", "import sys; print('g++ 13'); sys.exit('--version' not in sys.argv)"],
    ids=["dead", "cannot link"],
)
def test_a_compiler_that_cannot_build_is_recorded_as_torch(program, source, tmp_path, path, caplog):
    broken = tmp_path / "g++"
    broken.write_text(f"#!{sys.executable}\n{program}\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    path(str(tmp_path))
    assert_torch_serves_and_is_recorded(caplog)


def test_a_compiler_that_hangs_or_breaks_is_survived(source, tmp_path, monkeypatch):
    broken = tmp_path / "g++"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit('out of order')\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(compiler, "find_compiler", lambda: str(broken))
    assert compiler.load(source, []) is None


def test_narrow_vectors_give_the_same(monkeypatch):
    """The AVX2 and the plain form of the kernel, which this machine's own instruction set would not choose."""
    if compiler.platform.machine() not in ("x86_64", "AMD64"):
        return
    x, first, second, dy = operands(CASES[3], 100)
    wanted = expected(CASES[3], x, first, second, dy)
    for flags in (["-mno-avx512f"], ["-mno-avx512f", "-mno-avx2", "-mno-avx"]):
        library = compiler.load(cpp._SOURCE, [*cpp._defines(CASES[3]), *flags])
        assert library is not None
        kernel = cpp.Kernel(CASES[3], library)
        assert_equal((kernel.forward(x, first, second),), wanted[:1])
        assert_equal(kernel.backward(dy, x, first, second, True, True), wanted[1:])
        assert torch.equal(kernel.forward(x, first, second), kernel.forward(x, first, second))
