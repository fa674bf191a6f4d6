"""How do the words of a command line become configs? The only file that knows Hydra.

Comma lists are axes of a sweep (Hydra itself refuses them without --multirun): they are read by Hydra's own
OverridesParser, group axes compose one config each, value axes are set on it. doors.py makes typed requests of them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from structlin.config.files import CONFIG_DIR as CONFIG_DIR
from structlin.errors import UserError, one_line, suggest
from structlin.structure import CATALOG, FAMILIES

# A size of theta as typed: 0, .5, 1/3, 1/4*1.
_SIZE = r"\s*[0-9./]+(?:\*[0-9./]+)?\s*"
NUMBERS_OF_TWO = 7
"""Numbers of a theta of two factors."""
NAMED = "named"
"""The option of ``structure`` that every name of the catalogue and of the families stands for."""


# --- from arguments to composed configs -------------------------------------------------------------------------


def composed_configs(root: str, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One plain config per combination of the axes, groups composed by Hydra, values set on a copy."""
    # start=runs/ID@STEP is one key of a group that has others; nested=[1/2,1] is what its only key says.
    arguments = [re.sub(r"^start=", "start.run=", argument) for argument in arguments]
    arguments = [re.sub(r"^nested=", "nested.menu=", argument) for argument in arguments]
    parsed = _parse([_protect(argument) for argument in arguments])
    _check_names(root, parsed)
    fixed = [word for override in parsed if not override.is_sweep_override() for word in _words(override)]
    axes = [override for override in parsed if override.is_sweep_override() and override.key_or_group != "budget"]
    # Budgets vary no run of their own: a list of them is one value, not an axis that composes every run anew.
    for override in parsed:
        if override.is_sweep_override() and override.key_or_group == "budget":
            fixed.append(f"budget=[{','.join(map(str, _choices(override)))}]")
    group_axes = [axis for axis in axes if axis.key_or_group in groups()]
    value_axes = [axis for axis in axes if axis.key_or_group not in groups()]
    composed = _Composed(root, fixed)
    for choices in itertools.product(*(_choices(axis) for axis in group_axes)):
        config = composed.of({axis.key_or_group: str(choice) for axis, choice in zip(group_axes, choices, strict=True)})
        for values in itertools.product(*(_choices(axis) for axis in value_axes)):
            yield _with_values(config, [axis.key_or_group for axis in value_axes], values)


class _Composed:
    """Plain configs by the options of the varied groups; structures that only have another name share one."""

    def __init__(self, root: str, fixed: Sequence[str]) -> None:
        self._root, self._fixed = root, fixed
        self._found: dict[tuple[str, ...], dict[str, Any]] = {}

    def of(self, picked: Mapping[str, str]) -> dict[str, Any]:
        """The config of these options."""
        name = picked.get("structure", "")
        options = {**picked, "structure": NAMED} if is_named(name) else dict(picked)
        words = tuple(f"{group}={option}" for group, option in options.items())
        if words not in self._found:
            self._found[words] = _plain(composed(self._root, [*self._fixed, *words]))
        found = self._found[words]
        return _with_values(found, ["structure.name"], [name]) if is_named(name) else found


def is_named(structure: str) -> bool:
    """Whether an option of ``structure`` is a name of the catalogue or of a family, which needs no file."""
    return structure in CATALOG or structure in FAMILIES


def _words(override: Override) -> list[str]:
    """An override as Hydra takes it: a structure's name is a value of the option for all names."""
    if override.key_or_group == "structure" and is_named(str(override.value())):
        return [f"structure={NAMED}", f"structure.name={override.value()}"]
    return [str(override.input_line)]


def _parse(arguments: Sequence[str]) -> list[Override]:
    parsed: dict[str, Override] = {}
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            raise UserError(f"'{argument}' is no key=value; try --help")
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:
            raise UserError(f"cannot read '{argument}': {_unread(argument)}") from None
        if override.is_add() or override.is_delete():
            raise UserError(f"'{argument}': keys are set as key=value, neither added with + nor removed with ~")
        if override.package is not None:
            raise UserError(f"'{argument}': a key has no @; write {override.key_or_group}=...")
        # As in Hydra, what is said last counts.
        parsed[override.key_or_group] = override
    return list(parsed.values())


def _unread(argument: str) -> str:
    """What is wrong with words that Hydra's grammar refuses, in the words of a user."""
    key, _, value = argument.partition("=")
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            return f"{opening if value.count(opening) > value.count(closing) else closing} has no other half"
    if any(value.count(quote) % 2 for quote in "'\""):
        return "a quotation mark has no other half"
    if any(not part.strip() for part in value.split(",")):
        return f"a place of the list is empty; write {key}={','.join(p.strip() for p in value.split(',') if p.strip())}"
    return f"a text with such characters stands in two kinds of quotes: {key}='\"...\"'"


TEXTS = (
    "name",
    "runs",
    "data.root",
    "data.path",
    "data.column",
    "grid.laws",
    "search.arms",
    "tracking.project",
    "status",
    "start.run",
)
"""Keys whose value is one text as it stands, like those of fit_laws.py: a path may have blanks, brackets and commas."""


def _protect(argument: str) -> str:
    """Quote a text or a theta; quotes that are typed around a whole value are the same as none."""
    key, _, value = argument.partition("=")
    if key in TEXTS and value and value not in ("null", "true", "false") and not _is_list_of_files(key, value):
        plain = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
        escaped = plain.replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}='{escaped}'"
    return _protect_theta(argument)


def _is_list_of_files(key: str, value: str) -> bool:
    """data.path=a.txt,b.txt is an axis, unless a file has that name."""
    return key == "data.path" and "," in value and not set("[]{}'\"") & set(value) and not Path(value).exists()


