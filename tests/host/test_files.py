"""A file is whole or not there: after errors, between writers, for readers in the middle, with the modes of others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from structlin.errors import UserError
from structlin.host import files
from structlin.host.files import read_json, replacing, write_atomically, write_json


class Full(OSError):
    """What a full disk says."""


def _stream(path: Path, content: bytes, fail: bool) -> None:
    def fill(stream) -> None:
        stream.write(content)
        if fail:
            raise Full

    write_atomically(path, fill)


def _path(path: Path, content: bytes, fail: bool) -> None:
    with replacing(path) as beside:
        beside.write_bytes(content)
        if fail:
            raise Full


@pytest.fixture(params=[_stream, _path])
def write(request: pytest.FixtureRequest) -> Callable[[Path, bytes, bool], None]:
    return request.param


def test_the_old_file_stands_until_the_new_one_is_whole(write, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    write(path, b"old", False)
    with pytest.raises(Full):
        write(path, b"half", True)
    assert path.read_bytes() == b"old"
    write(path, b"new", False)
    assert path.read_bytes() == b"new"
    assert [one.name for one in path.parent.iterdir()] == ["a.bin"]


def test_a_first_write_that_fails_leaves_nothing(write, tmp_path: Path) -> None:
    with pytest.raises(Full):
        write(tmp_path / "a.bin", b"half", True)
    assert list(tmp_path.iterdir()) == []


def test_a_name_comes_after_the_bytes_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "a.bin", []
    sync = os.fsync

    def watched(number: int) -> None:
        synced.append((os.fstat(number).st_size, path.exists()))
        sync(number)

    monkeypatch.setattr(files.os, "fsync", watched)
    write_atomically(path, b"12345")
    assert synced == [(5, False)]


def test_a_file_that_cannot_reach_the_disk_is_not_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise Full

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(Full):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_each_have_a_file_of_their_own(tmp_path: Path) -> None:
    """Threads share the number of their process: they meet in the middle of their writes, and both are whole."""
    path, meet, errors = tmp_path / "a.bin", threading.Barrier(2), []
    contents = [bytes([65 + place]) * 100_000 for place in range(2)]

    def work(content: bytes) -> None:
        def fill(stream) -> None:
            stream.write(content[:50_000])
            meet.wait(timeout=20)
            stream.write(content[50_000:])

        try:
            for _ in range(5):
                write_atomically(path, fill)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_the_mode_is_that_of_any_new_file(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "ours", b"x")
        (tmp_path / "plain").write_bytes(b"x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode == 0o100666 & ~mask


def test_whoever_fills_a_path_may_choose_its_mode(tmp_path: Path) -> None:
    with replacing(tmp_path / "key") as beside:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL, 0o400))
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o400


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"b": [1, 0.1 + 0.2, None], "a": "ä"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert list(read_json(tmp_path / "a.json")) == ["b", "a"]


@pytest.mark.parametrize(("content", "said"), [(None, "is missing"), (b'{"a": 1', "is not JSON"), (b"\xff", "is not")])
def test_a_broken_file_is_named(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} {said}"):
        read_json(path)
