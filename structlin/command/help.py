"""What can be said to sweep and train? --help: every key with its default, its unit and one line, by group.

The lines stand in configs/help.yaml; ``--help structure`` (or any word of a group's name) shows one group alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import yaml
from omegaconf import OmegaConf

from structlin.config.compose import NAMED, composed, group_options, groups
from structlin.config.files import CONFIG_DIR
from structlin.config.study import studies
from structlin.errors import UserError, suggest

WIDTH = 100
KEY_WIDTH = 30
# A sweep plans them itself.
_OF_TRAIN = ("tokens", "model.d_model")


@cache
def lines() -> dict[str, dict[str, tuple[str, str]]]:
    """Group -> key -> (unit, what it says)."""
    found = yaml.safe_load((CONFIG_DIR / "help.yaml").read_text())
    return {group: {key: (str(unit), str(said)) for key, (unit, said) in rows.items()} for group, rows in found.items()}


@cache
def defaults(root: str) -> dict[str, tuple[str, str]]:
    """Key -> (default, the option that brings it or nothing), of everything that a door takes."""
    found = {key: (value, "") for key, value in _of(root).items()}
    for group in groups_of(root):
        for option in _of_its_own(group):
            if _brings_nothing(group, option, found):
                continue
            try:
                own = _of(root, f"{group}={option}")
            except UserError:  # an option that needs another beside it brings no key that others do not
                continue
            for key, value in own.items():
                found.setdefault(key, (value, f"{group}={option}"))
    found |= {group: (option, "") for group, option in _chosen_options(root).items()}
    if root == "sweep":
        found["study"] = ("", "")
    return {key: value for key, value in found.items() if root == "train" or key not in _OF_TRAIN}


def page(root: str, arguments: Iterable[str] = ()) -> str:
    """The text of --help. UserError for a group that is not there."""
    known = defaults(root)
    parts = []
    for group in _asked([word for word in arguments if word.lstrip("-") not in ("h", "help")]):
        rows = [_row(key, unit, said, *known[key]) for key, (unit, said) in lines()[group].items() if key in known]
        if rows:
            parts.append("\n".join([group.upper(), *rows]))
    parts.append("\n".join(["OPTIONS", *_options(root)]))
    said = "Commas make a sweep: seed=0,1. A list that is one value stands in brackets: [64,128]."
    return "\n\n".join([*parts, said if root == "sweep" else "--help model, and the like, shows one group alone."])


def _asked(words: list[str]) -> list[str]:
    """The groups whose names hold the words that were asked for; all without any."""
    names = list(lines())
    for word in words:
        if not any(word in name for name in names):
            raise UserError(f"--help {word}: there is no such group; {suggest(word, names)}")
    return [name for name in names if not words or any(word in name for word in words)]


def _row(key: str, unit: str, said: str, default: str, option: str) -> str:
    """One key: its default, what it means, its unit, and the option that brings it."""
    first = f"  {key}=" + ("" if default in ("None", "???") else default)
    text = ("required: " if default == "???" else "") + said + (f" [{unit}]" if unit else "")
    body = textwrap.wrap(text + (f" (with {option})" if option else ""), WIDTH - KEY_WIDTH - 2)
    pad = " " * (KEY_WIDTH + 2)
    if len(first) > KEY_WIDTH:
        return "\n".join([first, *(pad + line for line in body)])
    return "\n".join([f"{first:<{KEY_WIDTH + 2}}{body[0]}", *(pad + line for line in body[1:])])


def _options(root: str) -> list[str]:
    """What every group can be."""
    found = {group: group_options(group) for group in groups_of(root)}
    if root == "sweep":
        found["study"] = studies(CONFIG_DIR / "study")
    rows = []
    for group, options in found.items():
        body = textwrap.wrap(" ".join(options), WIDTH - 16)
        rows += [f"  {group + '=':<14}{body[0]}", *(" " * 16 + line for line in body[1:])]
    return rows


def groups_of(root: str) -> list[str]:
    """The groups that a door has."""
    return [group for group in groups() if root == "sweep" or group not in ("grid", "launch")]


def _chosen_options(root: str) -> dict[str, str]:
    """Group -> the option that is taken where none is named."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(("train", root)):
        for entry in yaml.safe_load((CONFIG_DIR / f"{name}.yaml").read_text())["defaults"]:
            found |= entry if isinstance(entry, dict) else {}
    # What a task's model brings on a data set is nothing that is chosen.
    found = {group: option for group, option in found.items() if not group.startswith("optional ")}
    return found | {"structure": yaml.safe_load((CONFIG_DIR / "structure" / f"{NAMED}.yaml").read_text())["name"]}


def _of_its_own(group: str) -> list[str]:
    """Options of a group that are files: names of structures bring no keys."""
    files = {path.stem for path in (CONFIG_DIR / group).glob("*.yaml")}
    return [option for option in group_options(group) if option in files]


def _brings_nothing(group: str, option: str, known: Mapping[str, object]) -> bool:
    """Whether an option's file has keys alone that are known; to put all configs together takes seconds."""
    raw = yaml.safe_load((CONFIG_DIR / group / f"{option}.yaml").read_text()) or {}
    chosen = raw.pop("defaults", [])
    # Another group's option, or a parent, may bring what does not stand in this file.
    if any(isinstance(entry, dict) for entry in chosen):
        return False
    return all(f"{group}.{key}" in known for key in _flat(raw))


def _of(root: str, *overrides: str) -> dict[str, str]:
    """Dotted key -> its value as it is typed, of a composed config."""
    plain: Any = OmegaConf.to_container(composed(root, overrides), throw_on_missing=False)
    return _flat(plain)


def _flat(plain: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """The same of a plain mapping; groups stand with an empty value."""
    found: dict[str, str] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            found[f"{prefix}{key}"] = ""
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _typed(value)
    return found


def _typed(value: Any) -> str:
    """A value as a command line says it."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
