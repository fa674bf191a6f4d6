"""Who trains many runs without starting Python for each? A process that takes requests as lines of JSON.

    in   {"job": {...}, "runs": path, "data_root": path, "placement": {...}}      train a job
         {"probe": {science}, "placement": {...}}                                 measure its speed
    out  {"state": "done", "reason": ""}  or  {"tokens_per_second": 12345.6}  or  {"error": "one line"}
         {"reason": "one line"}                                                      a speed that could not be measured
         {"state": "failed", "reason": "", "ends": true}                          and the process ends: its GPU is lost

The lines say only that a request has ended; what came of it stands in the run's folder. The end of the input ends
the process. On SIGTERM, SIGINT, SIGUSR1, SIGUSR2 (a scheduler's warning) or the death of its parent it saves a
checkpoint and ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from structlin.config.identity import build, science_from
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError, one_line
from structlin.host.storage import is_storage
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.training.entry import execute
from structlin.training.failures import DeadGpu, empty_memory, is_dead, reason_of
from structlin.training.probe import tokens_per_second

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C, the launcher, and the warnings of a batch system, which reach every process of a job."""


class StopFlag:
    """Whether this process should save and end."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._stopped = False
        for number in STOPPING:
            signal.signal(number, self._stop)
        # The launcher starts us with these held back, so that none ends us before we can listen.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _stop(self, number: int, frame: object) -> None:
        self._stopped = True

    def __call__(self) -> bool:
        return self._stopped or os.getppid() != self._parent


def main() -> None:
    """Serve requests until the input ends or a signal comes."""
    # Replies have this process's stdout to themselves; whatever libraries print goes to stderr.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    should_stop = StopFlag()
    stores: dict[str, Store] = {}
    while not should_stop():
        line = sys.stdin.readline()
        if not line:
            return
        reply = _answer(json.loads(line), stores, should_stop)
        if not reply.get("ends"):
            gc.collect()
            empty_memory()
        replies.write(json.dumps(reply) + "\n")
        if reply.get("ends"):
            # What the CUDA library does at a normal exit may hang on a dead context.
            os._exit(0)


def _answer(request: dict[str, Any], stores: dict[str, Store], should_stop: StopFlag) -> dict[str, Any]:
    try:
        placement = build(Placement, request["placement"], "placement")
        if "probe" in request:
            return _speed(science_from(request["probe"]), placement)
        job = Job.from_mapping(request["job"])
        store = stores.setdefault(request["runs"], Store(Path(request["runs"])))
        reasons: list[str] = []
        try:
            state = execute(job, store, Path(request["data_root"]), placement, should_stop, tell=reasons.append)
        except DeadGpu as end:
            return {"state": str(end), "reason": "; ".join(reasons), "ends": True}
        return {"state": state, "reason": "; ".join(reasons)}
    except UserError as error:
        return {"error": one_line(error)}
    except OSError as error:
        # A store that has gone altogether: not even its folders can be looked at.
        return {"error": f"{'storage: ' if is_storage(error) else ''}{one_line(error)}"}


def _speed(science: Science, placement: Placement) -> dict[str, Any]:
    """Tokens a second, or why they could not be measured."""
    try:
        return {"tokens_per_second": tokens_per_second(science, placement)}
    except UserError:
        raise
    except Exception as error:
        traceback.print_exc()
        return {"reason": reason_of(error), "ends": is_dead(error)}


if __name__ == "__main__":
    main()
