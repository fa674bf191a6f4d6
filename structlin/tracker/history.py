"""How are runs read back from W&B? Every logged row, never the sampled history, cached locally; offline runs too.

``online`` asks the service through ``wandb.Api``: run.history() is sampled at 500 rows, which is wrong for minima, so
scan_history is used. ``offline`` reads the files of offline runs (wandb_file), which the Api does not see.

Both give runs as they were logged. ``as_table`` makes one table of anybody's: the logged keys, ``run`` (the id),
``run_name`` and every config value as ``config.<path>``. This project's own runs become its own table by
structlin.runs.tracking.logged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from structlin.errors import UserError, one_line
from structlin.host.files import write_atomically
from structlin.tracker.wire import history_row, messages

Row = dict[str, Any]
_TIMEOUT_SECONDS = 30


@dataclass
class Logged:
    """A run as W&B holds it."""

    run: str
    """The id."""
    name: str = ""
    state: str = ""
    """running, finished, crashed, failed or killed; empty where a file does not say."""
    config: dict[str, Any] = field(default_factory=dict)
    """As logged, nested; without W&B's own entries."""
    rows: list[Row] = field(default_factory=list)
    """History in the order of ``_step``."""


def online(project: str, cache: Path) -> list[Logged]:
    """All runs of ``entity/name``. Finished runs are kept under ``cache`` and not asked for again.

    Raises UserError when the service does not answer, knows no such project, or holds no rows of it.
    """
    if project.count("/") != 1:
        raise UserError(f"project={project}: write entity/name")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    found = []
    try:
        for run in wandb.Api(timeout=_TIMEOUT_SECONDS).runs(project):
            kept = cache / project / f"{run.id}.json"
            found.append(Logged(**json.loads(kept.read_text("utf-8"))) if kept.is_file() else _asked(run, kept))
    except (wandb.errors.Error, wandb.errors.CommError, ValueError, OSError) as error:
        raise UserError(f"project={project} cannot be read from W&B: {one_line(error)}") from error
    return _with_rows(found, f"project={project}")


def _asked(run: Any, path: Path) -> Logged:
    """One run with all of its rows; put into the cache when it will log no more."""
    config = {key: value for key, value in dict(run.config).items() if key != "_wandb"}
    found = Logged(run.id, run.name, run.state, config, list(run.scan_history()))
    if run.state == "finished":
        write_atomically(path, json.dumps(asdict(found)).encode())
    return found


def offline(folder: Path) -> list[Logged]:
    """The offline runs under a folder (``wandb/offline-run-*/run-*.wandb``), one a run id however many files it has.

    Raises UserError where there are none, or no rows in them.
    """
    files = sorted(folder.rglob("run-*.wandb")) if folder.is_dir() else []
    if not files:
        raise UserError(f"dir={folder} holds no offline W&B runs (run-*.wandb); name the folder: dir=...")
    found: dict[str, Logged] = {}
    for file in files:
        part = _read(file)
        whole = found.setdefault(part.run, part)
        if whole is not part:
            whole.config.update(part.config)
            whole.state = part.state
            # A row that two files hold is one row, as at W&B.
            rows = {row.get("_step", -1 - place): row for place, row in enumerate([*whole.rows, *part.rows])}
            whole.rows = sorted(rows.values(), key=lambda row: row.get("_step", 0))
    return _with_rows(list(found.values()), f"dir={folder}")


def _read(path: Path) -> Logged:
    """What one file holds of a run, up to a torn tail."""
    found = Logged(path.stem.removeprefix("run-"))
    for record in messages(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run, found.name = record.run.run_id, record.run.display_name
            _configure(found.config, record.run.config)
        elif kind == "config":
            _configure(found.config, record.config)
        elif kind == "history":
            found.rows.append(history_row(record))
        elif kind == "exit":
            found.state = "failed" if record.exit.exit_code else "finished"
    return found


def _configure(config: dict[str, Any], change: Any) -> None:
    """Apply a record of changes to a config."""
    for item in change.update:
        *path, name = item.nested_key or [item.key]
        if "_wandb" in (*path, name):
            continue
        group = config
        for step in path:
            group = group.setdefault(step, {})
        group[name] = json.loads(item.value_json)


def _with_rows(runs: list[Logged], what: str) -> list[Logged]:
    if not any(run.rows for run in runs):
        raise UserError(f"{what} holds no logged rows")
    return runs


def as_table(runs: Sequence[Logged]) -> pd.DataFrame:
    """A row per logged row, with the run's id, name and config."""
    rows = []
    for run in runs:
        about = {"run": run.run, "run_name": run.name, **{f"config.{key}": value for key, value in flat(run.config)}}
        rows += [{**{k: v for k, v in row.items() if not isinstance(v, dict | list)}, **about} for row in run.rows]
    return pd.DataFrame(rows)


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names; a list as its text."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value) if isinstance(value, list) else value
