"""How do runs that stand side by side become rows? W&B's export of a chart, facts joined by run, facts in run names.

W&B writes a chart as one column a run, ``NAME - val_loss``, with ``NAME - val_loss__MIN`` and ``__MAX`` beside it.
``melted`` puts them below each other. What a chart lacks (model size, structure, seed) comes from a small table of runs
(``joined``) or from the names themselves (``from_names``).
"""

from __future__ import annotations

import re

import pandas as pd

from structlin.errors import UserError, suggest
from structlin.laws.evaluations.quantities import parsed

_BETWEEN = " - "
_SHADES = ("__MIN", "__MAX")


def is_wide(table: pd.DataFrame) -> bool:
    """Whether the columns are runs, as W&B exports a chart."""
    metrics = [_split(name) for name in table.columns]
    named = [metric for metric in metrics if metric is not None]
    shaded = any(str(name).endswith(_SHADES) for name in table.columns)
    return len(named) >= 2 and (shaded or len({metric for _, metric in named}) < len(named))


def melted(table: pd.DataFrame) -> pd.DataFrame:
    """One row a run and step: ``run``, the columns that all runs share, and each metric; empty cells are left out."""
    pairs = {name: pair for name in table.columns if (pair := _split(name)) and not str(name).endswith(_SHADES)}
    shared = [name for name in table.columns if _split(name) is None]
    runs: dict[str, dict[str, str]] = {}
    for name, (run, metric) in pairs.items():
        runs.setdefault(run, {})[metric] = str(name)
    parts = []
    for run, metrics in runs.items():
        own = table[[*shared, *metrics.values()]].rename(columns={name: metric for metric, name in metrics.items()})
        parts.append(own.dropna(subset=list(metrics), how="all").assign(run=run))
    return pd.concat(parts, ignore_index=True)


def _split(name: object) -> tuple[str, str] | None:
    """(run, metric) of ``run - metric``; the last dash between spaces parts them."""
    run, between, metric = str(name).rpartition(_BETWEEN)
    return (run.strip(), metric.strip()) if between and run.strip() and metric.strip() else None


def joined(table: pd.DataFrame, runs: pd.DataFrame, run: str | None) -> pd.DataFrame:
    """The table with the columns of a small table of runs, matched by its column of run names.

    UserError where neither has such a column, or where a run of the table is not in the small one.
    """
    if run is None:
        raise UserError("join=... needs a column of run names in the table; name it: columns='{run: ...}'")
    known = set(table[run].astype("string").str.strip().dropna())
    overlap = {name: len(known & set(runs[name].astype("string").str.strip().dropna())) for name in runs.columns}
    key = max(overlap, key=lambda name: overlap[name], default=None)
    if key is None or not overlap[key]:
        raise UserError(f"join=...: no column holds run names of the table, such as '{next(iter(sorted(known)), '')}'")
    facts = runs.assign(**{key: runs[key].astype("string").str.strip()}).drop_duplicates(key).set_index(key)
    missing = sorted(known - set(facts.index))
    if missing:
        raise UserError(f"join=...: the run '{missing[0]}' has no row there ({len(missing)} such runs)")
    names = table[run].astype("string").str.strip()
    new = {name: names.map(facts[name]) for name in facts.columns if name not in table.columns}
    return table.assign(**new)


def from_names(table: pd.DataFrame, pattern: str, run: str | None) -> pd.DataFrame:
    """The table with columns read off its run names by a pattern such as ``{structure}-{params}-s{seed}``.

    Numbers may be written as 12.5M. UserError for a name that the pattern does not fit.
    """
    if run is None:
        raise UserError("names=... needs a column of run names; name it: columns='{run: ...}'")
    keys = re.findall(r"\{(\w+)\}", pattern)
    if not keys or len(set(keys)) < len(keys):
        raise UserError(
            f"names={pattern} names no columns, or one twice; write for example names='{{structure}}-{{params}}'"
        )
    fixed = re.split(r"\{\w+\}", pattern)
    expression = "".join(re.escape(part) + ("(.+?)" if i < len(keys) else "") for i, part in enumerate(fixed))
    names = table[run].astype("string").fillna("")
    found = names.str.strip().str.extract(f"^{expression}$")
    bad = found.isna().any(axis=1)
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise UserError(
            f"row {row + 1}, column '{run}': names={pattern} does not fit '{names.iloc[row]}'; {suggest('', keys)}"
        )
    columns = {}
    for place, key in enumerate(keys):
        numbers = found[place].map(parsed)
        columns[key] = found[place] if numbers.isna().any() else numbers.astype(float)
    return table.assign(**columns)
