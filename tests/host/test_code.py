"""Provenance names the package's own commit, and a run of several codes is told."""

import json
import subprocess
from pathlib import Path

import pytest

from structlin import __version__
from structlin.host.code import PACKAGE, code_hash, code_state, is_mixed
from structlin.host.files import write_json
from structlin.runs.machine import cores, cpu_quota


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def package(root: Path) -> Path:
    (root / "structlin").mkdir(parents=True)
    (root / "structlin" / "__init__.py").write_text("")
    return root / "structlin"


def repository(root: Path) -> str:
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "x", "--allow-empty")
    return git(root, "rev-parse", "HEAD")


def test_a_checkout_of_its_own(tmp_path: Path) -> None:
    found = package(tmp_path)
    commit = repository(tmp_path)
    assert code_state(found) == commit
    (found / "__init__.py").write_text("x = 1\n")
    assert code_state(found) == f"{commit} with changes"


@pytest.mark.parametrize("place", [".venv/lib/python3.11/site-packages", "vendored"])
def test_a_repository_around_an_installed_package_says_nothing(place: str, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text(".venv\n")
    found = package(tmp_path / place)
    commit = repository(tmp_path)
    assert commit not in code_state(found)
    assert __version__ in code_state(found)


def test_an_untracked_package_in_the_top_folder_is_not_its_commit(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("")
    commit = repository(tmp_path)
    assert commit not in code_state(package(tmp_path))


def test_frozen_code_carries_its_state(tmp_path: Path) -> None:
    write_json(tmp_path / "code.json", {"commit": "abc", "diff_sha256": "0" * 64})
    assert code_state(package(tmp_path)) == "abc, frozen with the changes 000000000000"


def test_the_hash_is_of_names_and_bytes(tmp_path: Path) -> None:
    found = package(tmp_path)
    before = code_hash(found)
    (found / "__pycache__").mkdir()
    (found / "__pycache__" / "a.pyc").write_text("compiled")
    assert code_hash(found) == before
    (found / "a.py").write_text("")
    assert code_hash(found) != before
    assert len(code_hash(PACKAGE)) == 12


@pytest.mark.parametrize(
    ("origins", "mixed"),
    [
        ([], False),
        ([{"code_hash": "a", "torch_version": "2"}], False),
        ([{"code_hash": "a", "torch_version": "2", "host": "n1"}, {"code_hash": "a", "torch_version": "2"}], False),
        ([{"code_hash": "a", "torch_version": "2"}, {"code_hash": "b", "torch_version": "2"}], True),
        ([{"code_hash": "a", "torch_version": "2"}, {"code_hash": "a", "torch_version": "3"}], True),
        ([{"code": "x", "torch_version": "2"}, {"code": "y", "torch_version": "2"}], True),
        ([{"code": "x", "torch_version": "2"}, {"code": "x", "torch_version": "2"}], False),
    ],
)
def test_mixed_code(origins: list[dict], mixed: bool) -> None:
    assert is_mixed(origins) is mixed


# ---- cores -----------------------------------------------------------------------------------------------------------


def groups(root: Path, files: dict[str, str], own: str) -> float:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "self").write_text(own)
    return cpu_quota(root, root / "self")


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({"cpu.max": "max 100000\n"}, "0::/\n", float("inf")),
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2.0),
        ({"a/cpu.max": "350000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 3.5),
        ({"a/cpu.max": "50000 100000\n"}, "0::/a\n", 1.0),
        ({"cpu,cpuacct/a/cpu.cfs_quota_us": "400000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
         "4:cpu,cpuacct:/a\n0::/\n", 4.0),
        ({"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu:/a\n", float("inf")),
        ({}, "", float("inf")),
    ],
)  # fmt: skip
def test_the_quota_of_a_container(files: dict[str, str], own: str, quota: float, tmp_path: Path) -> None:
    assert groups(tmp_path, files, own) == quota


def test_workers_are_no_more_than_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    from structlin.runs import machine

    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: 2.5)
    assert cores() == 2
    monkeypatch.setattr(machine, "cpu_quota", lambda: float("inf"))
    assert cores() == 64


def test_a_record_names_code_by_its_hash(tmp_path: Path, data_root: Path) -> None:
    from tests.tiny import tiny, train

    _, folder = train(tiny(), (2,), tmp_path, data_root)
    (record,) = folder.provenance()
    assert record["code_hash"] == code_hash()
    assert json.loads((folder.path / "attempts/1/provenance.json").read_text())["code"] == code_state()
