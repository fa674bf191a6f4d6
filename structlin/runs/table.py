"""What do all runs say? One pandas table, a row per evaluation: the one door for readers, and the contract with them.

    python -m structlin.runs.table runs=runs out=runs.parquet        (or .csv)

A row holds the run's identity and whole config, the step, its cost by group, sizes, speed, loss and provenance.
Laws and figures read this table and nothing else, so they work as well on a file of it.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from structlin.anatomy.ledger import alike, ledger
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.config.science import SCHEMA, Science
from structlin.errors import UserError, asks_help, door, key_values, suggest
from structlin.host.code import is_mixed
from structlin.host.files import write_atomically
from structlin.host.passed_over import pass_over, summary
from structlin.runs import cache
from structlin.runs.machine import BACKEND
from structlin.runs.speeds import Throughputs, shape_key
from structlin.runs.store import RunFolder, Store
from structlin.structure import Theta, factorise
from structlin.tracker.history import flat

T = TypeVar("T")
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def load(runs: Path) -> pd.DataFrame:
    """The table of a run store, sorted by run and step; empty (with its columns) where nothing was evaluated.

    A run folder that cannot be read is passed over with one line on stderr. What has not changed since the last reading
    comes from the store's cache (runs/cache.py). UserError where the store is missing.
    """
    if not runs.is_dir():
        raise UserError(f"no run store at {runs}; train something first (python sweep.py ...), or name it: runs=...")
    throughputs = Throughputs(runs)
    rows = _Rows()
    for record in _records(runs):
        if record.torn:
            pass_over(runs / record.run["run_id"], f"{record.torn} torn or changed line(s) of its journal")
        rows.add(record, throughputs.of_shape(record.machine, record.shape))
    if said := summary():
        print(said, file=sys.stderr)
    return rows.table()


def _records(runs: Path) -> Iterator[_Record]:
    """What the table shows of every run, from the cache where no file has changed; what is new is kept there."""
    known = cache.read(runs)
    keeper = cache.Keeper(known)
    for folder in Store(runs).folders():
        try:
            entry, record = _read(folder.at_once(), known.get(folder.run_id))
        except UserError as error:
            pass_over(folder.path, error)
            continue
        if entry is not None:
            keeper.add(folder.run_id, entry)
        yield record
    keeper.write(runs)


def _read(folder: RunFolder, known: cache.Entry | None) -> tuple[cache.Entry | None, _Record]:
    """A run, from its folder or as it was read before, and what may be kept of it."""
    try:
        key = cache.key_of(str(folder.place))
    except OSError as error:
        raise UserError(f"{folder.path} cannot be read: {error.strerror}") from None
    if known is not None and known.key == key:
        return known, _recalled(known)
    record = _record(_measured(folder))
    if key is None or not folder.is_settled:
        return None, record
    flat_record = record.run | record.config
    names = [len(record.run), *_OWN, *flat_record]
    values = [*(getattr(record, name) for name in _OWN), *flat_record.values()]
    return cache.Entry(key, json.dumps(names), json.dumps(values), record.steps, record.losses), record


_OWN = ("recomputed_macs", "batch_tokens", "warmup_steps", "machine", "shape", "torn")
"""What a record has beside its columns and its evaluations."""


@lru_cache(maxsize=1024)
def _named(text: str) -> tuple[int, tuple[str, ...]]:
    """How many of the columns are the run's own, and their names."""
    number, *names = json.loads(text)
    return number, tuple(names)


def _recalled(entry: cache.Entry) -> _Record:
    number, names = _named(entry.names)
    values = json.loads(entry.values)
    first = len(_OWN)
    columns = list(zip(names[first:], values[first:], strict=True))
    own = dict(zip(_OWN, values, strict=False))
    return _Record(dict(columns[:number]), dict(columns[number:]), **own, steps=entry.steps, losses=entry.losses)


def load_some(runs: Path, identities: Iterable[str]) -> pd.DataFrame:
    """The same of some runs alone, by their ids; those that are not there are passed over."""
    folders = [RunFolder(runs / identity) for identity in sorted(set(identities))]
    return table_of([one for one in folders if one.path.exists()], _measured, Throughputs(runs).of_machine)


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
    torn: int = 0
    """Lines of its journal that could not be read."""
    config: dict[str, Any] | None = None
    """The science as plain values, where they are known already."""


