"""Which runs belong together? The manifest of a sweep, from which its status is shown without planning it again.

runs/sweeps/<name>.json   {"asked": a hash of the command line and the code, "name", "command", "design", "cells": [],
                           "evaluations": [steps of evaluation, each kind once],
                           "runs": [{"run_id", "title", "evaluations": which kind, "batch_tokens", "flops_per_step"}]}
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlin.anatomy.compute import step_flops
from structlin.config.identity import run_id
from structlin.errors import UserError, suggest
from structlin.host.code import own_hash
from structlin.host.files import read_json, write_atomically
from structlin.host.passed_over import pass_over
from structlin.planning.grid import Plan
from structlin.runs.job import Job
from structlin.runs.speeds import shape_key

_WISHES = ("status", "watch", "format", "retry", "cancel", "dry_run")
"""Keys that say what is to be done with a sweep, not which one it is."""
_ASKED = re.compile(r'\s*\{\s*"asked": "([0-9a-f]+)"')


@dataclass(frozen=True)
class Listed:
    """A run of a manifest: a job without its science."""

    run_id: str
    title: str
    evaluations: tuple[int, ...]
    batch_tokens: int
    flops_per_step: float
    """Training FLOPs of one of its steps, on average."""

    @property
    def target_step(self) -> int:
        """The last step."""
        return self.evaluations[-1]


def listed(jobs: Iterable[Job]) -> Iterator[Listed]:
    """Jobs as a manifest keeps them."""
    known: dict[str, float] = {}  # thousands of runs have a few shapes
    for job in jobs:
        shape = shape_key(job.science)
        if shape not in known:
            known[shape] = step_flops(job.science)
        yield Listed(job.run_id, job.title, job.evaluations, job.science.optim.batch_tokens, known[shape])


def write(path: Path, plan: Plan, *, asked: str, **about: Any) -> None:
    """Write the manifest of a planned sweep; ``about``: name, command and design."""
    cells = [
        {"run_id": run_id(cell.science), "step": cell.step, "budget_flops": cell.budget_flops} for cell in plan.cells
    ]
    kinds: dict[tuple[int, ...], int] = {}  # thousands of runs are evaluated at the same few steps
    runs = [{**vars(one), "evaluations": kinds.setdefault(one.evaluations, len(kinds))} for one in listed(plan.jobs)]
    manifest = {"asked": asked, **about, "cells": cells, "evaluations": list(map(list, kinds)), "runs": runs}
    if _holds(path, manifest):
        # A full disk takes no copy, but this: the last sweep is the one that was asked for last.
        path.touch()
        return
    write_atomically(path, _text(manifest).encode())


def _text(manifest: dict[str, Any]) -> str:
    """JSON with a line for each cell and each run."""
    parts = []
    for name, value in manifest.items():
        lines = [json.dumps(one) for one in value] if isinstance(value, list) else []
        text = "[\n" + ",\n".join(lines) + "\n]" if lines else json.dumps(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _holds(path: Path, manifest: dict[str, Any]) -> bool:
    """Whether a file has this manifest already."""
    try:
        return bool(read_json(path) == json.loads(json.dumps(manifest)))
    except (UserError, OSError):
        return False


def hash_of(words: Sequence[str]) -> str:
    """Of a command line but for its wishes, in any order, and of the code that plans it."""
    own = sorted(word for word in words if word.partition("=")[0] not in _WISHES)
    return hashlib.sha256("\0".join([own_hash(), *own]).encode()).hexdigest()[:16]


def of_command(runs: Path, words: Sequence[str]) -> list[Listed] | None:
    """The runs of this very command, if it was given before to this very code; None where it has to be planned."""
    asked = hash_of(words)
    for path in _manifests(runs):
        try:
            with path.open() as stream:
                found = _ASKED.match(stream.read(200))
        except (OSError, UnicodeDecodeError):
            continue
        if found is not None and found[1] == asked:
            return _runs_of(path)
    return None


def of_name(runs: Path, name: str | None) -> tuple[str, list[Listed]]:
    """The runs of the sweep of a name, or of the last one; UserError where there is none."""
    paths = _manifests(runs)
    if not paths:
        raise UserError(f"no sweep was made in runs={runs} yet; name another store, or train something first")
    if name is None:
        return paths[0].stem, _runs_of(paths[0])
    by_name = {path.name.removesuffix(".json"): path for path in paths}
    if name not in by_name:
        raise UserError(f"status={name}: no such sweep in runs={runs}; {suggest(name, by_name)}")
    return name, _runs_of(by_name[name])


def _manifests(runs: Path) -> list[Path]:
    """Manifests of a store, the last one first."""
    folder = runs / "sweeps"
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        pass_over(folder, f"cannot be listed: {error.strerror}")
        return []
    return sorted((folder / name for name in names), key=lambda path: (-path.stat().st_mtime_ns, path.name))


def _runs_of(path: Path) -> list[Listed]:
    manifest = read_json(path)
    try:
        if "runs" in manifest:
            kinds = [tuple(steps) for steps in manifest.get("evaluations", ())]
            return [_listed_run(run, kinds) for run in manifest["runs"]]
        # A manifest of an older version knows cells alone: each step counts alike.
        steps: dict[str, set[int]] = {}
        for cell in manifest["cells"]:
            steps.setdefault(str(cell["run_id"]), set()).add(int(cell["step"]))
        return [Listed(run, run, tuple(sorted(found)), 1, 1.0) for run, found in steps.items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no manifest of a sweep ({error}); give its command again") from None


def _listed_run(values: dict[str, Any], kinds: Sequence[tuple[int, ...]]) -> Listed:
    """A run of a manifest; those of older versions hold its evaluations themselves."""
    steps = values["evaluations"]
    return Listed(**{**values, "evaluations": kinds[steps] if isinstance(steps, int) else tuple(steps)})
