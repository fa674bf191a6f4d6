"""What do all runs say? One pandas table, a row per evaluation: the one door for readers, and the contract with them.

    python -m structlin.runs.table runs=runs out=runs.parquet        (or .csv)

A row holds the run's identity and whole config, the step, its cost by group, sizes, speed, loss and provenance. Of a
run whose ranks are nested there is a row for every share of them (rank_share), with its variant, MACs and parameters.
Laws and figures read this table and nothing else, so they work as well on a file of it.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from structlin.anatomy.compute import flops_until, inherited_flops, is_even
from structlin.anatomy.guide import guide_steps
from structlin.anatomy.ledger import alike, ledger, ledger_at
from structlin.config.identity import of_one_model, run_id, science_from, to_mapping
from structlin.config.nested import NONE, at_share, menu_of
from structlin.config.science import SCHEMA, Science, numerics_of
from structlin.errors import UserError, asks_help, door, key_values, suggest
from structlin.host.code import is_mixed
from structlin.host.files import write_atomically
from structlin.host.passed_over import pass_over, summary
from structlin.runs import cache, measures
from structlin.runs.machine import BACKEND
from structlin.runs.speeds import Decodings, Throughputs, shape_key
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
    throughputs, decodings = Throughputs(runs), Decodings(runs)
    rows = _Rows(
        lambda shared: throughputs.of_shape(shared.machine, shared.shape),
        lambda shared: decodings.of_shape(shared.machine, shared.shape),
    )
    for record in _records(runs):
        if record.shared.torn:
            pass_over(runs / record.run_id, f"{record.shared.torn} torn or changed line(s) of its journal")
        rows.add(record)
    if said := summary():
        print(said, file=sys.stderr)
    return rows.table()


def _records(runs: Path) -> Iterator[_Record]:
    """What the table shows of every run, from the cache where no file has changed; what is new is kept there."""
    known = cache.read(runs)
    keeper = cache.Keeper(known)
    for folder in Store(runs).folders():
        try:
            found = list(_read(folder.at_once(), known))
        except UserError as error:
            pass_over(folder.path, error)
            continue
        for name, entry, record in found:
            if entry is not None:
                keeper.add(name, entry)
            yield record
    keeper.write(runs)


def _read(folder: RunFolder, known: Mapping[str, cache.Entry]) -> Iterator[tuple[str, cache.Entry | None, _Record]]:
    """A run, from its folder or as it was read before: at each share of its ranks its name in the cache, what may be
    kept there, and what the table shows. The whole rank comes last."""
    try:
        key = cache.key_of(str(folder.path))
    except OSError as error:
        raise UserError(f"{folder.path} cannot be read: {error.strerror}") from None
    whole = known.get(folder.run_id)
    if whole is not None and whole.key == key:
        shared = _shared(whole.names, whole.values)
        for share in menu_of(str(shared.columns.get("config.nested", NONE))):
            name = at_share(folder.run_id, share)
            if (kept := known.get(name)) is not None and kept.key == key:
                shared = _shared(kept.names, kept.values)
                yield name, kept, _Record(folder.run_id, kept.seed, shared, kept.steps, kept.losses, kept.more)
        return
    may_keep = key is not None and folder.is_settled
    for share, (record, names, values) in _by_share(_measured(folder)):
        entry = None
        if may_keep and key is not None:
            entry = cache.Entry(key, names, values, record.seed, record.steps, record.losses, record.more)
        yield at_share(folder.run_id, share), entry, record


def load_some(runs: Path, identities: Iterable[str]) -> pd.DataFrame:
    """The same of some runs alone, by their ids; those that are not there are passed over."""
    folders = [RunFolder(runs / identity) for identity in sorted(set(identities))]
    return table_of(
        [one for one in folders if one.path.exists()],
        _measured,
        Throughputs(runs).of_machine,
        Decodings(runs).of_machine,
    )


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
    """Step and val_loss of each, by step; and rank_share, where the run nests its ranks."""
    torn: int = 0
    """Lines of its journal that could not be read."""
    config: dict[str, Any] | None = None
    """The science as plain values, where they are known already."""


def table_of(
    runs: Iterable[T],
    read: Callable[[T], Measured],
    speed: Callable[[str, Science], float | None],
    decoding: Callable[[str, Science], Mapping[str, float]],
) -> pd.DataFrame:
    """The table of runs of any origin; ``speed`` says tokens a second on a machine, None where it was not measured.

    ``decoding``: milliseconds a token by column, NaN where not measured.
    A run that ``read`` refuses with a UserError is passed over with one line on stderr.
    """
    sciences: dict[str, Science] = {}
    rows = _Rows(
        lambda shared: speed(shared.machine, sciences[shared.shape]),
        lambda shared: decoding(shared.machine, sciences[shared.shape]),
    )
    for run in runs:
        try:
            measured = read(run)
            for _, (record, _, _) in _by_share(measured):
                sciences[record.shared.shape] = measured.science
                rows.add(record)
        except UserError as error:
            print(f"passed over: {error}", file=sys.stderr)
    return rows.table()


def _measured(folder: RunFolder) -> Measured:
    evaluations, torn = folder.published_of_ranks(), 0
    if evaluations is None:
        journal = folder.journal
        evaluations, torn = journal.rank_evaluations(), journal.torn_lines()
    origins = folder.provenance()
    origin = {**(origins or [{}])[-1], "mixed_code": is_mixed(origins)}
    science, config = folder.science_and_config()
    return Measured(folder.run_id, science, folder.status()["state"], origin, evaluations, torn, config)


@dataclass(frozen=True)
class _Shared:
    """What runs have in common that differ in their id, seed and evaluations alone."""

    columns: dict[str, Any]
    """The run's own, then its config; None for what each run has of its own (``_OF_RUN``)."""
    num_own: int
    """How many of the columns are the run's own."""
    recomputed_macs: int
    """Forward MACs per token that its steps spend again."""
    batch_tokens: int
    warmup_steps: int
    guide_steps: int
    """Steps in which a dense matrix guides the factors."""
    is_even: bool
    """Whether every update costs alike."""
    inherited_flops: int
    """Training FLOPs of the run that it starts from."""
    machine: str
    shape: str
    """With the machine: what its speed depends on."""
    torn: int