def _protect_theta(argument: str) -> str:
    """Quote a theta, so that its numbers are one value, neither choices of an axis nor a grammar that Hydra refuses.

    ``structure.theta=1/3,0,..``, ``structure.theta=(1/3|0|..)`` and ``structure.theta=x1=1/3 x12=1/3 ..`` are one
    theta; several are written one after another in parentheses, separated by commas.
    """
    key, _, value = argument.partition("=")
    if key in PATHS:
        return f"{key}={_quoted_paths(value)}"
    if key not in ("structure.theta", "structure.rho") or value.startswith(("'", '"')):
        return argument
    is_one = ("=" in value and "(" not in value) or bool(re.fullmatch(rf"{_SIZE}(?:[,|]{_SIZE})*", value))
    # Seven values are one theta whatever they are: a mistake in one of them is said of the theta.
    is_one = is_one or ("(" not in value and value.count(",") == NUMBERS_OF_TWO - 1)
    if is_one and key == "structure.theta":
        return f"{key}='{value}'"
    thetas = re.findall(r"\([^()]*\)", value)
    if thetas and re.sub(r"\([^()]*\)", "", value).strip(", ") == "":
        return f"{key}=" + ",".join(f"'{theta}'" for theta in thetas)
    return argument


PATHS = ("runs", "data.path", "data.root", "data.tokenizer", "structure.ranks")
"""Keys whose values are paths, in which Hydra's grammar refuses what file systems take: ~, =, blanks, brackets."""


def _quoted_paths(value: str) -> str:
    """Paths quoted for Hydra where they need it; commas still divide several."""
    if not value or value[0] in "'\"[" or re.fullmatch(r"[\w./*?,%+@:-]*", value):
        return value
    return ",".join("'" + part.replace("\\", "\\\\").replace("'", "\\'") + "'" for part in value.split(","))


def _check_names(root: str, parsed: Iterable[Override]) -> None:
    """Refuse unknown groups, options and keys, suggesting the nearest valid one."""
    parsed = list(parsed)
    keys: set[str] = set()
    for override in parsed:
        name = override.key_or_group
        if name not in groups():
            continue
        for choice in _choices(override):
            if choice not in group_options(name):
                raise UserError(f"{name}={choice} is unknown; {suggest(str(choice), group_options(name))}")
            # Each option may bring keys of its own (structure.count of structure=sample).
            keys |= _keys(root) if is_named(str(choice)) and name == "structure" else _keys(root, f"{name}={choice}")
    keys |= _keys(root)
    for override in parsed:
        name = override.key_or_group
        if name not in groups() and name not in keys:
            raise UserError(f"unknown key '{name}'; {suggest(name, [*keys, *groups()])}")


def composed(root: str, overrides: Sequence[str]) -> DictConfig:
    """A door's config with some overrides, as Hydra composes it. UserError where it does not compose."""
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return compose(root, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        raise UserError(f"cannot compose {' '.join(overrides)}: {one_line(cause)}") from None


def _with_values(composed: Mapping[str, Any], keys: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """A copy of a plain config with values set at dotted keys."""
    config = _copied(composed)
    for key, value in zip(keys, values, strict=True):
        *path, name = key.split(".")
        group = config
        for step in path:
            group = group[step]
        group[name] = value
    return config


def _copied(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in config.items()}


def _plain(composed: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise UserError(f"a reference leads nowhere: {one_line(error)}; write values out, without ${{..}}") from None
    assert isinstance(plain, dict)
    return _nulled(plain)


def _nulled(config: dict[Any, Any]) -> dict[str, Any]:
    """Mandatory values that were not given ("???") as None, so that each reader can name what it misses."""
    return {key: _nulled(v) if isinstance(v, dict) else (None if v == "???" else v) for key, v in config.items()}


def _choices(override: Override) -> list[Any]:
    """The values of an override in Python: one, or those of a comma list, range or glob."""
    if not override.is_sweep_override():
        return [override.value()]
    value = override.value()
    if isinstance(value, Glob):
        return list(value.filter(group_options(override.key_or_group)))
    plain = OverridesParser.create()
    return [plain.parse_override(f"value={text}").value() for text in override.sweep_string_iterator()]


@cache
def schedule_of(scale: str) -> str:
    """The kind of schedule that runs of a scale have where nothing else asks for one."""
    return str(composed("train", [f"scale={scale}"])["schedule"]["kind"])


def groups() -> list[str]:
    """Hydra's groups that can be chosen. A study is a list of arguments (config/study.py); settings are brought by a
    task, its model and its data together (configs/train.yaml)."""
    hidden = ("study", "setting")
    return sorted(folder.name for folder in CONFIG_DIR.iterdir() if folder.is_dir() and folder.name not in hidden)


def group_options(group: str) -> list[str]:
    """What a group can be; a structure also any name of the catalogue and of the families."""
    files = {path.stem for path in (CONFIG_DIR / group).glob("*.yaml")}
    return sorted(files - {NAMED} | {*CATALOG, *FAMILIES} if group == "structure" else files)


@cache
def _keys(root: str, *overrides: str) -> frozenset[str]:
    """Every key of a composed config; composing takes a tenth of a second, so each is kept."""
    return frozenset(_flat_keys(composed(root, overrides)))


def _flat_keys(config: DictConfig, prefix: str = "") -> set[str]:
    keys = set()
    for key in map(str, config):
        node = config._get_node(key)
        keys.add(f"{prefix}{key}")
        if isinstance(node, DictConfig):
            keys |= _flat_keys(node, f"{prefix}{key}.")
    return keys
