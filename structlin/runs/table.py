"""What do all runs say? One pandas table, a row per evaluation: the one door for readers, and the contract with them.

    python -m structlin.runs.table runs=runs out=runs.parquet        (or .csv)

A row holds the run's identity and whole config, the step, its cost by group, sizes, speed, loss and provenance. Of a
run whose ranks are nested there is a row for every share of them (rank_share), with its variant, MACs and parameters.
Laws and figures read this table and nothing else, so they work as well on a file of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeVar

import pandas as pd

from structlin.config.nested import NONE, at_share, menu_of
from structlin.config.science import Science
from structlin.errors import UserError, asks_help, door, key_values, suggest
from structlin.host.code import is_mixed
from structlin.host.files import write_atomically
from structlin.host.passed_over import pass_over, summary
from structlin.runs import cache
from structlin.runs.columns import Measured, Record, by_share, shared_of
from structlin.runs.rows import Rows
from structlin.runs.speeds import Decodings, Throughputs
from structlin.runs.store import RunFolder, Store

T = TypeVar("T")


def load(runs: Path) -> pd.DataFrame:
    """The table of a run store, sorted by run and step; empty (with its columns) where nothing was evaluated.

    A run folder that cannot be read is passed over with one line on stderr. What has not changed since the last reading
    comes from the store's cache (runs/cache.py). UserError where the store is missing.
    """
    if not runs.is_dir():
        raise UserError(f"no run store at {runs}; train something first (python sweep.py ...), or name it: runs=...")
    throughputs, decodings = Throughputs(runs), Decodings(runs)
    rows = Rows(
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


def _records(runs: Path) -> Iterator[Record]:
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


def _read(folder: RunFolder, known: Mapping[str, cache.Entry]) -> Iterator[tuple[str, cache.Entry | None, Record]]:
    """A run, from its folder or as it was read before: at each share of its ranks its name in the cache, what may be
    kept there, and what the table shows. The whole rank comes last."""
    try:
        key = cache.key_of(str(folder.path))
    except OSError as error:
        raise UserError(f"{folder.path} cannot be read: {error.strerror}") from None
    whole = known.get(folder.run_id)
    if whole is not None and whole.key == key:
        shared = shared_of(whole.names, whole.values)
        for share in menu_of(str(shared.columns.get("config.nested", NONE))):
            name = at_share(folder.run_id, share)
            if (kept := known.get(name)) is not None and kept.key == key:
                shared = shared_of(kept.names, kept.values)
                yield name, kept, Record(folder.run_id, kept.seed, shared, kept.steps, kept.losses, kept.more)
        return
    may_keep = key is not None and folder.is_settled
    for share, (record, names, values) in by_share(_measured(folder)):
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
    rows = Rows(
        lambda shared: speed(shared.machine, sciences[shared.shape]),
        lambda shared: decoding(shared.machine, sciences[shared.shape]),
    )
    for run in runs:
        try:
            measured = read(run)
            for _, (record, _, _) in by_share(measured):
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