_OF_RUN = ("run_id", "seed", "config.seed")


@dataclass(frozen=True, slots=True)
class _Record:
    """A run as the table shows it."""

    run_id: str
    seed: int
    shared: _Shared
    steps: Ints
    losses: Floats
    more: str
    """JSON: what its evaluations say besides, a list a name; {} for most."""


@lru_cache(maxsize=65_536)
def _shared(names: str, values: str) -> _Shared:
    """The same object for equal texts: a store of thousands of runs has few."""
    num_own, *columns = json.loads(names)
    *others, found = json.loads(values)
    return _Shared(dict(zip(columns, found, strict=True)), num_own, *others)


def _by_share(run: Measured) -> Iterator[tuple[Fraction, tuple[_Record, str, str]]]:
    """A run at each share of its ranks that it is trained at, as ``_record`` gives it; of most runs the whole alone."""
    menu = menu_of(run.science.nested)
    for share in menu:
        rows = [row for row in run.evaluations if row.get("rank_share", 1) == float(share)] if menu[1:] else None
        if rows or share == 1:
            yield share, _record(run if rows is None else replace(run, evaluations=rows), share)


def _record(run: Measured, share: Fraction) -> tuple[_Record, str, str]:
    """A run at a share of its ranks, and what it shares with others as two texts: names and values."""
    science = run.science
    origin = {name: run.origin.get(name) for name in BACKEND}
    fused = str(origin["backend"]).startswith(("cpp", "triton"))
    recompute = bool(run.origin.get("recompute"))
    evaluations = sorted(run.evaluations, key=lambda row: int(row["step"]))
    own = (
        _run_columns(run, share)
        | _cost_columns(science, share, fused=fused, recompute=recompute)
        | origin
        | _corpus_columns(run.origin.get("corpus") or {})
    )
    config = flat(_with_parent_as_text(to_mapping(science) if run.config is None else run.config))
    columns = own | {f"config.{name}": value for name, value in config} | dict.fromkeys(_OF_RUN)
    recomputed = ledger(science).recomputed_macs_per_token if recompute else 0
    others: list[Any] = [recomputed, science.optim.batch_tokens, science.schedule.warmup_steps]
    others += [guide_steps(science), is_even(science), inherited_flops(science)]
    others += [str(run.origin.get("machine")), shape_key(science), run.torn]
    names = json.dumps([len(own), *columns])
    values = json.dumps([*others, list(columns.values())])
    steps = np.asarray([row["step"] for row in evaluations], dtype=np.int64)
    losses = np.asarray([row["val_loss"] for row in evaluations], dtype=float)
    more = _more([measures.of_row(row) for row in evaluations])
    return _Record(run.run_id, science.seed, _shared(names, values), steps, losses, more), names, values


