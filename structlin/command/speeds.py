"""How fast do the models of a store decode? Measured once a shape on this machine; the table of runs then says it.

    structlin speeds runs=runs
    structlin speeds table=analysis/data/fig4.parquet       (a table of runs in place of a store)

measures, for every shape of model that the store's runs have and this machine has not measured yet, the milliseconds a
token where 1 and 16 texts are read side by side, each token by token (weights do not matter: none are read). They are
kept in runs/decoding.json and stand in the columns decode_ms_1 and decode_ms_16 of the table. A table of runs without
its store (.parquet) is written anew with these columns, and the machine stands in the file NAME.json beside it.

Keys:
  runs          the store (runs)
  device        auto, cpu or cuda (auto)
  threads       of the processor (1)
  again         true: measure what was measured before, too (false)
  table         a table of runs that is given the columns, in place of a store
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from structlin.config.identity import science_from
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError, asks_help, key_values, suggest, whole_number
from structlin.host.files import read_json, write_atomically
from structlin.host.passed_over import pass_over
from structlin.runs.machine import machine_key
from structlin.runs.speeds import DECODED_ROWS, Decodings, shape_key
from structlin.runs.store import Store
from structlin.runs.table import config_of

DEFAULTS = {"runs": "runs", "device": "auto", "threads": "1", "again": "false", "table": ""}


def main(arguments: list[str]) -> int:
    """Measure what is not known. UserError for a store without runs that decode."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    values = key_values(arguments, DEFAULTS)
    if values["again"] not in ("true", "false"):
        raise UserError(f"again={values['again']} is unknown; {suggest(values['again'], ('true', 'false'))}")
    placement = Placement(device=values["device"], threads=whole_number("threads", values["threads"], 1, 10**4))
    if values["table"]:
        return _of_table(Path(values["table"]).expanduser(), placement)
    runs = Path(values["runs"]).expanduser()
    if not runs.is_dir():
        raise UserError(f"no run store at {runs}; runs=FOLDER names one")
    found, kept = list(_sciences(Store(runs))), Decodings(runs)
    if not found:
        raise UserError(f"{runs} has no run of a GPT-2, which alone decodes; runs=FOLDER names another store")
    for science in found:
        if values["again"] == "true" or not kept.has(science, placement):
            measured = milliseconds_of(science, placement)
            kept.keep(science, placement, measured)
            _say(science, measured)
    print(f"{len(found)} shapes are measured in {kept.path}")
    return 0


def _say(science: Science, measured: dict[int, float]) -> None:
    times = ", ".join(f"{rows}: {value:.3g}" for rows, value in measured.items())
    print(f"{science.variant} d{science.model.d_model}   ms a token by texts side by side  {times}", flush=True)


def _of_table(path: Path, placement: Placement) -> int:
    """Give a table of runs its columns. UserError for a file that is none."""
    if path.suffix != ".parquet" or not path.is_file():
        raise UserError(f"table={path} is no .parquet file of runs; write one by python -m structlin.runs.table")
    table = pd.read_parquet(path)
    if "config.schema" not in table:
        raise UserError(f"table={path} holds no configs of runs; write one by python -m structlin.runs.table")
    known: dict[str, dict[int, float]] = {}
    of_run: dict[str, dict[int, float]] = {}
    for row in table.drop_duplicates("run_id").to_dict("records"):
        science = science_from(config_of(row))
        if science.model.name != "gpt2":
            continue
        shape = shape_key(science)
        if shape not in known:
            known[shape] = milliseconds_of(science, placement)
            _say(science, known[shape])
        of_run[str(row["run_id"])] = known[shape]
    if not known:
        raise UserError(f"table={path} has no run of a GPT-2, which alone decodes")
    ids = table["run_id"].astype(str)
    for rows in DECODED_ROWS:
        table[f"decode_ms_{rows}"] = ids.map({run: times[rows] for run, times in of_run.items()}).astype(float)
    write_atomically(path, lambda stream: table.to_parquet(stream, compression="zstd"))
    beside = path.with_suffix(".json")
    if beside.is_file():
        text = json.dumps({**read_json(beside), "decoded_on": machine_key(placement)}, indent=1, ensure_ascii=False)
        write_atomically(beside, f"{text}\n".encode())
    print(f"{len(known)} shapes are measured in {path}")
    return 0


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
