"""Which runs are kept in the repository? One parquet table a study below analysis/data/, each with its provenance.

    python -m analysis.keep study=regression runs=runs/regression        (study.size=small is the default)
    python -m analysis.keep study=regression beside=parts/regression.parquet   (and what a table has of it)
    python -m analysis.keep search=NAME runs=runs                        (a search that is over, as ``search``)

analysis/data/NAME.parquet   the rows of runs.table that belong to the study: one an evaluation
analysis/data/NAME.json      the command that made them, machines, versions, code, numbers of runs and of rows, the
                             tokens of the corpus and the losses of its unigrams and bigrams, what is missing of the
                             study; trained_otherwise: how its settings differ from those of the study today, empty
                             where they do not; search: the record of a search (structlin/search/report.py)
analysis/data/forecasts/     what a kept search or table foretells, to be scored by later runs: score=...
analysis/data/parts/         runs of a study that is not trained whole yet, which nothing is drawn of (out=)

Keeping the same runs again writes the same bytes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from structlin.errors import UserError, one_line
from structlin.host.files import read_json, write_atomically
from structlin.laws.choices import Choices
from structlin.laws.evaluations import files
from structlin.laws.evaluations.own import with_corpus
from structlin.runs import table as store
from structlin.runs.columns import with_parent_as_text
from structlin.runs.row_config import ids_of_now
from structlin.runs.store import RunFolder, Store
from structlin.runs.tracking import logged
from structlin.search import forecast
from structlin.tracker import history as wandb_source
from structlin.tracker.history import flat

from .missing import Missing, command, command_lines, last_steps, missing_cells

FOLDER = Path(__file__).parent / "data"
SEARCH = "search"
"""Name of the kept search, and in NAME.json of its record."""
COLUMNS = (
    "run_id", "variant", "structure", "theta", "moe", "task", "data", "tokenizer", "model", "optimizer", "rate_rule",
    "d_model", "num_layers", "d_head", "context", "seed", "learning_rate", "batch_tokens", "dtype", "schedule",
    "warmup_steps", "horizon_steps", "in_warmup", "status", "step", "tokens", "val_loss", "macs_per_token",
    "macs_head", "macs_attention", "training_flops", "paper_flops", "params_total", "params_active",
    "params_embedding", "params_head", "weight_bytes", "activation_bytes", "tokens_per_second", "nu", "omega", "psi",
)  # fmt: skip
"""What figures and laws read, besides every column of the config: laws never mix two of them."""
NEWER = (
    "logged_flops", "epochs", "train_tokens", "unigram_loss", "bigram_loss", "xi", "val_error", "train_loss",
    "train_error", "clean_loss", "clean_error", "feature_update", "decode_ms_1", "decode_ms_16", "in_guide",
    "inherited_flops", "rank_share",
)  # fmt: skip
"""Columns that tables kept before them lack."""
ORIGIN = {"machine": "machine", "device": "device_name", "torch": "torch_version", "python": "python",
          "structlin": "structlin", "code": "code", "backend": "backend", "data_manifest": "data_manifest"}  # fmt: skip
"""Name in NAME.json -> name in a run's provenance; no host is kept."""


@dataclass(frozen=True)
class Kept:
    """The kept runs of a study."""

    study: str
    runs: pd.DataFrame
    """The table, a row an evaluation."""
    origin: dict[str, Any]
    """Where they come from: NAME.json."""

    @property
    def missing(self) -> Missing:
        """What of the study is missing, by the plan at the time of keeping if the study is still the same.

        Of runs that were trained with other settings it is that they were: what lacks is the study itself.
        """
        if SEARCH in self.origin:
            return tuple(self.origin["missing"]), self.origin["command"] if self.origin["missing"] else ""
        if self.origin.get("trained_otherwise"):
            return (f"trained with other settings: {self.origin['trained_otherwise']}",), self.origin["command"]
        if self.origin["lines"] == command_lines(self.study, self.origin["size"]):
            lines = tuple(self.origin["missing"])
            return lines, self.origin["command"] if lines else ""
        return missing_cells(self.study, self.origin["size"], self.runs)


def load(study: str, folder: Path = FOLDER) -> Kept | None:
    """The kept runs of a study, or None where none are."""
    path = folder / f"{study}.parquet"
    if not path.exists():
        return None
    origin = read_json(path.with_suffix(".json"))
    return Kept(study, with_corpus(pd.read_parquet(path), origin.get("corpus", {})), origin)


