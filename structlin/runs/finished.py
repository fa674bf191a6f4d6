"""Which runs were found done, and by which files? Kept in the store, so that the next look opens none of them.

runs/finished.json   a line a run: the time and size of its result.json (or archive), the time of its folder of
                     attempts, the steps that are evaluated, and whether several codes have trained it

A run is opened again once one of these has another time or size. Whoever only looks (the status, a dry run) may go by
it; who trains opens every result and checks it, for a disk can change a bit without changing a time. The file is a
copy: whoever deletes it loses time alone, and where it cannot be written nothing is said.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structlin.host.files import write_atomically
from structlin.runs import archive

FILE = "finished.json"
FORM = 1
SETTLING_SECONDS = 0.1
"""A file that has only just changed may change again without another time: file systems count in ticks."""
WORTH = 100
"""So many new runs are worth a file."""

Key = tuple[int, int, int]
"""Time and size of the result, time of the folder of attempts."""


@dataclass
class Finished:
    """The runs of a store that were found done. ``find`` asks the file system, and nothing else does."""

    root: Path
    _known: dict[str, tuple[Key, int, bool]] = field(default_factory=dict)
    _steps: list[frozenset[int]] = field(default_factory=list)
    _numbers: dict[frozenset[int], int] = field(default_factory=dict)
    _new: int = 0

    @classmethod
    def of(cls, root: Path) -> Finished:
        """What is kept of a store; nothing where it is broken, of another form or missing."""
        found = cls(root)
        try:
            values = json.loads((root / FILE).read_bytes())
            if values["form"] == FORM:
                for steps in values["steps"]:
                    found._number(frozenset(steps))
                for run, result, size, attempts, number, mixed in values["runs"]:
                    found._known[run] = ((result, size, attempts), number, mixed)
        except (OSError, ValueError, KeyError, TypeError):
            return cls(root)
        return found

    def find(self, run: str, folder: str) -> tuple[frozenset[int], bool] | None:
        """Steps at which a run of a folder is evaluated, and whether several codes trained it; None: open it."""
        known = self._known.get(run)
        if known is None or known[0] != _key(folder):
            return None
        return self._steps[known[1]], known[2]

    def keep(self, run: str, folder: str, steps: frozenset[int], mixed: bool) -> None:
        """Keep a run that was opened, unless it has changed this moment."""
        key = _key(folder)
        if key is not None and key[0] < (time.time() - SETTLING_SECONDS) * 1e9:
            self._known[run] = (key, self._number(steps), mixed)
            self._new += 1

    def write(self) -> None:
        """Write what is new, where it is worth it and as far as the store lets."""
        if self._new < WORTH:
            return
        runs = [[run, *key, number, mixed] for run, (key, number, mixed) in self._known.items()]
        lines = ",\n".join(json.dumps(values) for values in runs)
        steps = json.dumps([sorted(one) for one in self._steps])
        text = f'{{"form": {FORM}, "steps": {steps}, "runs": [\n{lines}\n]}}\n'
        with contextlib.suppress(OSError):
            write_atomically(self.root / FILE, text.encode())
        self._new = 0

    def _number(self, steps: frozenset[int]) -> int:
        if steps not in self._numbers:
            self._numbers[steps] = len(self._steps)
            self._steps.append(steps)
        return self._numbers[steps]


def _key(folder: str) -> Key | None:
    """The state of a run's files; None where it has no result that can be looked at."""
    try:
        result: Any = os.stat(f"{folder}/result.json")
        return result.st_mtime_ns, result.st_size, os.stat(f"{folder}/attempts").st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return None
    try:
        packed = os.stat(folder + archive.ENDING)
        # A folder beside an archive counts, and the archive does not.
        return None if os.path.exists(folder) else (packed.st_mtime_ns, packed.st_size, 0)
    except OSError:
        return None
