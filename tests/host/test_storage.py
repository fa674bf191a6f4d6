"""Errors of the storage are known by their number and words, and a store that takes nothing is told beforehand."""

import errno
import os
import stat
from pathlib import Path

import pytest

from structlin.errors import UserError
from structlin.host.storage import STORAGE_WORDS, is_storage, why_not_writable
from structlin.host.umask import apply_umask, umask_of

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS, errno.EIO, errno.ENOTCONN, errno.ESHUTDOWN)
OTHER = (errno.EACCES, errno.ENOENT, errno.ENOMEM, errno.EPERM, errno.EISDIR)


@pytest.mark.parametrize("number", STORAGE)
def test_a_number_and_its_words_are_of_the_storage(number: int) -> None:
    error = OSError(number, os.strerror(number), "/store")
    assert is_storage(error)
    assert STORAGE_WORDS.search(str(error))
    wrapped = RuntimeError("writing failed")
    wrapped.__cause__ = error
    assert is_storage(wrapped)


@pytest.mark.parametrize("number", OTHER)
def test_others_are_not(number: int) -> None:
    assert not is_storage(OSError(number, os.strerror(number), "/store"))
    assert not STORAGE_WORDS.search(os.strerror(number))


def test_a_store_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    assert why_not_writable(tmp_path / "runs") == ""
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("number", STORAGE)
def test_a_store_that_takes_nothing_says_why(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*anything: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert why_not_writable(tmp_path) == os.strerror(number)
    assert list(tmp_path.iterdir()) == []


# ---- who may write ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def modes(folder: Path) -> tuple[int, int]:
    """Bits of a folder and a file made below."""
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("")
    return tuple(stat.S_IMODE((folder / name).stat().st_mode) for name in ("sub", "sub/file"))


def test_a_umask_that_is_asked_for(tmp_path: Path) -> None:
    apply_umask("002", tmp_path)
    assert modes(tmp_path) == (0o775, 0o664)


def test_the_store_of_a_group_is_open_to_it_and_keeps_setgid(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    apply_umask(None, tmp_path)
    assert modes(tmp_path) == (0o2770, 0o660)


def test_ones_own_store_stays_ones_own(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    apply_umask(None, tmp_path)
    assert modes(tmp_path) == (0o700, 0o600)


@pytest.mark.parametrize(("text", "mask"), [("002", 2), ("0o27", 0o27), (2, 2), ("77", 0o77), (None, None)])
def test_what_a_umask_is(text: object, mask: int | None) -> None:
    assert umask_of(text) == mask


@pytest.mark.parametrize("text", ["u=rwx", "8", "0777777", True, ""])
def test_what_is_no_umask(text: object) -> None:
    with pytest.raises(UserError, match=r"store\.umask"):
        umask_of(text)
