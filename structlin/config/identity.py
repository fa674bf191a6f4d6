"""Which run is this? The id is a hash of all of Science, fully resolved, in canonical JSON.

It never hashes a difference from defaults, or editing a default would relabel old runs. A stored config of an older
schema is matched through ``upgrade``, which fills in the historical value of every field added since.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from structlin.config.model import MODELS, ModelConfig
from structlin.config.science import SCHEMA, Science
from structlin.errors import UserError, suggest

T = TypeVar("T")
ID_LENGTH = 16
_IDLE: dict[str, dict[str, float]] = {
    "constant": {"final": 1.0, "cooldown_fraction": 0.0},
    "cosine": {"cooldown_fraction": 0.0},
    "cooldown": {},
}
"""What a schedule never reads has one value: the trunk of a cooldown is that of a frontier, whatever its decay."""


def canonical_json(science: Science) -> str:
    """The one text of a Science: sorted keys, no spaces, floats by repr."""
    return json.dumps(to_mapping(science), sort_keys=True, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=65_536)
def run_id(science: Science) -> str:
    """16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(science).encode()).hexdigest()[:ID_LENGTH]


def id_of_stored(stored: Mapping[str, Any]) -> str:
    """The id that a stored config had under its own schema."""
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def to_mapping(science: Science) -> dict[str, Any]:
    """A Science as nested plain values; data enter by their recipe's own identity, which knows no paths."""
    plain: dict[str, Any] = json.loads(_text(science))
    return plain


# The cells of a sweep ask again for the few runs that they lie on.
@lru_cache(maxsize=8192)
def _text(science: Science) -> str:
    """``to_mapping`` in JSON, in the order of the fields."""
    values = _values(science)
    values["data"] = science.data.to_dict()
    values["schedule"].update(_IDLE[science.schedule.kind])
    if science.start.parent is not None:
        values["start"]["parent"] = to_mapping(science.start.parent)
    return json.dumps(values)


def _values(value: Any) -> Any:
    """Nested fields by name. ``dataclasses.asdict`` copies every leaf and takes four times as long."""
    if dataclasses.is_dataclass(value):
        return {name: _values(one) for name, one in vars(value).items()}
    return value


def upgrade(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored Science of any schema as one of the current schema.

    UserError when it was written by a newer version of this project.
    """
    schema = stored.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA or schema < 1:
        raise UserError(f"config has schema {schema!r}, this version reads 1 to {SCHEMA}; update structlin")
    upgraded = dict(stored)
    for version in range(schema, SCHEMA):
        upgraded = _UPGRADES[version](upgraded)
    start = upgraded.get("start")
    if isinstance(start, Mapping) and isinstance(start.get("parent"), Mapping):
        upgraded["start"] = {**start, "parent": upgrade(start["parent"])}
    return upgraded


def _from_1(stored: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 knew neither experts, head layouts nor a fixed number of heads."""
    return {
        **stored,
        "schema": 2,
        "moe": {"kind": "none"},
        "structure": {**stored["structure"], "head_layout": "none"},
        "model": {**stored["model"], "num_heads": None},
    }


def _from_2(stored: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 had one order of output axes, the cheapest contraction, one rank for all, and a start by the seed."""
    structure = {**stored["structure"], "output_order": "fed", "contraction": "cheapest", "ranks": "none"}
    return {**stored, "schema": 3, "structure": structure, "guide": "none", "start": "none", "nested": "none"}


def _from_3(stored: dict[str, Any]) -> dict[str, Any]:
    """Schema 3 had no biases, no zero start but that of branches and head, one cap an expert, routers from zero."""
    own: dict[str, dict[str, Any]] = {
        "gpt2": {"biases": [], "zero_start": [], "weight_norm_experts": "own"},
        "mlp": {"biases": [], "outer_norm": "output"},
    }
    model = stored["model"]
    moe = {**stored["moe"], "router_start": "zero"}
    return {**stored, "schema": 4, "model": {**model, **own.get(model.get("name"), {})}, "moe": moe}


def _from_4(stored: dict[str, Any]) -> dict[str, Any]:
    """Schema 4 had one recipe: learned positions, normed queries and keys, branches by depth, an untied head.

    It guided no run, drew all first weights, had no labelled images to augment, and an MLP whose input learnt at its
    own rate.
    """
    start = {"init": "spectral", "init_std": 0.02}
    plain: dict[str, Any] = {
        "positions": "learned",
        "tied": False,
        "kv_heads": None,
        "attention_width": None,
        "qk_norm": True,
        "branch_scale": "depth",
        "logit_scale": "mup",
    }
    own = {"gpt2": start | plain, "mlp": {**start, "input_rate": 1.0}}
    model, optim = stored["model"], {**stored["optim"], "decayed": ["factor", "embedding", "router"]}
    new: dict[str, Any] = {
        "guide": {"kind": "none", "share": None, "steps": None, "match": "none"},
        "start": {"parent": None, "step": 0, "share": None, "conversion": "nearest", "calibration_tokens": 0},
        "augment": {},
    }
    return {**stored, "schema": 5, "model": {**model, **own.get(model.get("name"), {})}, "optim": optim, **new}


_UPGRADES = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4}
"""Schema -> how a config of it becomes one of the next."""


def science_from(stored: Mapping[str, Any]) -> Science:
    """The typed Science of a stored mapping (upgraded). UserError for fields that do not fit."""
    return build(Science, upgrade(stored), "config")


def build(cls: type[T], values: Mapping[str, Any], path: str) -> T:
    """A dataclass from plain values; whole floats become ints where an int is asked for.

    UserError names the path of an unknown key or of a value of the wrong kind, and the valid keys.
    """
    hints = _hints(typing.cast(Any, cls))
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise UserError(f"unknown key {path}.{key}; {suggest(str(key), names)}")
    return cls(**{key: _coerce(hints[key], value, f"{path}.{key}") for key, value in values.items()})


@lru_cache(maxsize=16_384)
def _built(cls: type[T], text: str, path: str) -> T:
    """A group of a config from its JSON: thousands of runs have few groups that differ."""
    return build(cls, json.loads(text), path)


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Types of the fields; finding them takes longer than building the dataclass."""
    return typing.get_type_hints(cls)


def _coerce(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{path} = {value!r} should be a group of keys")
        if hint is ModelConfig:
            hint = _model_class(value, path)
        try:
            return _built(typing.cast(Any, hint), json.dumps(value), path)
        except TypeError:  # a path, say
            return build(typing.cast(type[Any], hint), value, path)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else _coerce(options[0], value, path)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            value = [value]
        return tuple(_coerce(typing.get_args(hint)[0], item, path) for item in value)
    return _scalar(hint, value, path)


def _model_class(values: Mapping[str, Any], path: str) -> type[ModelConfig]:
    """The class of a model by its name."""
    name = values.get("name")
    if name not in MODELS:
        raise UserError(f"{path}.name = {name!r} is unknown; {suggest(str(name), MODELS)}")
    return MODELS[name]


def of_one_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """A model's values out of a table that holds other models too.

    Keys that it has not are empty there and are left out; its whole numbers, which a column with empty cells holds as
    floats, are whole again.
    """
    if values.get("name") not in MODELS:
        return dict(values)
    hints = _hints(MODELS[values["name"]])
    whole = {key for key, hint in hints.items() if hint is int or int in typing.get_args(hint)}
    return {
        key: int(value) if key in whole and isinstance(value, float) else value
        for key, value in values.items()
        if key in hints or value is not None
    }


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    if hint is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer():
        return int(value)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    raise UserError(f"{path} = {value!r} should be {words.get(hint, hint)}")
