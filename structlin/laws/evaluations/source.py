"""How does a table of any origin become evaluations? Names, units and conventions end here, and bad rows are named.

Every fit reads one frame, one row per evaluation, with these columns (NaN or absent where a source lacks them):

    run str | variant str | pair str (runs of different variants with one pair share seed and size) | seed
    N (model size) | D tokens | C FLOPs | L nats per token | width | step
    kind str (constant | decayed | unknown) | final bool | in_warmup bool
    seconds, params, memory (resources beside FLOPs) | other columns of the source under their own names

``from_runs`` reads the table of this project's runs, ``from_table`` a foreign one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from structlin.errors import UserError, suggest
from structlin.laws.caution import Caution
from structlin.laws.choices import Choices
from structlin.laws.evaluations.where import select

# key of ``columns`` -> spellings found in the wild, compared without case, spaces, dashes and underscores.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "params": ("n", "params", "parameters", "nparams", "modelsize", "size", "nonembeddingparams"),
    "tokens": ("d", "tokens", "trainingtokens", "ntokens", "datasize", "numtokens"),
    "loss": ("l", "loss", "valloss", "validationloss", "testloss", "evalloss", "finalloss"),
    "flops": ("c", "flops", "flop", "compute", "trainingflops", "trainingflop"),
    "structure": ("structure", "arch", "architecture"),
    "moe": ("moe",),
    "variant": ("variant",),
    "run": ("run", "runid", "runname", "name", "id"),
    "seed": ("seed",),
    "width": ("width", "dmodel", "hiddensize"),
    "step": ("step", "steps"),
    "schedule": ("schedule", "lrschedule"),
    "in_warmup": ("inwarmup",),
    "optimizer": ("optimizer", "optimiser"),
    "batch_tokens": ("batchtokens",),
    "data": ("data", "dataset", "corpus"),
    "task": ("task",),
    "learning_rate": ("learningrate", "lr"),
    "seconds": ("seconds", "walltime", "wallclock"),
    "memory": ("memory", "memorybytes"),
}
NUMBERS = ("params", "tokens", "loss", "flops", "width", "step", "seconds", "memory", "batch_tokens", "learning_rate")
_UNITS = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "b": 1e9, "g": 1e9, "billion": 1e9, "t": 1e12,
          "trillion": 1e12, "p": 1e15, "e": 1e18, "nats": 1.0, "bits": float(np.log(2.0)), "pf_days": 8.64e19,
          "hours": 3600.0, "days": 86400.0, "one": 1.0}  # fmt: skip
# Consecutive sorted values of one column this far apart are taken for two units.
_UNIT_GAP = 1e3
MIN_ROWS = 5
# Columns that no foreign table has together, and without which from_runs cannot read one.
_OWN = (
    "run_id", "variant", "seed", "macs_per_token", "tokens", "training_flops", "paper_flops", "val_loss", "d_model",
    "step", "in_warmup", "schedule", "horizon_steps", "status", "params_total", "weight_bytes", "activation_bytes",
    "tokens_per_second",
)  # fmt: skip
# Convention of own runs -> its column and what stands in laws.json and on axes.
_CONVENTIONS = {
    "training": ("training_flops", "6 x forward MACs x tokens"),
    "paper": ("paper_flops", "forward MACs x tokens"),
    "logged": ("logged_flops", "(forward MACs, A first, + 5 per normed element) x tokens"),
}
# Parts of an own run's config that differ within a law: its size, seed and length, and what makes its variant.
_FREE = tuple(
    f"config.{name}"
    for name in (
        "seed", "model.d_model", "model.num_layers", "model.structured", "model.weight_norm", "model.moe", "moe",
        "optim.rate_rule", "optim.lr", "schedule.", "structure.",
    )
)  # fmt: skip


def read_file(path: Path) -> pd.DataFrame:
    """A csv, tsv, parquet or json-lines file. Raises UserError when it is missing or of another kind."""
    if not path.is_file():
        raise UserError(f"table={path} is not a file")
    readers = {
        ".csv": lambda: pd.read_csv(path),
        ".tsv": lambda: pd.read_csv(path, sep="\t"),
        ".parquet": lambda: pd.read_parquet(path),
        ".jsonl": lambda: pd.read_json(path, lines=True),
        ".ndjson": lambda: pd.read_json(path, lines=True),
        ".json": lambda: pd.read_json(path, lines=True),
    }
    if path.suffix.lower() not in readers:
        raise UserError(f"table={path} has the ending '{path.suffix}'; valid: {', '.join(readers)}")
    try:
        table = readers[path.suffix.lower()]()
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise UserError(f"table={path} cannot be read: {error}") from error
    if table.empty:
        raise UserError(f"table={path} has no rows")
    table.columns = [str(name).strip() for name in table.columns]
    return table


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def match_columns(table: pd.DataFrame, wanted: dict[str, str]) -> dict[str, str]:
    """key -> name in the table: as asked, else by common spellings. Raises UserError for names that do not exist."""
    for key, name in wanted.items():
        if key not in SYNONYMS:
            raise UserError(f"columns: unknown key '{key}'; {suggest(key, SYNONYMS)}")
        if name not in table.columns:
            raise UserError(f"columns: the table has no column '{name}'; {suggest(name, map(str, table.columns))}")
    found = dict(wanted)
    taken = set(wanted.values())
    plain = {_plain(str(name)): str(name) for name in reversed(list(table.columns))}
    for key, spellings in SYNONYMS.items():
        names = [plain[s] for s in spellings if s in plain and plain[s] not in taken]
        if key not in found and names:
            found[key] = names[0]
    return found


def _factor(key: str, unit: str) -> float:
    """What a value is multiplied with."""
    text = unit.strip().lower()
    if text in _UNITS:
        return _UNITS[text]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise UserError(f"units: {key}={unit} is not known; a number, or {suggest(unit, _UNITS)}")
    return value


def numbers(table: pd.DataFrame, name: str, factor: float = 1.0, *, positive: bool = True) -> pd.Series:
    """A column as positive numbers. Raises UserError naming the first row (from 1, header not counted) that is not."""
    column = table[name]
    values = pd.to_numeric(column, errors="coerce").astype(float)
    text = values.isna() & column.notna()
    if text.any():
        text &= column.astype(str).str.strip().str.lower() != "nan"
    if text.any():
        row = _first(text)
        shown = column.iloc[row]
        raise UserError(
            f"row {int(column.index[row]) + 1}, column '{name}': '{shown}' is not a number; write plain numbers in "
            f"one unit and name the unit with units='{{...}}'"
        )
    bad = values.abs() == np.inf
    if positive:
        bad |= values <= 0
    if bad.any():
        row = _first(bad)
        at = int(column.index[row]) + 1
        raise UserError(f"row {at}, column '{name}': {column.iloc[row]} is not a positive, finite number")
    return values * factor


def _first(mask: pd.Series) -> int:
    return int(np.flatnonzero(mask.to_numpy())[0])


def _one_unit(values: pd.Series, name: str) -> None:
    """Raise where a column falls apart into two scales no sweep has."""
    known = values.dropna()
    order = np.argsort(known.to_numpy())
    ranked = known.to_numpy()[order]
    ratio = ranked[1:] / ranked[:-1]
    if len(ratio) and ratio.max() > _UNIT_GAP:
        cut = int(np.argmax(ratio))
        low, high = known.index[order[cut]], known.index[order[cut + 1]]
        raise UserError(
            f"column '{name}' seems to hold two units: row {low + 1} has {ranked[cut]:g} and row {high + 1} has "
            f"{ranked[cut + 1]:g}, with nothing between; bring it to one unit, or pick rows with where=..."
        )


def from_table(table: pd.DataFrame, choices: Choices) -> tuple[pd.DataFrame, dict[str, object], list[Caution]]:
    """A foreign table -> evaluations, what was assumed, and cautions. Raises UserError naming row and column."""
    table = table.reset_index(drop=True)
    names = match_columns(table, choices.columns)
    for key in choices.units:
        if key not in names:
            raise UserError(f"units: '{key}' has no column; {suggest(key, names)}")
    if "loss" not in names:
        raise UserError(f"no column for the loss; name it: columns='{{loss: ...}}'; {suggest('loss', table.columns)}")
    if choices.where:
        aliases = {key: table[name] for key, name in names.items() if key not in table.columns}
        table = select(table.assign(**aliases), choices.where)
    values = {}
    for key in NUMBERS:
        if key in names:
            factor = _factor(key, choices.units.get(key, "one"))
            values[key] = numbers(table, names[key], factor, positive=key not in ("step",))
            if key in ("params", "tokens", "loss"):
                _one_unit(values[key], names[key])
    if len(table) < MIN_ROWS:
        raise UserError(f"the table has {len(table)} rows; a law needs at least {MIN_ROWS}")
    frame, assumed, cautions = _sizes(values, table.index)
    _labels(frame, table, names)
    if "run" not in names:
        cautions.append(
            Caution("rows_as_runs", "no run column; name it with columns='{run: ...}' where rows share runs")
        )
    cautions += _duplicates(frame, choices)
    assumed["columns"] = names
    frame["kind"] = _kinds(table[names["schedule"]]) if "schedule" in names else "unknown"
    frame["final"] = frame["kind"] != "decayed"
    last = frame.groupby(["variant", "run"])["D"].transform("max") if "D" in frame else None
    if last is not None:
        frame.loc[frame["kind"] == "decayed", "final"] = frame["D"] >= last
    warm = table[names["in_warmup"]] if "in_warmup" in names else pd.Series(False, index=table.index)
    frame["in_warmup"] = warm.astype(str).str.lower().isin(("true", "1", "1.0", "yes"))
    return frame.reset_index(drop=True), assumed, cautions


def _kinds(schedule: pd.Series) -> pd.Series:
    return schedule.astype(str).str.lower().map(lambda s: "constant" if s in ("constant", "wsd-stable") else "decayed")


def _sizes(values: dict[str, pd.Series], index: pd.Index) -> tuple[pd.DataFrame, dict[str, object], list[Caution]]:
    """N, D, C, L from what there is; the missing one of N, D, C follows from C = 6 N D."""
    frame = pd.DataFrame({"L": values["loss"]}, index=index)
    for key, name in (("params", "N"), ("tokens", "D"), ("flops", "C")):
        if key in values:
            frame[name] = values[key]
    assumed: dict[str, object] = {"flops": "column of the table", "size": "params of the table"}
    cautions: list[Caution] = []
    missing = [name for name in ("N", "D", "C") if name not in frame]
    if len(missing) > 1 and "C" in missing:
        raise UserError("a law needs compute, or model size and tokens; name them: columns='{params: N, tokens: D}'")
    if missing == ["C"]:
        frame["C"] = 6.0 * frame["N"] * frame["D"]
        assumed["flops"] = "6 N D"
        cautions.append(Caution("assumed_flops", "the table has no FLOPs; C = 6 N D of its own N"))
    elif missing == ["D"]:
        frame["D"] = frame["C"] / (6.0 * frame["N"])
        assumed["tokens"] = "C / (6 N)"
    elif missing == ["N"]:
        frame["N"] = frame["C"] / (6.0 * frame["D"])
        assumed["size"] = "C / (6 D)"
    frame["width"] = values.get("width", np.nan)
    for key in ("seconds", "memory"):
        if key in values:
            frame[key] = values[key]
    if "params" in values:
        frame["params"] = values["params"]
    for key in ("batch_tokens", "learning_rate", "step"):
        if key in values:
            frame[key] = values[key]
    gaps = frame[["L", *[c for c in "NDC" if c in frame]]].isna().any(axis=1)
    if gaps.any():
        cautions.append(
            Caution("left_out", f"{int(gaps.sum())} rows with an empty number, the first row {_first(gaps) + 1}")
        )
        frame = frame[~gaps]
    return frame, assumed, cautions


def _labels(frame: pd.DataFrame, table: pd.DataFrame, names: dict[str, str]) -> None:
    """variant, run, seed, pair and the columns runs may not differ in. Adds them to the frame."""
    part = table.loc[frame.index]
    if "variant" in names:
        variant = part[names["variant"]].astype(str)
    elif "structure" in names:
        variant = part[names["structure"]].astype(str)
        if "moe" in names:
            moe = part[names["moe"]].astype(str)
            plain = moe.str.lower().isin(("none", "nan", "", "dense", "false", "0"))
            variant = variant.where(plain, variant + "+" + moe)
    else:
        variant = pd.Series("all", index=part.index)
    frame["variant"] = variant
    for key in ("seed", "schedule", "optimizer", "data", "task"):
        if key in names:
            frame[key] = part[names[key]].astype(str)
    if "run" in names:
        frame["run"] = variant + "/" + part[names["run"]].astype(str)
        if "seed" in frame:
            frame["run"] += "/s" + frame["seed"]
    else:
        frame["run"] = [f"row {i + 1}" for i in part.index]
    size = frame["width"].where(frame["width"].notna(), frame.get("N", np.nan))
    frame["pair"] = size.map("{:.6g}".format) + "/" + frame["seed"] if "seed" in frame else frame["run"]


def _duplicates(frame: pd.DataFrame, choices: Choices) -> list[Caution]:
    """Refuse, drop or keep rows that stand twice. Rows without a run name are only warned about."""
    named = not frame["run"].str.startswith("row ").all()
    keys = ["run", "D"] if named and "D" in frame else ["variant", *[c for c in "NDCL" if c in frame]]
    twice = frame.duplicated(keys)
    if not twice.any() or choices.duplicates == "keep":
        return []
    first = int(frame.index[_first(twice)])
    twin = frame.index[(frame[keys] == frame.loc[first, keys]).all(axis=1)][0]
    text = f"row {first + 1} repeats row {int(twin) + 1} in {', '.join(keys)} ({int(twice.sum())} such rows)"
    if choices.duplicates == "drop":
        frame.drop(frame.index[twice], inplace=True)
        return [Caution("duplicate_rows", text + "; dropped, as asked")]
    if named:
        raise UserError(f"{text}; duplicates=drop keeps the first, duplicates=keep counts all")
    return [Caution("duplicate_rows", text + "; kept: without run names they may be two runs; duplicates=drop drops")]


def is_own(table: pd.DataFrame) -> bool:
    """Whether this project wrote the table: an export of a store, or the kept runs of a study."""
    return set(_OWN) <= set(table.columns)


def from_runs(table: pd.DataFrame, choices: Choices) -> tuple[pd.DataFrame, dict[str, object], list[Caution]]:
    """The table of this project's runs -> evaluations, what was assumed, and cautions.

    N is forward MACs per token, so that training FLOPs are exactly 6 N D. UserError where the chosen convention has no
    column.
    """
    if choices.where:
        table = select(table, choices.where)
    frame = pd.DataFrame(
        {
            "run": table["run_id"], "variant": table["variant"], "seed": table["seed"].astype(str),
            "N": table["macs_per_token"].astype(float), "D": table["tokens"].astype(float),
            "C": _counted(table, choices.convention),
            "L": table["val_loss"].astype(float), "width": table["d_model"].astype(float), "step": table["step"],
            "in_warmup": table["in_warmup"].astype(bool),
        }
    )  # fmt: skip
    keep = ["task", "data", "tokenizer", "model", "context", "batch_tokens", "optimizer", "dtype", "theta",
            "schedule", "learning_rate", "num_layers", "status", "nu", "omega", "psi", "macs_head", "macs_attention",
            "params_total", "params_active", "params_embedding", "params_head"]  # fmt: skip
    frame = frame.join(table[[name for name in keep if name in table]])
    # What a law may not mix, and the table names only in its config; ``variant`` holds the free parts of the model.
    rest = [name for name in table if str(name).startswith("config.") and not str(name).startswith(_FREE)]
    frame = frame.join(table[rest])
    if "config.structure.rounding" in table:
        frame["rounding"] = table["config.structure.rounding"]
    decayed = table["schedule"] != "constant"
    frame["kind"] = np.where(decayed, "decayed", "constant")
    frame["final"] = ~decayed | (table["step"] >= table["horizon_steps"])
    frame["pair"] = frame["width"].map("{:g}".format) + "/" + frame["seed"]
    frame["params"] = table["params_total"].astype(float)
    frame["memory"] = (table["weight_bytes"] + table["activation_bytes"]).astype(float)
    speed = table["tokens_per_second"].astype(float)
    frame["seconds"] = frame["D"] / speed.where(speed > 0)
    cautions = []
    started = frame["D"] > 0
    bad = started & (~np.isfinite(frame["L"]) | (frame["L"] <= 0))
    diverged = frame["run"].isin(frame.loc[table["status"] == "diverged", "run"])
    if (bad | diverged).any():
        text = f"{int(diverged.sum())} evaluations of diverged runs, {int((bad & ~diverged).sum())} without a loss"
        cautions.append(Caution("left_out", text))
    frame = frame[started & ~bad & ~diverged].reset_index(drop=True)
    if frame.empty:
        raise UserError("the store holds no evaluations with a loss yet; train first with sweep.py or train.py")
    return frame, {"flops": _CONVENTIONS[choices.convention][1], "size": "forward MACs per token"}, cautions


def _counted(table: pd.DataFrame, convention: str) -> pd.Series:
    """The FLOPs of a table of own runs; UserError where it was written before they were counted so."""
    column, _ = _CONVENTIONS[convention]
    if column not in table:
        raise UserError(
            f"convention={convention} needs the column {column}, which this table was written without; export its runs "
            "again with python -m structlin.runs.table, or take convention=paper"
        )
    return table[column].astype(float)
