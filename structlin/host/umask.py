"""Who may write what we make? A store that several people share needs folders and files that their group may write."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from structlin.errors import UserError

GROUP = 0o070


def umask_of(text: object) -> int | None:
    """The umask of a value of ``store.umask`` such as "002"; None for null. UserError for what is no octal number."""
    if text is None:
        return None
    if isinstance(text, bool) or not re.fullmatch(r"0?o?[0-7]{1,3}", str(text)):
        raise UserError(f'store.umask = {text!r} should be an octal number in quotes, such as "002" or "027"')
    return int(str(text).removeprefix("0o"), 8)


def apply_umask(text: object, store: Path) -> None:
    """Let this process and those it starts make files by ``store.umask``.

    Where it is null and the store's folder is made for a group (setgid, and its group may write), the group may write
    what we make too. Folders below it take its group and the setgid bit from the kernel.
    """
    wanted = umask_of(text)
    if wanted is None:
        try:
            mode = store.stat().st_mode
        except OSError:
            return
        if not (mode & stat.S_ISGID and mode & stat.S_IWGRP):
            return
        wanted = os.umask(0o022)
        wanted &= ~GROUP
    os.umask(wanted)