def _more(rows: Sequence[Mapping[str, float]]) -> str:
    """Errors and losses besides the first, a list a name, null where an evaluation lacks one."""
    names = [name for name in measures.MORE if any(name in row for row in rows)]
    return json.dumps({name: [row.get(name) for row in rows] for name in names})


def _with_parent_as_text(config: dict[str, Any]) -> dict[str, Any]:
    """A config whose parent, which has as many fields again, is one column of JSON."""
    start = config.get("start")
    if not isinstance(start, Mapping) or not start.get("parent"):
        return config
    return {**config, "start": {**start, "parent": json.dumps(start["parent"], sort_keys=True)}}


def _corpus_columns(corpus: Mapping[str, Any]) -> dict[str, float]:
    """Tokens of the training split, and the losses of its unigrams and bigrams; NaN where provenance lacks them."""
    known = {name: corpus.get(name) for name in ("train_tokens", "unigram_loss", "bigram_loss")}
    return {name: float("nan") if value is None else float(value) for name, value in known.items()}


class _Rows:
    """Gathers runs and repeats what they have in common only at the end.

    Hundreds of thousands of rows have a few values a column: each column is made of the values of groups of runs. Texts
    become categories, which take a byte or two a row, and whole numbers of the config the smallest type that holds
    them.
    """

    def __init__(
        self, speed: Callable[[_Shared], float | None], decoding: Callable[[_Shared], Mapping[str, float]]
    ) -> None:
        """``speed``: tokens a second of what runs share, None where it was not measured; ``decoding``: its columns."""
        self._speed, self._decoding = speed, decoding
        self._groups: dict[int, int] = {}
        """Number of each group by the identity of what it shares."""
        self._shared: list[_Shared] = []
        self._group_of: list[int] = []
        self._ids: list[str] = []
        self._seeds: list[int] = []
        self._steps: list[Ints] = []
        self._losses: list[Floats] = []
        self._more: list[dict[str, list[float | None]]] = []

    def add(self, record: _Record) -> None:
        """Add a run; one that was never evaluated has no rows."""
        if not len(record.steps):
            return
        group = self._groups.setdefault(id(record.shared), len(self._shared))
        if group == len(self._shared):
            self._shared.append(record.shared)
        self._group_of.append(group)
        self._ids.append(record.run_id)
        self._seeds.append(record.seed)
        self._steps.append(record.steps)
        self._losses.append(record.losses)
        self._more.append(json.loads(record.more) if record.more != "{}" else {})

    def table(self) -> pd.DataFrame:
        """A row per evaluation, sorted by run and step."""
        if not self._steps:
            return pd.DataFrame(columns=["run_id", "step", "val_loss"])
        order = sorted(range(len(self._ids)), key=self._ids.__getitem__)
        of_run = np.repeat(np.asarray(order), [len(self._steps[run]) for run in order])
        of_group = np.asarray(self._group_of)[of_run]
        own: dict[str, list[Any]] = {"run_id": self._ids, "seed": self._seeds, "config.seed": self._seeds}
        columns = {
            name: _Column(_series(name, own[name]), of_run) if name in own else _Column(_series(name, values), of_group)
            for name, values in self._gathered().items()
        }
        parts = [_texts(columns), *_numbers(columns, len(of_run)), self._of_evaluations(columns, order, of_group)]
        return pd.concat([part for part in parts if part.shape[1]], axis=1)

    def _gathered(self) -> dict[str, list[Any]]:
        """Every column with a value a group, NaN where a group has none."""
        columns: dict[str, list[Any]] = {}
        for number, shared in enumerate(self._shared):
            items = list(shared.columns.items())
            speed = self._speed(shared)
            decoding = self._decoding(shared)
            if shared.columns["rank_share"] != 1:
                # Measured of the whole rank.
                decoding = dict.fromkeys(decoding, float("nan"))
            speeds = {"tokens_per_second": float("nan") if speed is None else speed, **decoding}
            items[shared.num_own : shared.num_own] = speeds.items()
            for name, value in items:
                if name not in columns:
                    columns[name] = [float("nan")] * len(self._shared)
                columns[name][number] = value
        return columns

    def _of_evaluations(self, columns: Mapping[str, _Column], order: Sequence[int], of_group: Ints) -> pd.DataFrame:
        """What differs from row to row."""
        own = {
            name: np.asarray([getattr(shared, name) for shared in self._shared])[of_group]
            for name in ("batch_tokens", "warmup_steps", "guide_steps", "recomputed_macs", "inherited_flops")
        }
        costs = {
            name: columns[name].values.to_numpy(dtype=float)[of_group]
            for name in ("macs_per_token", "logged_macs_per_token", "train_tokens")
        }
        steps = np.concatenate([self._steps[run] for run in order])
        tokens = steps * own["batch_tokens"]
        beyond = np.concatenate([self._beyond(run) for run in order])
        return pd.DataFrame(
            {
                "step": steps,
                "tokens": tokens,
                "in_warmup": steps <= own["warmup_steps"],
                "val_loss": np.concatenate([self._losses[run] for run in order]),
                **self._besides(order),
                "in_guide": steps < own["guide_steps"],
                "training_flops": 6.0 * costs["macs_per_token"] * tokens + beyond,
                "inherited_flops": own["inherited_flops"].astype(float),
                "paper_flops": costs["macs_per_token"] * tokens + beyond / 6.0,
                "epochs": tokens / costs["train_tokens"],
                "logged_flops": costs["logged_macs_per_token"] * tokens + beyond / 6.0,
                "recomputed_flops": 2.0 * own["recomputed_macs"] * tokens,
            }
        )

    def _besides(self, order: Sequence[int]) -> dict[str, Floats]:
        """Columns of errors and further losses, NaN where a run has none; none where no run has any."""
        names = [name for name in measures.MORE if any(name in more for more in self._more)]
        return {
            name: np.concatenate(
                [np.array(self._more[run].get(name) or [None] * len(self._steps[run]), dtype=float) for run in order]
            )
            for name in names
        }

    def _beyond(self, run: int) -> Floats:
        """Training FLOPs of a run's rows beyond 6 N D; most runs have none."""
        shared, steps = self._shared[self._group_of[run]], self._steps[run]
        if shared.is_even:
            return np.zeros(len(steps))
        config = config_of(shared.columns) | {"seed": self._seeds[run]}
        science = science_from(config)
        a_step = 6 * int(shared.columns["macs_per_token"]) * shared.batch_tokens
        return np.array([flops_until(science, int(step)) - a_step * int(step) for step in steps], float)


