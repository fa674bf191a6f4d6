"""Which signals does a command hear? Ctrl-C always, also as a background job; SIGTERM; SIGHUP but under nohup."""

import os
import pty
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
        ((), ["SIGHUP"], -signal.SIGHUP, "ended by SIGHUP\n"),
        ((), ["SIGTERM"], -signal.SIGTERM, "ended by SIGTERM\n"),
        ((signal.SIGHUP,), ["SIGTERM"], -signal.SIGTERM, "ended by SIGTERM\n"),
    ],
)
def test_signals_to_a_command(ignored: tuple[int, ...], arguments: list[str], code: int, printed: str) -> None:
    def ignore() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    command = [sys.executable, "-c", COMMAND, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=ignore)
    assert (done.returncode, done.stdout + done.stderr) == (code, printed)


def test_a_terminal_that_has_gone_costs_nothing() -> None:
    """The hang-up comes, and nothing can be printed any more: what is saved at the end is saved."""
    program = """
import os, signal, sys, time
from structlin.errors import door

def main(arguments):
    os.kill(os.getppid(), signal.SIGUSR1)
    try:
        time.sleep(60)
    finally:
        print("stopping", flush=True)
        open(sys.argv[1], "w").write("saved")

door(main)
"""
    # The session's leader, which dies with its terminal; no fork of this process, which has threads of pytest's.
    leader = """
import fcntl, os, signal, subprocess, sys, termios, threading

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
# As a shell starts it, whatever has started these tests: under nohup they would hand down a hang-up that is not heard.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
ready = threading.Event()
signal.signal(signal.SIGUSR1, lambda number, frame: ready.set())
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "/dev/fd/" + sys.argv[2]], pass_fds=[int(sys.argv[2])])
ready.wait()
os.write(1, b"up")
child.wait()
"""
    reading, writing = os.pipe()
    terminal, line = pty.openpty()
    command = [sys.executable, "-c", leader, program, str(writing)]
    ends = {"stdin": line, "stdout": line, "stderr": line, "pass_fds": [writing], "start_new_session": True}
    process = subprocess.Popen(command, cwd=ROOT, **ends)  # type: ignore[call-overload]
    os.close(writing)
    os.close(line)
    assert os.read(terminal, 2) == b"up"
    os.close(terminal)
    with os.fdopen(reading) as stream:
        assert stream.read() == "saved"
    process.wait(60)
