"""How does a program fit laws to its own table? ``fit``: a table in memory or a file, columns by name, laws back.

Nothing is written and nothing printed; ``structlin.laws.run`` writes laws.json, figures and the report.
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from structlin.errors import UserError, suggest
from structlin.laws.approaches.fit import fit_laws
from structlin.laws.approaches.laws import Laws
from structlin.laws.choices import ALL, Choices
from structlin.laws.evaluations import own, source
from structlin.laws.evaluations.files import named, provenance, read_file
from structlin.laws.evaluations.points import choose
from structlin.laws.run import enrich

# Choices that say where things lie and what is written: the arguments of ``fit`` say the first, and nothing is written.
_NOT_HERE = (
    "source", "runs", "out", "table", "columns", "project", "dir", "cache", "figures", "report", "predict",
    "predict_loss", "forecast", "score",
)  # fmt: skip


def fit(
    data: pd.DataFrame | str | os.PathLike[str],
    *,
    params: str | None = None,
    tokens: str | None = None,
    loss: str | None = None,
    structure: str | None = None,
    run: str | None = None,
    flops: str | None = None,
    **choices: object,
) -> Laws:
    """All laws of a table with one row an evaluation: frontier, isoFLOP, L(N, D), multipliers, and their cautions.

    ``data``: a DataFrame, which stays as it is, or the path of a csv, tsv, parquet or json-lines file. The others name
    its columns; one that is not named is found by common spellings (N, D, L, flops, arch, ...). A table of this
    project's runs without names is read as the runs themselves. ``choices``: any of ``structlin.laws.choices``, as
    where="D > 1e8", bootstrap=100, units={"tokens": "B"}. Loss in nats per token; where there are no FLOPs,
    C = 6 N D, with a caution. ValueError in one line for a column, row, value or choice that is no good. Worked through
    in docs/tutorials/laws.ipynb; what the fits are stands in docs/laws.md.
    """
    named = {"params": params, "tokens": tokens, "loss": loss, "structure": structure, "run": run, "flops": flops}
    columns = {key: name for key, name in named.items() if name is not None}
    chosen = Choices(source="table", table="a table in memory", columns=columns, **_typed(choices))
    table = _table(data)
    is_own = not columns and own.is_own(table)
    if is_own and isinstance(data, str | os.PathLike):
        table = own.with_corpus(table, provenance(Path(data)).get("corpus", {}))
    frame, assumed, cautions = (own.from_runs if is_own else source.from_table)(table, chosen)
    return enrich(fit_laws(choose(frame, chosen, assumed, cautions, own=is_own), chosen))


def _table(data: object) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return named(data, "data")
    if isinstance(data, str | os.PathLike):
        return read_file(Path(data))
    raise UserError(f"data is a {type(data).__name__}; fit takes a DataFrame or the path of a table")


def _typed(choices: dict[str, object]) -> dict[str, Any]:
    """Choices in the types of their fields, as numbers are given for words (offset=0.5)."""
    kinds = {field.name: str(field.type) for field in fields(Choices) if field.name not in _NOT_HERE}
    for key in choices:
        if key not in kinds:
            raise UserError(f"fit takes no {key}; {suggest(key, kinds)}")
    return {key: _as(kinds[key], key, value) for key, value in choices.items()}


def _as(kind: str, key: str, value: object) -> Any:
    """One value, or UserError with what would be right."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "str" and (isinstance(value, str) or is_number):
        return str(value)
    if kind == "int" and isinstance(value, int) and is_number:
        return value
    if kind.startswith("float") and (is_number or (value is None and "None" in kind)):
        return value
    if kind == "tuple[str, ...]" and isinstance(value, list | tuple | str):
        return tuple(str(one) for one in ([value] if isinstance(value, str) else value))
    if kind.startswith("tuple") and isinstance(value, list | tuple):
        return tuple(_as("float", key, one) for one in value)
    if key == "units" and value == "text":
        return {ALL: "text"}
    if kind.startswith("dict") and isinstance(value, dict):
        return {str(name): str(one) for name, one in value.items()}
    wanted = {"str": "text", "int": "a whole number", "float": "a number"}
    raise UserError(f"{key} = {value!r}: it takes {wanted.get(kind, 'numbers' if kind[0] == 't' else 'a mapping')}")
