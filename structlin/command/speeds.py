"""How fast do the models of a store decode? Measured once a shape on this machine; the table of runs then says it.

    structlin speeds runs=runs
    structlin speeds table=analysis/data/fig4.parquet       (a table of runs in place of a store)

measures, for every shape of model that the store's runs have and this machine has not measured yet, the milliseconds a
token where 1 and 16 texts are read side by side, each token by token (weights do not matter: none are read). They are
kept in runs/decoding.json and stand in the columns decode_ms_1 and decode_ms_16 of the table. A table of runs without
its store (.parquet) is written anew with these columns, and with training=true that of tokens_per_second; the machine
stands in the file NAME.json beside it.

Keys:
  runs          the store (runs)
  device        auto, cpu or cuda (auto)
  threads       of the processor (1)
  again         true: measure what was measured before, too (false)
  training      true: training tokens a second of every shape, too, all anew, the best of some rounds over all (false);
                those that a sweep measures one after another differ by how busy the machine was
  table         a table of runs that is given the columns, in place of a store
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from structlin.config.identity import science_from
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError, asks_help, key_values, suggest, whole_number
from structlin.host.files import read_json, write_atomically
from structlin.host.passed_over import pass_over
from structlin.runs.machine import machine_key
from structlin.runs.row_config import config_of
from structlin.runs.speeds import DECODED_ROWS, Decodings, Throughputs, shape_key
from structlin.runs.store import Store

DEFAULTS = {"runs": "runs", "device": "auto", "threads": "1", "again": "false", "training": "false", "table": ""}
ROUNDS = 4


def main(arguments: list[str]) -> int:
    """Measure what is not known. UserError for a store without runs that decode."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    values = key_values(arguments, DEFAULTS)
    for key in ("again", "training"):
        if values[key] not in ("true", "false"):
            raise UserError(f"{key}={values[key]} is unknown; {suggest(values[key], ('true', 'false'))}")
    placement = Placement(device=values["device"], threads=whole_number("threads", values["threads"], 1, 10**4))
    if values["table"]:
        return _of_table(Path(values["table"]).expanduser(), placement, trains=values["training"] == "true")
    runs = Path(values["runs"]).expanduser()
    if not runs.is_dir():
        raise UserError(f"no run store at {runs}; runs=FOLDER names one")
    found, kept = list(_sciences(Store(runs))), Decodings(runs)
    if not found:
        raise UserError(f"{runs} has no run of a GPT-2, which alone decodes; runs=FOLDER names another store")
    asked = [science for science in found if values["again"] == "true" or not kept.has(science, placement)]
    for science, measured in zip(asked, least_of_rounds(asked, placement), strict=True):
        kept.keep(science, placement, measured)
        _say(science, measured)
    print(f"{len(found)} shapes are measured in {kept.path}")
    if values["training"] == "true":
        _train(found, Throughputs(runs), placement)
    return 0


def _train(sciences: Sequence[Science], kept: Throughputs, placement: Placement) -> None:
    """Keep the training speed of every shape."""
    for science, speed in zip(sciences, most_of_rounds(sciences, placement), strict=True):
        kept.keep(science, placement, speed)


def most_of_rounds(sciences: Sequence[Science], placement: Placement) -> list[float]:
    """Training tokens a second each, the most of some rounds over all; says them."""
    from structlin.training.probe import tokens_per_second

    best = [0.0] * len(sciences)
    for _ in range(ROUNDS):
        for place, science in enumerate(sciences):
            best[place] = max(best[place], tokens_per_second(science, placement))
    for science, speed in zip(sciences, best, strict=True):
        print(f"{science.variant} d{science.model.d_model}   {speed:,.0f} training tokens a second", flush=True)
    return best


def _say(science: Science, measured: dict[int, float]) -> None:
    times = ", ".join(f"{rows}: {value:.3g}" for rows, value in measured.items())
    print(f"{science.variant} d{science.model.d_model}   ms a token by texts side by side  {times}", flush=True)


def _of_table(path: Path, placement: Placement, *, trains: bool) -> int:
    """Give a table of runs its columns, with ``trains`` that of training too. UserError for a file that is none."""
    if path.suffix != ".parquet" or not path.is_file():
        raise UserError(f"table={path} is no .parquet file of runs; write one by python -m structlin.runs.table")
    table = pd.read_parquet(path)
    if "config.schema" not in table:
        raise UserError(f"table={path} holds no configs of runs; write one by python -m structlin.runs.table")
    rows = table.drop_duplicates("run_id").to_dict("records")
    sciences = {str(row["run_id"]): science_from(config_of(row)) for row in rows}
    shapes = {shape_key(one): one for one in sciences.values() if one.model.name == "gpt2"}
    if not shapes:
        raise UserError(f"table={path} has no run of a GPT-2, which alone decodes")
    known = dict(zip(shapes, least_of_rounds(list(shapes.values()), placement), strict=True))
    for shape, science in shapes.items():
        _say(science, known[shape])
    of_run = {run: known.get(shape_key(science), {}) for run, science in sciences.items()}
    ids = table["run_id"].astype(str)
    for count in DECODED_ROWS:
        times = {run: found.get(count, math.nan) for run, found in of_run.items()}
        table[f"decode_ms_{count}"] = ids.map(times).astype(float)
    machine = {"decoded_on": machine_key(placement)}
    if trains:
        speeds = dict(zip(shapes, most_of_rounds(list(shapes.values()), placement), strict=True))
        measured = ids.map({run: speeds.get(shape_key(science)) for run, science in sciences.items()}).astype(float)
        table["tokens_per_second"] = measured.fillna(table.get("tokens_per_second", math.nan))
        machine["trained_at_speeds_of"] = machine_key(placement)
    write_atomically(path, lambda stream: table.to_parquet(stream, compression="zstd"))
    beside = path.with_suffix(".json")
    if beside.is_file():
        text = json.dumps({**read_json(beside), **machine}, indent=1, ensure_ascii=False)
        write_atomically(beside, f"{text}\n".encode())
    print(f"{len(known)} shapes are measured in {path}")
    return 0


def least_of_rounds(sciences: Sequence[Science], placement: Placement) -> list[dict[int, float]]:
    """``milliseconds_of`` each, the least of some rounds over all: a busy minute of the machine falls on none alone."""
    found = [dict.fromkeys(DECODED_ROWS, math.inf) for _ in sciences]
    for _ in range(ROUNDS):
        for place, science in enumerate(sciences):
            measured = milliseconds_of(science, placement)
            found[place] = {rows: min(found[place][rows], measured[rows]) for rows in DECODED_ROWS}
    return found


def milliseconds_of(science: Science, placement: Placement) -> dict[int, float]:
    """Milliseconds a token of a run's model, by the number of texts, on this machine."""
    # Here, since a shell that completes the keys needs no torch.
    from structlin.models.build import build_model
    from structlin.models.decoding import milliseconds
    from structlin.models.gpt2 import GPT2
    from structlin.tasks.shared import autocast
    from structlin.training.device import pick_device, settle

    device = pick_device(placement)
    settle(device, placement, science)
    model = build_model(science).to(device)
    assert isinstance(model, GPT2)
    with autocast(science, device):
        return {rows: milliseconds(model, rows) for rows in DECODED_ROWS}


def _sciences(store: Store) -> Iterator[Science]:
    """One Science of each shape that decodes; a run that cannot be read is passed over with a line."""
    known = set()
    for folder in store.folders():
        try:
            science = folder.science()
        except UserError as error:
            pass_over(folder.path, error)
            continue
        if science.model.name == "gpt2" and shape_key(science) not in known:
            known.add(shape_key(science))
            yield science
