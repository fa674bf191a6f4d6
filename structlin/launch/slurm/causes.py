"""Of what does an element end? One table of classes: the words, exit codes and SLURM's states that tell each.

A new class is a row here. What is trusted most comes first (``cause_of``): what a run itself says, then SLURM's state,
the element's exit code, the memory it reached, and the last lines of its log.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from structlin.host.storage import STORAGE_WORDS
from structlin.launch.slurm.controller import End

STORAGE_EXIT, SAVED_EXIT, NODE_EXIT, SETUP_EXIT = 74, 75, 69, 78
"""Exit codes of an element (those of sysexits.h): sacct keeps them where nothing at all can be written."""
TAIL_BYTES = 8192
NEAR_ASKED = 0.95
"""A dead job whose memory had come so near to what it asked for died of it."""


@dataclass(frozen=True)
class Cause:
    """One class of ends."""

    name: str
    counted: bool = False
    """Whether it may be the run's own fault: it is then tried again at most ``launch.max_retries`` times."""
    words: re.Pattern[str] | None = None
    """In a run's own reason, or at the end of the log."""
    said: re.Pattern[str] | None = None
    """At the end of the log alone: SLURM's words."""
    states: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()
    """code:signal."""


CAUSES = (
    Cause("storage", words=STORAGE_WORDS, exits=(f"{STORAGE_EXIT}:0", "0:53")),
    Cause(
        "time",
        True,
        re.compile(r"^out of time", re.MULTILINE),
        re.compile("DUE TO TIME LIMIT"),
        ("TIMEOUT", "DEADLINE"),
    ),
    # More host memory would not help: the reason names what would.
    Cause("gpu memory", True, re.compile(r"^gpu memory: |CUDA out of memory", re.MULTILINE)),
    Cause(
        "memory",
        True,
        re.compile(
            r"oom.kill|(?<!CUDA )out of memory|(?<!torch\.)(?<!torch\.cuda\.)OutOfMemory|"
            r"OOM Killed|MemoryError|bad_alloc|cannot allocate memory|"
            r"exceeded (?:job |step )?memory limit",
            re.IGNORECASE,
        ),
        states=("OUT_OF_MEMORY",),
    ),
    Cause(
        "node",
        words=re.compile(
            r"^node: |CUDA-capable device\(s\) is/are busy|"
            r"GPU (?:is )?busy|devices are busy|uncorrectable ECC|ECC error|"
            r"ncclSystemError|NCCL.{0,80}unhandled system error|unhandled system error.{0,80}NCCL|"
            r"health.?check.{0,40}fail|failed.{0,20}health.?check|fallen off the bus|GPU is lost|"
            r"Unable to determine the device handle|Failed to initialize NVML|Driver/library version mismatch",
            re.IGNORECASE | re.DOTALL | re.MULTILINE,
        ),
        said=re.compile(r"DUE TO NODE FAILURE|NODE_FAIL"),
        states=("NODE_FAIL", "BOOT_FAIL"),
        exits=(f"{NODE_EXIT}:0",),
    ),
    Cause("preempted", said=re.compile("DUE TO PREEMPTION"), states=("PREEMPTED",)),
    Cause("cancelled", said=re.compile("CANCELLED AT"), states=("CANCELLED", "REVOKED")),
    Cause("saved", said=re.compile("^saved, and to be submitted again", re.MULTILINE), exits=(f"{SAVED_EXIT}:0",)),
    Cause("setup", True, said=re.compile("^setup failed", re.MULTILINE), exits=(f"{SETUP_EXIT}:0",)),
    Cause("left", states=("COMPLETED",)),
    Cause("crash", True),
    Cause("unknown"),
)
"""In this order; where a log says several, its last word counts."""

COUNTED = tuple(cause.name for cause in CAUSES if cause.counted)


def by_reason(reason: str) -> str:
    """The class that a run's own reason tells; empty where it tells none."""
    return next((cause.name for cause in CAUSES if cause.words is not None and cause.words.search(reason)), "")


def cause_of(end: End | None, failure: str, log: Path, asked_bytes: int) -> str:
    """Why an element did not finish a run, by what the element wrote, by sacct and by its log, in this order."""
    if failure and (named := by_reason(failure)):
        return named
    if end is not None:
        by_state = next((cause.name for cause in CAUSES if end.state in cause.states), "")
        if by_state and not (by_state == "left" and failure):
            return by_state
        if by_exit := next((cause.name for cause in CAUSES if end.exit_code in cause.exits), ""):
            return by_exit
        if end.max_rss_bytes >= NEAR_ASKED * asked_bytes:
            return "memory"
    tail = _tail(log)
    # A requeued element appends to its log: the last word counts.
    said = {
        found.start(): cause.name
        for cause in CAUSES
        for words in (cause.words, cause.said)
        if words is not None
        for found in words.finditer(tail)
    }
    if said:
        return said[max(said)]
    # Without accounting and without output nothing says that it ever began.
    return "crash" if failure or end is not None or tail else "unknown"


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