def table_of(
    runs: Iterable[T], read: Callable[[T], Measured], speed: Callable[[str, Science], float | None]
) -> pd.DataFrame:
    """The table of runs of any origin; ``speed`` says tokens a second on a machine, None where it was not measured.

    A run that ``read`` refuses with a UserError is passed over with one line on stderr.
    """
    rows = _Rows()
    for run in runs:
        try:
            measured = read(run)
            rows.add(_record(measured), speed(str(measured.origin.get("machine")), measured.science))
        except UserError as error:
            print(f"passed over: {error}", file=sys.stderr)
    return rows.table()


def _measured(folder: RunFolder) -> Measured:
    evaluations, torn = folder.published(), 0
    if evaluations is None:
        journal = folder.journal
        evaluations, torn = journal.evaluations(), journal.torn_lines()
    origins = folder.provenance()
    origin = {**(origins or [{}])[-1], "mixed_code": is_mixed(origins)}
    science, config = folder.science_and_config()
    return Measured(folder.run_id, science, folder.status()["state"], origin, evaluations, torn, config)


@dataclass(frozen=True)
class _Record:
    """A run as the table shows it; what its rows have in common is kept once."""

    run: dict[str, Any]
    config: dict[str, Any]
    recomputed_macs: int
    """Forward MACs per token that its steps spend again."""
    batch_tokens: int
    warmup_steps: int
    machine: str
    shape: str
    """With the machine: what its speed depends on."""
    torn: int
    steps: Ints
    losses: Floats


def _record(run: Measured) -> _Record:
    science = run.science
    origin = {name: run.origin.get(name) for name in BACKEND}
    fused = str(origin["backend"]).startswith(("cpp", "triton"))
    recompute = bool(run.origin.get("recompute"))
    evaluations = sorted(run.evaluations, key=lambda row: int(row["step"]))
    return _Record(
        _run_columns(run)
        | _cost_columns(science, fused=fused, recompute=recompute)
        | origin
        | _corpus_columns(run.origin.get("corpus") or {}),
        {f"config.{name}": value for name, value in flat(to_mapping(science) if run.config is None else run.config)},
        ledger(science).recomputed_macs_per_token if recompute else 0,
        science.optim.batch_tokens,
        science.schedule.warmup_steps,
        str(run.origin.get("machine")),
        shape_key(science),
        run.torn,
        np.asarray([row["step"] for row in evaluations], dtype=np.int64),
        np.asarray([row["val_loss"] for row in evaluations], dtype=float),
    )


def _corpus_columns(corpus: Mapping[str, Any]) -> dict[str, float]:
    """Tokens of the training split, and the losses of its unigrams and bigrams; NaN where provenance lacks them."""
    known = {name: corpus.get(name) for name in ("train_tokens", "unigram_loss", "bigram_loss")}
    return {name: float("nan") if value is None else float(value) for name, value in known.items()}