@dataclass(frozen=True)
class Part:
    """Some runs as they are kept, and where they come from."""

    table: pd.DataFrame
    origins: Mapping[str, Sequence[str]]
    """By the names of ORIGIN."""
    corpus: Mapping[str, Any]


def keep(study: str, size: str, runs: Path, folder: Path = FOLDER, beside: Sequence[Path] = ()) -> Kept:
    """Write the table and the provenance of a study's runs in a store, and of those in kept tables that it lacks.

    Of a run that several have the first one counts: the store, then ``beside`` in its order. UserError where nobody has
    a run of the study.
    """
    ends = last_steps(study, size)
    found = [_of_store(_until(store.load(runs), ends), runs)] if runs.is_dir() or not beside else []
    for path in beside:
        have = {identity for part in found for identity in ids_of_now(part.table)}
        found.append(_of_file(path, ends, have))
    parts = [part for part in found if len(part.table)]
    if not parts:
        said = ", ".join([f"runs={runs}", *(f"beside={path}" for path in beside)])
        raise UserError(f"{said} holds no run of study={study} study.size={size}; train it: {command(study, size)}")
    whole = _joined(parts)
    missing, _ = missing_cells(study, size, whole.table)
    head = {"study": study, "size": size, "command": command(study, size), "lines": command_lines(study, size)}
    return _written(study, whole, head, {"missing": list(missing), "trained_otherwise": ""}, folder)


def _until(table: pd.DataFrame, ends: Mapping[str, int]) -> pd.DataFrame:
    """Rows of a study, to where it ends: another one may have gone on with a run that both have."""
    return table[table["step"] <= ids_of_now(table).map(ends)].reset_index(drop=True)


def _of_store(table: pd.DataFrame, runs: Path) -> Part:
    """Some runs of a store."""
    identities = set(table["run_id"])
    return Part(as_alone(table, runs), _origins(runs, identities), _corpus(runs, identities))


def _of_file(path: Path, ends: Mapping[str, int], without: Collection[str]) -> Part:
    """The runs of a study in a kept table, but for some, by their ids of now. UserError for a file that is none."""
    try:
        table, origin = pd.read_parquet(path), read_json(path.with_suffix(".json"))
    except (OSError, ValueError) as error:
        raise UserError(f"beside={path} is no kept table with its provenance ({one_line(error)})") from None
    lacking = [name for name in COLUMNS if name not in table]
    if lacking or table.empty or not isinstance(origin, dict):
        why = f"it lacks {', '.join(lacking[:5])}" if lacking else "it has no rows, or no provenance"
        raise UserError(f"beside={path} is no kept table with its provenance ({why})")
    table = _until(table, ends)
    table = table[~ids_of_now(table).isin(without)].reset_index(drop=True)
    return Part(table, {name: origin.get(name, []) for name in ORIGIN}, origin.get("corpus", {}))


def _joined(parts: Sequence[Part]) -> Part:
    """Several parts as if one store had had their runs."""
    texts = list(dict.fromkeys(
        name for part in parts for name, dtype in part.table.dtypes.items() if dtype == "category"
    ))  # fmt: skip
    table = pd.concat(
        [part.table.astype(dict.fromkeys([name for name in texts if name in part.table], object)) for part in parts],
        ignore_index=True,
    )
    table = table.sort_values(["run_id", "step"], kind="stable", ignore_index=True)
    # Their values are those of these runs, whatever else a store holds.
    table = table.astype(dict.fromkeys(texts, "category"))
    origins = {name: sorted({value for part in parts for value in part.origins[name]}) for name in ORIGIN}
    corpus = parts[0].corpus
    return Part(table, origins, corpus if all(part.corpus == corpus for part in parts) else {})


def keep_search(name: str, runs: Path, folder: Path = FOLDER) -> Kept:
    """Write table, provenance, record and forecast of a search that is over. UserError where it is none."""
    again = "type its command again, which trains nothing that is done"
    try:
        record = read_json(runs / "searches" / f"{name}.json")
        wanted = {str(cell["run_id"]) for cell in read_json(runs / "sweeps" / f"{name}.json")["cells"]}
        _ = record["command"], record["forecast"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"search={name}: runs={runs} holds no such search ({one_line(error)}); {again}") from None
    if not record.get("over"):
        raise UserError(f"search={name} of runs={runs} is not over; {again}")
    if "predictions" not in (record.get("forecast") or {"predictions": ()}):
        raise UserError(f"search={name} of runs={runs} was recorded by an older version; {again}")
    table = store.load(runs)
    table = table[table["run_id"].isin(wanted)].reset_index(drop=True) if len(table) else table
    if table.empty:
        raise UserError(f"search={name}: runs={runs} holds none of its {len(wanted)} runs; {again}")
    lost = len(wanted) - table["run_id"].nunique()
    # Where the runs lie is no part of what was asked for.
    asked = [word for word in shlex.split(record["command"]) if not word.startswith(("runs=", "data.root="))]
    record = record | {"command": shlex.join(asked)}
    head = {"study": SEARCH, "size": name, "command": record["command"], "lines": []}
    missing = [f"{lost} of the {len(wanted)} runs of the search have no evaluation"] if lost else []
    tail = {"missing": missing, "trained_otherwise": "", SEARCH: record}
    forecast.keep(record, name, folder / "forecasts")
    return _written(SEARCH, _of_store(table, runs), head, tail, folder)


