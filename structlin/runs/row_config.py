"""Which config does a row of the table hold, and which id would its run get today?"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from structlin.config.identity import of_one_model, run_id, science_from
from structlin.config.moe import MoeConfig
from structlin.config.science import SCHEMA, numerics_of


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
    moe = MoeConfig(row["config.moe.kind"], int(row["config.moe.num_experts"]), 1, layers=row["config.moe.layers"])
    now = numerics_of(row["config.model.dtype"], row["config.task"], moe)
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