@dataclass(frozen=True)
class _Column:
    """Values of runs or of groups of runs, and which of them each row has."""

    values: pd.Series[Any]
    of_row: Ints

    @property
    def is_number(self) -> bool:
        """Whether it is a number, and no yes or no."""
        return pd.api.types.is_numeric_dtype(self.values.dtype) and self.values.dtype != bool


def _series(name: str, values: list[Any]) -> pd.Series[Any]:
    found = pd.Series(values)
    if pd.api.types.is_string_dtype(found.dtype):
        return found.astype("category")
    if found.dtype == "int64" and name.startswith("config."):
        return pd.to_numeric(found, downcast="integer")
    return found


def _texts(columns: Mapping[str, _Column]) -> pd.DataFrame:
    """Everything that is no number, a row per evaluation."""
    found = {name: one.values.take(one.of_row).array for name, one in columns.items() if not one.is_number}
    return pd.DataFrame(found, copy=False)


def _numbers(columns: Mapping[str, _Column], num_rows: int) -> Iterator[pd.DataFrame]:
    """The numbers, a row per evaluation: one block a type."""
    kinds: dict[Any, dict[str, _Column]] = {}
    for name, one in columns.items():
        if one.is_number:
            kinds.setdefault(one.values.dtype, {})[name] = one
    for dtype, found in kinds.items():
        block = np.empty((len(found), num_rows), dtype=dtype)
        for row, one in zip(block, found.values(), strict=True):
            # Under mode="raise" numpy fills a buffer first.
            np.take(one.values.to_numpy(), one.of_row, out=row, mode="clip")
        yield pd.DataFrame(block.T, columns=list(found), copy=False)


