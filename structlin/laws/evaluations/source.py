"""How does a table of any origin become evaluations? Names, units and conventions end here, and bad rows are named.

Every fit reads one frame, one row per evaluation, with these columns (NaN or absent where a source lacks them):

    run str | variant str | pair str (runs of different variants with one pair share seed and size) | seed
    N (model size) | D tokens | C FLOPs | L nats per token | width | step
    kind str (constant | decayed | unknown) | final bool | in_warmup bool
    seconds, params, memory, decode (resources beside FLOPs) | other columns of the source under their own names

``from_table`` reads a foreign table; own.py that of this project's runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from structlin.errors import UserError, suggest
from structlin.laws.caution import Caution
from structlin.laws.choices import ALL, Choices
from structlin.laws.evaluations import wide
from structlin.laws.evaluations.duplicates import without_duplicates
from structlin.laws.evaluations.files import read_file
from structlin.laws.evaluations.names import CONVERTED, MAY_BE_ZERO, NUMBERS, SYNONYMS, match_columns, plain, proposal
from structlin.laws.evaluations.quantities import (
    LOSS_UNITS,
    PERPLEXITY,
    TEXT,
    UNITS,
    factor,
    first,
    header,
    is_text,
    no_perplexity,
    numbers,
    one_loss_unit,
    one_unit,
    words,
)
from structlin.laws.evaluations.where import select

# Keys that become columns of other names, and what a table without them lacks.
_PLACED = ("params", "tokens", "loss", "flops", "width", "seconds", "memory", "batch", "length")
_LACKING = {"N": "the model size", "D": "the tokens", "C": "compute"}
MIN_ROWS = 5


def from_table(table: pd.DataFrame, choices: Choices) -> tuple[pd.DataFrame, dict[str, object], list[Caution]]:
    """A foreign table -> evaluations, what was assumed, and cautions. Raises UserError naming row and column."""
    table = _arranged(table.reset_index(drop=True), choices)
    by_metric = {"loss": choices.metric} if choices.metric != "val_loss" and choices.metric in table else {}
    names = match_columns(table, {**by_metric, **choices.columns})
    for key in choices.units:
        if key not in names and key != ALL:
            raise UserError(f"units: '{key}' has no column; {suggest(key, names)}")
    if not {"loss", *CONVERTED} & set(names):
        raise proposal(table, names, "the loss", choices.table if choices.source == "table" else "")
    if choices.where:
        aliases = {key: table[name] for key, name in names.items() if key not in table.columns}
        table = select(table.assign(**aliases), choices.where)
    values, said = _numbers(table, names, choices)
    if len(table) < MIN_ROWS:
        raise UserError(f"the table has {len(table)} rows; a law needs at least {MIN_ROWS}")
    frame, assumed, cautions = _sizes(values, table, names, choices)
    cautions += said
    _labels(frame, table, names)
    if "loss" in names and choices.units.get("loss", "").lower() not in LOSS_UNITS:
        one_loss_unit(frame, names["loss"])
    if "run" not in names:
        cautions.append(
            Caution("rows_as_runs", "no run column; name it with columns='{run: ...}' where rows share runs")
        )
        assumed["rows_as_runs"] = True
    frame, twice = without_duplicates(frame, choices)
    cautions += twice
    assumed["columns"] = names
    frame["kind"] = _kinds(table.loc[frame.index, names["schedule"]]) if "schedule" in names else "unknown"
    frame["final"] = frame["kind"] != "decayed"
    last = frame.groupby(["variant", "run"])["D"].transform("max") if "D" in frame else None
    if last is not None:
        frame.loc[frame["kind"] == "decayed", "final"] = frame["D"] >= last
    warm = words(table.loc[frame.index, names["in_warmup"]]) if "in_warmup" in names else None
    frame["in_warmup"] = False if warm is None else warm.str.lower().isin(("true", "1", "1.0", "yes"))
    return frame.reset_index(drop=True), assumed, cautions


def _arranged(table: pd.DataFrame, choices: Choices) -> pd.DataFrame:
    """Runs below each other, with the facts that stand in a table of runs or in their names."""
    if wide.is_wide(table):
        table = wide.melted(table)
    if choices.join or choices.names:
        spelled = {plain(str(name)): str(name) for name in reversed(list(table.columns))}
        run = choices.columns.get("run") or next((spelled[s] for s in SYNONYMS["run"] if s in spelled), None)
        if choices.join:
            table = wide.joined(table, read_file(Path(choices.join)), run)
        if choices.names:
            table = wide.from_names(table, choices.names, run)
    return table


def _numbers(
    table: pd.DataFrame, names: dict[str, str], choices: Choices
) -> tuple[dict[str, pd.Series], list[Caution]]:
    """Every column of numbers in its unit, the loss in nats, and what was converted."""
    values: dict[str, pd.Series] = {}
    cautions = []
    units = choices.units
    for key in NUMBERS:
        if key in names:
            unit = units.get(key) or header(names[key])[1] or "one"
            written = TEXT in (units.get(ALL), unit)
            values[key] = numbers(
                table, names[key], factor(key, unit), positive=key not in MAY_BE_ZERO, written=written
            )
            if unit.lower() in (PERPLEXITY, "perplexity"):
                values[key] = _logarithm(values[key], names[key])
            if key in ("params", "loss"):
                one_unit(values[key], names[key])
            if key == "loss" and units.get("loss", "").lower() not in LOSS_UNITS:
                no_perplexity(values[key], names[key])
    for key, said in CONVERTED.items():
        if "loss" not in values and key in names:
            given = numbers(table, names[key], written=TEXT in (units.get(ALL), units.get(key)))
            values["loss"] = _logarithm(given, names[key]) if key == "ppl" else given * UNITS["bits"]
            cautions.append(Caution("converted", f"the loss is that of column '{names[key]}', {said}"))
    return values, cautions


def _logarithm(values: pd.Series, name: str) -> pd.Series:
    """log of a perplexity; UserError where it is 1 or less, which no loss above zero has."""
    low = values <= 1
    if low.any():
        row = first(low)
        raise UserError(
            f"row {int(values.index[row]) + 1}, column '{name}': a perplexity of {values.iloc[row]:g} gives no loss"
        )
    logarithm: pd.Series = np.log(values)
    return logarithm


def _kinds(schedule: pd.Series) -> pd.Series:
    return words(schedule).str.lower().map(lambda s: "constant" if s in ("constant", "wsd-stable") else "decayed")


def _sizes(
    values: dict[str, pd.Series], table: pd.DataFrame, names: dict[str, str], choices: Choices
) -> tuple[pd.DataFrame, dict[str, object], list[Caution]]:
    """N, D, C, L from what there is; the missing one of N, D, C follows from C = 6 N D."""
    frame = pd.DataFrame({"L": values["loss"]}, index=table.index)
    for key, name in (("params", "N"), ("tokens", "D"), ("flops", "C")):
        if key in values:
            frame[name] = values[key]
    assumed: dict[str, object] = {"flops": "column of the table", "size": "params of the table"}
    cautions: list[Caution] = []
    if "D" not in frame and (product := _tokens(values)) is not None:
        frame["D"], assumed["tokens"] = product
        cautions.append(Caution("assumed_tokens", f"the table has no tokens; D = {product[1]}"))
    frame = _trained(frame, values, names, cautions)
    _complete(frame, assumed, cautions, table, names, choices)
    frame["width"] = values.get("width", np.nan)
    for key in ("seconds", "memory", "params", *(k for k in NUMBERS if k not in _PLACED)):
        if key in values:
            frame[key] = values[key]
    if "batch_tokens" not in frame and "batch" in values:
        frame["batch_tokens"] = values["batch"] * values.get("length", 1.0)
    if "epochs" not in frame and "unique_tokens" in frame and "D" in frame:
        frame["epochs"] = frame["D"] / frame["unique_tokens"]
    gaps = frame[["L", *[c for c in "NDC" if c in frame]]].isna().any(axis=1)
    if gaps.any():
        cautions.append(
            Caution(
                "left_out", f"{int(gaps.sum())} rows with an empty number, the first row {frame.index[first(gaps)] + 1}"
            )
        )
        frame = frame[~gaps]
    if len(frame) < MIN_ROWS:
        raise UserError(f"{len(frame)} of {len(table)} rows have all numbers of a law; it needs at least {MIN_ROWS}")
    return frame, assumed, cautions


def _tokens(values: dict[str, pd.Series]) -> tuple[pd.Series, str] | None:
    """D as steps times what a step reads, and how; None where the table does not say."""
    if "step" not in values:
        return None
    if "batch_tokens" in values:
        return values["step"] * values["batch_tokens"], "step x batch tokens"
    if {"batch", "length"} <= values.keys():
        return values["step"] * values["batch"] * values["length"], "step x batch x length"
    return None


def _trained(
    frame: pd.DataFrame, values: dict[str, pd.Series], names: dict[str, str], cautions: list[Caution]
) -> pd.DataFrame:
    """The rows after a step of training. Step 0 is left out and named; no tokens at another step refuse."""
    start = values["step"] == 0 if "step" in values else pd.Series(False, index=frame.index)
    for key, column in (("step", None), ("tokens", "D"), ("flops", "C")):
        given = values.get(key) if column is None else frame.get(column)
        if given is None:
            continue
        bad = (given < 0) | ((given == 0) & ~start)
        if bad.any():
            row, name = first(bad), names.get(key, key)
            way = f"where='{name} > 0' leaves such rows out" if name.isidentifier() else "pick rows with where=..."
            raise UserError(
                f"row {given.index[row] + 1}, column '{name}': {given.iloc[row]:g} is not a positive, finite number; "
                + way
            )
    if start.all():
        raise UserError(
            "every row lies at step 0 or has no tokens: nothing was trained there; name the column of tokens"
        )
    if start.any():
        text = (
            f"{int(start.sum())} rows at step 0 or 0 tokens, the first row {frame.index[first(start)] + 1}: untrained"
        )
        cautions.append(Caution("left_out", text))
    kept = frame[~start]
    for key, column in (("tokens", "D"), ("flops", "C")):
        if column in kept and key in names:
            one_unit(kept[column], names[key])
    return kept.copy()


def _complete(
    frame: pd.DataFrame,
    assumed: dict[str, object],
    cautions: list[Caution],
    table: pd.DataFrame,
    names: dict[str, str],
    choices: Choices,
) -> None:
    """The missing one of N, D and C, from C = 6 N D. UserError with a proposal where two are missing."""
    missing = [name for name in ("N", "D", "C") if name not in frame]
    if len(missing) > 1 and "C" in missing:
        lacking = "compute, or for model size and tokens" if len(missing) == 3 else _LACKING[missing[0]]
        raise proposal(table, names, lacking, choices.table if choices.source == "table" else "")
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


def _labels(frame: pd.DataFrame, table: pd.DataFrame, names: dict[str, str]) -> None:
    """variant, run, seed, pair and the columns runs may not differ in. Adds them to the frame."""
    part = table.loc[frame.index]
    if "variant" in names:
        variant = _named_cells(part, names["variant"])
    elif "structure" in names:
        variant = _named_cells(part, names["structure"])
        if "moe" in names:
            moe = words(part[names["moe"]])
            plain_ = moe.str.lower().isin(("none", "nan", "", "dense", "false", "0", "0.0"))
            variant = variant.where(plain_, variant + "+" + moe)
    else:
        variant = pd.Series("all", index=part.index)
    frame["variant"] = variant
    for key in ("seed", "schedule", "optimizer", "data", "task"):
        if key in names:
            frame[key] = words(part[names[key]])
    if "run" in names:
        seed = [("/s", frame["seed"])] if "seed" in frame else []
        frame["run"] = _joined(("", variant), ("/", _named_cells(part, names["run"])), *seed)
    else:
        frame["run"] = [f"row {i + 1}" for i in part.index]
    size = frame["width"].where(frame["width"].notna(), frame.get("N", np.nan))
    frame["pair"] = _joined(("", size), ("/", frame["seed"])) if "seed" in frame else frame["run"]


def _joined(*parts: tuple[str, pd.Series]) -> pd.Series:
    """Columns after their separators as one text, numbers to six digits; made once for all rows that are alike."""
    columns = [pd.factorize(column) for _, column in parts]
    codes, first_row = np.zeros(len(parts[0][1]), np.int64), np.zeros(0, int)
    for each, _ in columns:
        _, first_row, codes = np.unique(codes * (each.max() + 2) + each + 1, return_index=True, return_inverse=True)
    texts = ["" for _ in first_row]
    for separator, column in parts:
        for k, value in enumerate(column.iloc[first_row]):
            texts[k] += separator + (f"{value:.6g}" if isinstance(value, float) else str(value))
    return pd.Series(np.array(texts, object)[codes], index=parts[0][1].index)


def _named_cells(part: pd.DataFrame, name: str) -> pd.Series:
    """Text of a column of names. UserError for an empty cell, and for names that differ in case or spaces alone."""
    given = (
        part[name] if is_text(part[name]) else part[name].map(lambda value: value if isinstance(value, str) else None)
    )
    cells = words(part[name])
    if (cells == "").any():
        row = first(cells == "")
        raise UserError(f"row {part.index[row] + 1}, column '{name}': the cell is empty; name it, or take the row out")
    shown: dict[str, tuple[str, int]] = {}
    firsts = given.dropna().drop_duplicates()
    for row, text in zip(firsts.index.tolist(), firsts.tolist(), strict=True):
        other = shown.setdefault(" ".join(text.lower().split()), (text, row))
        if other[0] != text:
            raise UserError(
                f"row {row + 1}, column '{name}': '{text}' and '{other[0]}' (row {other[1] + 1}) differ in case or "
                f"spaces alone; write them alike, or pick one with where='{_asked(name)} == \"{text}\"'"
            )
    return cells


def _asked(name: str) -> str:
    """A column as ``where`` names it."""
    return name if name.replace(".", "").replace("_", "").isalnum() else "variant"
