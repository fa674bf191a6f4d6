"""How are runs read back from W&B? Every logged row, never the sampled history, cached locally; offline runs too.

``fetch`` asks the service through ``wandb.Api``: run.history() is sampled at 500 rows, which is wrong for minima, so
scan_history is used. ``offline`` reads the files of offline runs (wandb_file), which the Api does not see.

Both return one table: the logged keys, ``run`` (the id), ``run_name`` and every config value as ``config.<path>``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from structlin.errors import UserError, one_line
from structlin.laws.wandb_file import history_row, messages

_TIMEOUT_SECONDS = 30


def fetch(project: str, cache: Path) -> pd.DataFrame:
    """All rows of all runs of ``entity/name``. Finished runs are kept under ``cache`` and not asked for again.

    Raises UserError when the service does not answer or knows no such project.
    """
    if project.count("/") != 1:
        raise UserError(f"project={project}: write entity/name")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    rows: list[dict[str, Any]] = []
    try:
        for run in wandb.Api(timeout=_TIMEOUT_SECONDS).runs(project):
            kept = cache / project / f"{run.id}.jsonl"
            if not kept.is_file():
                _keep(_rows_of(run), kept, finished=run.state == "finished", into=rows)
            else:
                rows += [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    except (wandb.errors.Error, wandb.errors.CommError, ValueError, OSError) as error:
        raise UserError(f"project={project} cannot be read from W&B: {one_line(error)}") from error
    return _as_table(rows, f"project={project}")


def _rows_of(run: Any) -> Iterator[dict[str, Any]]:
    """Logged rows of one run, with its name and config."""
    about = {"run": run.id, "run_name": run.name, **_flat(dict(run.config), "config.")}
    for row in run.scan_history():
        yield {**{key: value for key, value in row.items() if not isinstance(value, dict | list)}, **about}


def _keep(found: Iterator[dict[str, Any]], path: Path, *, finished: bool, into: list[dict[str, Any]]) -> None:
    """Add rows to a list, and to the cache when the run will log no more."""
    rows = list(found)
    into += rows
    if not finished:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    beside.replace(path)


def offline(folder: Path) -> pd.DataFrame:
    """All rows of the offline runs under a folder (``wandb/offline-run-*/run-*.wandb``)."""
    files = sorted(folder.rglob("run-*.wandb")) if folder.is_dir() else []
    if not files:
        raise UserError(f"dir={folder} holds no offline W&B runs (run-*.wandb); name the folder: dir=...")
    rows: list[dict[str, Any]] = []
    for file in files:
        rows += _offline_rows(file)
    return _as_table(rows, f"dir={folder}")


def _offline_rows(path: Path) -> list[dict[str, Any]]:
    """History rows of one offline run with its id, name and config."""
    about: dict[str, Any] = {"run": path.stem.removeprefix("run-"), "run_name": ""}
    rows: list[dict[str, Any]] = []
    for record in messages(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            about.update(run=record.run.run_id, run_name=record.run.display_name)
            about.update(_config(record.run.config.update))
        elif kind == "config":
            about.update(_config(record.config.update))
        elif kind == "history":
            rows.append(history_row(record))
    return [{**{k: v for k, v in row.items() if not isinstance(v, dict | list)}, **about} for row in rows]


def _config(items: Any) -> dict[str, Any]:
    """Config updates of a record as flat columns."""
    return _flat({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}, "config.")


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Nested mappings as dotted names; W&B's own entries and lists are left out."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key == "_wandb":
            continue
        if isinstance(value, dict):
            out.update(_flat(value, f"{prefix}{key}."))
        elif not isinstance(value, list):
            out[f"{prefix}{key}"] = value
    return out


def _as_table(rows: list[dict[str, Any]], what: str) -> pd.DataFrame:
    """Rows as a table. Raises UserError when there are none."""
    if not rows:
        raise UserError(f"{what} holds no logged rows")
    return pd.DataFrame(rows)