def _written(study: str, part: Part, head: dict[str, Any], tail: dict[str, Any], folder: Path) -> Kept:
    """NAME.parquet and NAME.json of some runs."""
    table = part.table
    counts = {"runs": table["run_id"].nunique(), "evaluations": len(table)}
    origin = {**head, **counts, **part.origins, "corpus": part.corpus, **tail}
    write_atomically(folder / f"{study}.parquet", lambda stream: table.to_parquet(stream, compression="zstd"))
    text = json.dumps(origin, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / f"{study}.json", text.encode())
    return Kept(study, table, origin)


def as_alone(table: pd.DataFrame, runs: Path) -> pd.DataFrame:
    """The kept columns of some runs of a store as they are where the store has no others.

    Runs of another task may have more keys, which are left out, or fewer: a whole number is 25.0 beside a run that has
    none, and another number to whoever hashes a config.
    """
    configs = [RunFolder(runs / identity).science_and_config()[1] for identity in sorted(set(table["run_id"]))]
    kinds: dict[str, set[type]] = {}
    for config in configs:
        for name, value in flat(with_parent_as_text(config)):
            kinds.setdefault(f"config.{name}", set()).add(type(value))
    table = table[[name for name in table if name in (*COLUMNS, *NEWER) or name in kinds]]
    whole = [
        name for name, found in kinds.items() if found == {int} and name in table and table[name].dtype.kind == "f"
    ]
    return table.astype(dict.fromkeys(whole, "int64"))


def _origins(runs: Path, identities: set[str]) -> dict[str, list[str]]:
    """All values of each part of provenance over the attempts of the runs, sorted."""
    records = [
        record for folder in Store(runs).folders() if folder.run_id in identities for record in folder.provenance()
    ]
    return {
        name: sorted({str(record[key]) for record in records if record.get(key) is not None})
        for name, key in ORIGIN.items()
    }


def own_runs(choices: Choices) -> pd.DataFrame:
    """The table that a command line names: a store, or a file of its table.

    UserError where it has no runs or lacks what figures need.
    """
    if choices.source == "runs":
        table = store.load(Path(choices.runs))
        if table.empty:
            raise UserError(f"runs={choices.runs} holds no evaluations; train first with sweep.py or train.py")
        return table
    if choices.source != "table":
        return _mirrored(choices)
    frame = files.read_file(Path(choices.table))
    frame = with_corpus(frame, files.provenance(Path(choices.table)).get("corpus", {}))
    lacking = [name for name in COLUMNS if name not in frame]
    if lacking:
        raise UserError(
            f"figures read the table of this project's runs, and this one lacks {', '.join(lacking[:5])}; export one "
            "by python -m structlin.runs.table, or use fit_laws.py for other people's tables"
        )
    return frame


def _mirrored(choices: Choices) -> pd.DataFrame:
    """The table of runs as W&B or its offline files hold them."""
    if choices.source == "wandb":
        runs, said = wandb_source.online(choices.project, Path(choices.cache)), f"project={choices.project}"
    else:
        runs, said = wandb_source.offline(Path(choices.dir)), f"dir={choices.dir}"
    table = logged.table(runs)
    if table.empty:
        raise UserError(f"{said} holds no evaluations of this project's runs; use fit_laws.py for other people's runs")
    return table


def as_own(choices: Choices) -> Choices:
    """The same choices for a table that ``own_runs`` has read: it is one of this project's runs, whatever held it."""
    return replace(choices, source="runs", table="")


def _corpus(runs: Path, identities: set[str]) -> dict[str, Any]:
    """What the provenance of the runs says of their corpus; empty where they differ or do not say."""
    folders = [folder for folder in Store(runs).folders() if folder.run_id in identities]
    said = [record["corpus"] for folder in folders for record in folder.provenance() if record.get("corpus")]
    return said[0] if said and all(one == said[0] for one in said) else {}
