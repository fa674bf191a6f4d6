"""Which command is meant? ``structlin COMMAND [key=value ...]``, the same as ``python -m structlin COMMAND``.

Each command is a module with a ``main(arguments) -> exit code``, imported when it is asked for: laws need no torch,
and a data command no Hydra.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import structlin
from structlin.errors import UserError, door, suggest

COMMANDS = {
    "demo": ("structlin.command.demo", "a first result in minutes: trains eight small runs and says what they show"),
    "sweep": ("structlin.command.sweep", "plan a grid of (width, tokens), show the bill, train what is missing"),
    "train": ("structlin.command.train", "train one run"),
    "fit": ("structlin.command.fit", "fit laws to runs, or to anybody's table; write the report"),
    "figures": ("analysis.make", "draw the figures, from the kept runs or from your own"),
    "report": ("analysis.report", "all figures and laws as one page and a PDF"),
    "status": ("structlin.command.status", "how far a sweep is, in the terminal or as a page"),
    "data": ("structlin.data.__main__", "prepare or check data"),
    "table": ("structlin.runs.table", "all evaluations as one table"),
    "generate": ("structlin.command.generate", "let a trained model go on with a text"),
    "convert": ("structlin.command.convert", "ranks of single linears from a trained run"),
    "speeds": ("structlin.command.speeds", "measure how fast the models of a store decode, for its table"),
    "sync": ("structlin.runs.tracking.sync", "complete W&B's copies of runs"),
    "explain": ("structlin.command.explain", "what a structure is: einsum, sizes, costs, taxonomy, picture"),
    "completion": ("structlin.command.completion", "a script that completes commands and keys in bash, zsh or fish"),
}
"""Command -> its module, and what it does."""
FIGURES = "analysis."


def help_text() -> str:
    """What ``structlin --help`` prints."""
    rows = "\n".join(f"  {name:<12}{said}" for name, (_, said) in COMMANDS.items())
    return (
        f"structlin {structlin.__version__}: scaling laws of structured linear layers\n\n"
        f"structlin COMMAND [key=value ...]\n\n{rows}\n\n"
        "structlin COMMAND --help lists the keys of a command."
    )


def main(arguments: list[str]) -> int:
    """Hand the words over to the command that the first of them names. UserError for an unknown one."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        print(f"structlin {structlin.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        hint = "a command comes first: structlin sweep ...; " if "=" in name else ""
        raise UserError(f"structlin {name} is no command; {hint}{suggest(name, COMMANDS)}")
    return main_of(COMMANDS[name][0])(rest) or 0


def main_of(module: str) -> Callable[[list[str]], int | None]:
    """The main function of a command's module."""
    if module.startswith(FIGURES):
        module = figures_module(module)
    found: Callable[[list[str]], int | None] = importlib.import_module(module).main
    return found


def figures_module(module: str) -> str:
    """The figures stand beside the package in a tree, and inside of it where it is installed."""
    tree = Path(structlin.__file__).resolve().parents[1]
    if not (tree / "analysis" / "make.py").is_file():
        return f"structlin.{module}"
    if str(tree) not in sys.path:
        sys.path.insert(0, str(tree))
    return module


def kept_study(name: str) -> Path:
    """The table of a study that is kept with the figures. UserError where there is none."""
    inside = Path(structlin.__file__).resolve().parent / "analysis"
    folder = inside if inside.is_dir() else inside.parents[1] / "analysis"
    path = folder / "data" / f"{name}.parquet"
    if not path.is_file():
        raise UserError(f"no runs of study={name} are kept at {path}")
    return path


def run() -> None:
    """The console command."""
    door(main)
