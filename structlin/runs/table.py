"""What do all runs say? One pandas table, a row per evaluation: the one door for readers, and the contract with them.

    python -m structlin.runs.table runs=runs out=runs.parquet        (or .csv)

A row holds the run's identity and whole config, the step, its cost by group, sizes, speed, loss and provenance.
Laws and figures read this table and nothing else, so they work as well on a file of it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import pandas as pd

from structlin.anatomy.ledger import ledger
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.science import SCHEMA, EvaluationConfig, Science
from structlin.errors import UserError, asks_help, door, key_values, suggest
from structlin.host.files import write_atomically
from structlin.runs.machine import BACKEND
from structlin.runs.speeds import Throughputs
from structlin.runs.store import RunFolder, Store
from structlin.structure import Theta, factorise
from structlin.tracker.history import flat

T = TypeVar("T")


def load(runs: Path) -> pd.DataFrame:
    """The table of a run store, sorted by run and step; empty (with its columns) where nothing was evaluated.

    A run folder that cannot be read is passed over with one line on stderr. UserError where the store is missing.
    """
    if not runs.is_dir():
        raise UserError(f"no run store at {runs}; train something first (python sweep.py ...), or name it: runs=...")
    return table_of(Store(runs).folders(), _measured, Throughputs(runs).of_machine)


def export(table: pd.DataFrame, path: Path) -> None:
    """Write the table as .csv or .parquet, atomically. UserError for another ending."""
    writers: dict[str, Callable[[IO[bytes]], object]] = {
        ".csv": lambda stream: table.to_csv(stream, index=False),
        ".parquet": lambda stream: table.to_parquet(stream),
    }
    if path.suffix not in writers:
        raise UserError(f"out={path}: cannot write '{path.suffix}' files; {suggest(path.suffix, writers)}")
    write_atomically(path, writers[path.suffix])


@dataclass(frozen=True)
class Measured:
    """A run as a store gives it, or a copy of one: all that its rows follow from."""

    run_id: str
    science: Science
    status: str
    origin: Mapping[str, Any]
    """Provenance of its newest attempt; empty where it is not known."""
    evaluations: Sequence[Mapping[str, Any]]
    """Step and val_loss of each, by step."""


def table_of(
    runs: Iterable[T], read: Callable[[T], Measured], speed: Callable[[str, Science], float | None]
) -> pd.DataFrame:
    """The table of runs of any origin; ``speed`` says tokens a second on a machine, None where it was not measured.

    A run that ``read`` refuses with a UserError is passed over with one line on stderr.
    """
    records = []
    for run in runs:
        try:
            records.append(_record(read(run), speed))
        except UserError as error:
            print(f"passed over: {error}", file=sys.stderr)
    records = [record for record in records if record.steps]
    if not records:
        return pd.DataFrame(columns=["run_id", "step", "val_loss"])
    return _rows(records).sort_values(["run_id", "step"], ignore_index=True)


def _measured(folder: RunFolder) -> Measured:
    evaluations = folder.published()
    if evaluations is None:
        evaluations = folder.journal.evaluations()
        torn = folder.journal.torn_lines()
        if torn:
            print(f"{folder.path}: {torn} torn line(s) of its journal passed over", file=sys.stderr)
    origin = (folder.provenance() or [{}])[-1]
    return Measured(folder.run_id, folder.science(), folder.status()["state"], origin, evaluations)


@dataclass(frozen=True)
class _Record:
    """A run as the table shows it; what its rows have in common is kept once."""

    run: dict[str, Any]
    config: dict[str, Any]
    recomputed_macs: int
    """Forward MACs per token that its steps spend again."""
    batch_tokens: int
    warmup_steps: int
    steps: list[int]
    losses: list[float]


def _record(run: Measured, speed: Callable[[str, Science], float | None]) -> _Record:
    science = run.science
    measured = speed(str(run.origin.get("machine")), science)
    origin = {name: run.origin.get(name) for name in BACKEND}
    fused = str(origin["backend"]).startswith(("cpp", "triton"))
    recompute = bool(run.origin.get("recompute"))
    return _Record(
        _run_columns(run)
        | _cost_columns(science, fused=fused, recompute=recompute)
        | {"tokens_per_second": float("nan") if measured is None else measured, **origin}
        | _corpus_columns(run.origin.get("corpus") or {}),
        {f"config.{name}": value for name, value in flat(to_mapping(science))},
        ledger(science).recomputed_macs_per_token if recompute else 0,
        science.optim.batch_tokens,
        science.schedule.warmup_steps,
        [row["step"] for row in run.evaluations],
        [row["val_loss"] for row in run.evaluations],
    )


def _corpus_columns(corpus: Mapping[str, Any]) -> dict[str, float]:
    """Tokens of the training split, and the losses of its unigrams and bigrams; NaN where provenance lacks them."""
    known = {name: corpus.get(name) for name in ("train_tokens", "unigram_loss", "bigram_loss")}
    return {name: float("nan") if value is None else float(value) for name, value in known.items()}


def _rows(records: Sequence[_Record]) -> pd.DataFrame:
    """A row per evaluation."""
    counts = [len(record.steps) for record in records]
    of_run = np.repeat(np.arange(len(records)), counts)
    runs = pd.DataFrame([record.run for record in records]).take(of_run).reset_index(drop=True)
    config = pd.DataFrame([record.config for record in records]).take(of_run).reset_index(drop=True)
    steps = np.concatenate([record.steps for record in records])
    tokens = steps * np.repeat([record.batch_tokens for record in records], counts)
    macs = runs["macs_per_token"].astype(float)
    rows = pd.DataFrame(
        {
            "step": steps,
            "tokens": tokens,
            "in_warmup": steps <= np.repeat([record.warmup_steps for record in records], counts),
            "val_loss": np.concatenate([np.asarray(record.losses, dtype=float) for record in records]),
            "training_flops": 6.0 * macs * tokens,
            "paper_flops": macs * tokens,
            "epochs": tokens / runs["train_tokens"].astype(float),
            "logged_flops": runs["logged_macs_per_token"].astype(float) * tokens,
            "recomputed_flops": 2.0 * np.repeat([record.recomputed_macs for record in records], counts) * tokens,
        }
    )
    return pd.concat([runs, rows, config], axis=1)


def _run_columns(run: Measured) -> dict[str, Any]:
    science = run.science
    model, optim, schedule = science.model, science.optim, science.schedule
    return {
        "run_id": run.run_id,
        "variant": science.variant,
        "structure": science.structure.name,
        "theta": science.structure.theta,
        "moe": science.moe.label,
        "task": science.task,
        "data": science.data.name,
        "tokenizer": science.data.tokenizer,
        "model": model.name,
        "optimizer": optim.name,
        "rate_rule": optim.rate_rule,
        "d_model": model.d_model,
        "num_layers": model.num_layers,
        "d_head": getattr(model, "head_size", float("nan")),
        "context": model.context,
        "seed": science.seed,
        "learning_rate": optim.lr,
        "batch_tokens": optim.batch_tokens,
        "dtype": model.dtype,
        "schedule": schedule.kind,
        "warmup_steps": schedule.warmup_steps,
        "horizon_steps": float("nan") if schedule.horizon_steps is None else float(schedule.horizon_steps),
        "status": run.status,
    }


def _cost_columns(science: Science, *, fused: bool, recompute: bool) -> dict[str, Any]:
    """Costs are those of the model and the batch: one answer for all seeds, rates and lengths."""
    alike = replace(
        science,
        seed=0,
        optim=OptimConfig(batch_tokens=science.optim.batch_tokens),
        schedule=ScheduleConfig(),
        evaluation=EvaluationConfig(),
    )
    return _costs_of(alike, fused, recompute)


@lru_cache(maxsize=16_384)
def _costs_of(science: Science, fused: bool, recompute: bool) -> dict[str, Any]:
    costs = ledger(science)
    width = science.model.d_model
    place = factorise(Theta.parse(science.structure.theta), width, width, science.structure.rounding).taxonomy
    macs = {f"macs_{group}": costs.macs[group] for group in ("attention", "linear", "head", "router")}
    params = {f"params_{group}": count for group, count in costs.params.items() if group != "attention"}
    assert sum(macs.values()) == costs.macs_per_token
    assert sum(params.values()) == costs.params_total
    return {
        "macs_per_token": costs.macs_per_token,
        "logged_macs_per_token": costs.logged_macs_per_token,
        **macs,
        "params_total": costs.params_total,
        "params_active": costs.params_active,
        **params,
        "weight_bytes": costs.weight_bytes,
        "activation_bytes": costs.kept_bytes(fused=fused, recompute=recompute),
        "nu": place.nu,
        "omega": place.omega,
        "psi": place.psi,
    }


def ids_of_now(table: pd.DataFrame) -> pd.Series[str]:
    """The id that each row's run would get today: its own, or, of an older schema, that of its upgraded config."""
    own = table["run_id"].astype(str)
    if "config.schema" not in table or (table["config.schema"] == SCHEMA).all():
        return own
    of_run = {str(row["run_id"]): _id_of_now(row) for row in table.drop_duplicates("run_id").to_dict("records")}
    return own.map(of_run)


def config_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The nested config of a row's ``config.`` columns, in which lists are kept as text."""
    config: dict[str, Any] = {}
    for column, value in row.items():
        prefix, *groups = str(column).split(".")
        if prefix != "config":
            continue
        *groups, key = groups
        inner = config
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[key] = _plain(value)
    return config


def _id_of_now(row: Mapping[Any, Any]) -> str:
    return str(row["run_id"]) if row["config.schema"] == SCHEMA else run_id(science_from(config_of(row)))


def _plain(value: Any) -> Any:
    """The JSON value that a cell stands for."""
    if isinstance(value, str):
        return ast.literal_eval(value) if value.startswith("[") else value
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is None or value != value else value


def main(arguments: list[str]) -> int:
    """Export a store's table."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    values = key_values(arguments, {"runs": "runs", "out": "runs.parquet"})
    table = load(Path(values["runs"]))
    export(table, Path(values["out"]))
    print(f"{len(table)} evaluations of {table['run_id'].nunique()} runs -> {values['out']}")
    return 0


if __name__ == "__main__":
    door(main)