class _Rows:
    """Gathers runs column by column and repeats what a run's rows have in common only at the end.

    Hundreds of thousands of rows have a few values a column: texts become categories, which take a byte or two a row,
    and whole numbers of the config the smallest type that holds them.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, ...], list[tuple[int, tuple[Any, ...]]]] = {}
        """By the names of their columns: the number of each run and its values. A store has few kinds of runs."""
        self._own: dict[str, list[Any]] = {name: [] for name in ("batch_tokens", "warmup_steps", "recomputed_macs")}
        self._steps: list[Ints] = []
        self._losses: list[Floats] = []
        self._shared: dict[str, str] = {}
        """One object for all equal texts."""

    def add(self, record: _Record, tokens_per_second: float | None) -> None:
        """Add a run; one that was never evaluated has no rows."""
        if not len(record.steps):
            return
        speed = float("nan") if tokens_per_second is None else tokens_per_second
        names = (*record.run, "tokens_per_second", *record.config)
        shared = self._shared
        values = tuple(
            shared.setdefault(value, value) if type(value) is str else value
            for value in (*record.run.values(), speed, *record.config.values())
        )
        self._kinds.setdefault(names, []).append((len(self._steps), values))
        for name, column in self._own.items():
            column.append(getattr(record, name))
        self._steps.append(record.steps)
        self._losses.append(record.losses)

    def table(self) -> pd.DataFrame:
        """A row per evaluation, sorted by run and step."""
        if not self._steps:
            return pd.DataFrame(columns=["run_id", "step", "val_loss"])
        columns = self._gathered()
        ids = columns["run_id"].tolist()
        order = sorted(range(len(ids)), key=ids.__getitem__)
        of_run = np.repeat(np.asarray(order), [len(self._steps[run]) for run in order])
        parts = [_texts(columns, of_run), *_numbers(columns, of_run), self._of_evaluations(columns, order, of_run)]
        return pd.concat([part for part in parts if part.shape[1]], axis=1)

    def _gathered(self) -> dict[str, pd.Series[Any]]:
        """Every column with a value a run, NaN where a run has none."""
        columns: dict[str, list[Any]] = {}
        for names, runs in self._kinds.items():
            numbers = [number for number, _ in runs]
            by_column = map(list, zip(*(values for _, values in runs), strict=True))
            if len(self._kinds) == 1:
                columns = dict(zip(names, by_column, strict=True))
                break
            for name, values in zip(names, by_column, strict=True):
                column = columns.setdefault(name, [float("nan")] * len(self._steps))
                for number, value in zip(numbers, values, strict=True):
                    column[number] = value
        self._kinds.clear()
        return {name: _series(name, values) for name, values in columns.items()}

    def _of_evaluations(
        self, columns: Mapping[str, pd.Series[Any]], order: Sequence[int], of_run: Ints
    ) -> pd.DataFrame:
        """What differs from row to row."""
        own = {name: np.asarray(values)[of_run] for name, values in self._own.items()}
        costs = {
            name: columns[name].to_numpy(dtype=float)[of_run]
            for name in ("macs_per_token", "logged_macs_per_token", "train_tokens")
        }
        steps = np.concatenate([self._steps[run] for run in order])
        tokens = steps * own["batch_tokens"]
        return pd.DataFrame(
            {
                "step": steps,
                "tokens": tokens,
                "in_warmup": steps <= own["warmup_steps"],
                "val_loss": np.concatenate([self._losses[run] for run in order]),
                "training_flops": 6.0 * costs["macs_per_token"] * tokens,
                "paper_flops": costs["macs_per_token"] * tokens,
                "epochs": tokens / costs["train_tokens"],
                "logged_flops": costs["logged_macs_per_token"] * tokens,
                "recomputed_flops": 2.0 * own["recomputed_macs"] * tokens,
            }
        )


def _series(name: str, values: list[Any]) -> pd.Series[Any]:
    found = pd.Series(values)
    if pd.api.types.is_string_dtype(found.dtype):
        return found.astype("category")
    if found.dtype == "int64" and name.startswith("config."):
        return pd.to_numeric(found, downcast="integer")
    return found


def _is_number(series: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(series.dtype) and series.dtype != bool


def _texts(columns: Mapping[str, pd.Series[Any]], of_run: Ints) -> pd.DataFrame:
    """Everything that is no number, a row per evaluation."""
    found = {name: series.take(of_run).array for name, series in columns.items() if not _is_number(series)}
    return pd.DataFrame(found, copy=False)


def _numbers(columns: Mapping[str, pd.Series[Any]], of_run: Ints) -> Iterator[pd.DataFrame]:
    """The numbers, a row per evaluation: one block a type."""
    kinds: dict[Any, dict[str, Any]] = {}
    for name, series in columns.items():
        if _is_number(series):
            kinds.setdefault(series.dtype, {})[name] = series.to_numpy()
    for dtype, values in kinds.items():
        block = np.empty((len(values), len(of_run)), dtype=dtype)
        for row, column in zip(block, values.values(), strict=True):
            np.take(column, of_run, out=row)
        yield pd.DataFrame(block.T, columns=list(values), copy=False)


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
        "mixed_code": bool(run.origin.get("mixed_code")),
    }


def _cost_columns(science: Science, *, fused: bool, recompute: bool) -> dict[str, Any]:
    """Costs are those of the model and the batch: one answer for all seeds, rates and lengths."""
    return _costs_of(alike(science), fused, recompute)


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
