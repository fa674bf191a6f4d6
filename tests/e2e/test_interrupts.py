"""Which signals does a command hear? Ctrl-C always, also as a background job of a script; SIGHUP not under nohup."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMAND = """
import os, signal
from structlin.errors import door

def main(arguments):
    if arguments[1:] == ["ignores"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.kill(os.getpid(), getattr(signal, arguments[0]))
    print("goes on")

door(main)
"""


# (signals ignored at its start, what the command does, its exit code, what it prints)
@pytest.mark.parametrize(
    ("ignored", "arguments", "code", "printed"),
    [
        ((), ["SIGINT"], 130, "interrupted\n"),
        ((signal.SIGINT,), ["SIGINT"], 130, "interrupted\n"),
        ((signal.SIGINT,), ["SIGINT", "ignores"], 0, "goes on\n"),
        ((signal.SIGINT, signal.SIGHUP), ["SIGINT"], 130, "interrupted\n"),
        ((signal.SIGINT, signal.SIGHUP), ["SIGHUP"], 0, "goes on\n"),
        ((), ["SIGHUP"], -signal.SIGHUP, ""),
    ],
)
def test_signals_to_a_command(ignored: tuple[int, ...], arguments: list[str], code: int, printed: str) -> None:
    def ignore() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    command = [sys.executable, "-c", COMMAND, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=ignore)
    assert (done.returncode, done.stdout + done.stderr) == (code, printed)