def _run_columns(run: Measured, share: Fraction) -> dict[str, Any]:
    science = run.science
    model, optim, schedule = science.model, science.optim, science.schedule
    return {
        "run_id": run.run_id,
        "variant": at_share(science.variant, share),
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
        "rank_share": float(share),
    }


def _cost_columns(science: Science, share: Fraction, *, fused: bool, recompute: bool) -> dict[str, Any]:
    """Costs are those of the model and the batch: one answer for all seeds, rates and lengths."""
    return _costs_of(alike(science), share, fused, recompute)


@lru_cache(maxsize=16_384)
def _costs_of(science: Science, share: Fraction, fused: bool, recompute: bool) -> dict[str, Any]:
    """MACs and parameters at a share of the ranks; bytes of training, which takes them all."""
    whole, costs = ledger(science), ledger_at(science, share)
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
        "xi": costs.xi,
        "weight_bytes": whole.weight_bytes,
        "activation_bytes": whole.kept_bytes(fused=fused, recompute=recompute),
        "nu": place.nu,
        "omega": place.omega,
        "psi": place.psi,
    }


def ids_of_now(table: pd.DataFrame) -> pd.Series[str]:
    """The id that each row's run would get today: its own, or, of an older schema or older numerics, that of its config
    now. Such runs are drawn among those of today, and never continued."""
    own = table["run_id"].astype(str)
    if "config.schema" not in table:
        return own
    of_run = {str(row["run_id"]): _id_of_now(row) for row in table.drop_duplicates("run_id").to_dict("records")}
    return own.map(of_run)


WHOLE = frozenset({"horizon_steps", "d_head", "num_heads", "kv_heads", "attention_width", "steps"})
"""Whole numbers or none: a column that holds both has floats."""


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
        plain = _plain(value)
        inner[key] = int(plain) if key in WHOLE and isinstance(plain, float) else plain
    return config | {"model": of_one_model(config["model"])} if "name" in config.get("model", {}) else config


def _id_of_now(row: Mapping[Any, Any]) -> str:
    now = numerics_of(row["config.model.dtype"], row["config.task"])
    if row["config.schema"] == SCHEMA and row["config.numerics"] == now:
        return str(row["run_id"])
    return run_id(science_from(config_of(row)).of_now())


def _plain(value: Any) -> Any:
    """The JSON value that a cell stands for."""
    if isinstance(value, str):
        if value.startswith("{"):
            return json.loads(value)
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
