"""How does a command line become a typed request? The only file that knows Hydra.

Comma lists are axes of a sweep (Hydra itself refuses them without --multirun): they are read by Hydra's own
OverridesParser, group axes compose one config each, value axes are set on it. After this file nobody meets a
DictConfig.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from structlin.config.identity import build
from structlin.config.launch import Action, LaunchConfig, SlurmLaunch, automatic, launch_kind
from structlin.config.model import MODELS
from structlin.config.request import GridConfig, Site, SweepRequest, Template, TrainRequest
from structlin.config.science import Science
from structlin.config.study import expand_study, studies
from structlin.errors import UserError, one_line, suggest
from structlin.structure import resolve
from structlin.structure.sample import sample_thetas

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"
# A number of theta as typed: 0, .5, 1/3.
_NUMBER = r"\s*[0-9.]+(?:/[0-9]+)?\s*"


def train_request(arguments: Sequence[str]) -> TrainRequest:
    """The request of ``python train.py ARGUMENTS``. UserError for anything that does not compose."""
    configs = list(_compose("train", arguments))
    if len(configs) != 1:
        raise UserError(f"train.py trains one run, but the lists ask for {len(configs)}; use sweep.py")
    config = configs[0]
    width, tokens = config["model"].pop("d_model"), config.pop("tokens")
    if width is None or tokens is None:
        raise UserError("train.py needs a width and a length: model.d_model=512 tokens=1e7")
    templates = _templates(config)
    if len(templates) != 1:
        raise UserError(f"structure=sample names {len(templates)} thetas, but train.py trains one; use sweep.py")
    return TrainRequest(templates[0], _whole("model.d_model", width), _whole("tokens", tokens), _site(config))


def sweep_request(arguments: Sequence[str]) -> SweepRequest:
    """The request of ``python sweep.py ARGUMENTS``. UserError for anything that does not compose."""
    templates: dict[Template, None] = {}
    budgets: dict[float, None] = {}
    plain: list[dict[str, Any]] = []
    arguments = [f"launch={automatic()}" if argument == "launch=auto" else argument for argument in arguments]
    lines, study = expand_study(arguments, CONFIG_DIR / "study")
    for config in itertools.chain.from_iterable(_compose("sweep", line) for line in lines):
        if config["model"].pop("d_model") is not None or config.pop("tokens") is not None:
            raise UserError(
                "a sweep plans widths and tokens itself; by hand they are grid.widths=[..] grid.tokens=[..]"
            )
        budgets.update(dict.fromkeys(_numbers("budget", config["budget"])))
        templates.update(dict.fromkeys(_templates(config)))
        plain.append(config)
    config = _of_whole_sweep(plain)
    launch = _launch(config["launch"])
    site = _site(config)
    if isinstance(launch, SlurmLaunch):
        site = replace(site, machine=site.placement.as_it_runs(launch.speed_key))
    return SweepRequest(
        templates=tuple(templates),
        budgets=tuple(sorted(budgets)),
        grid=build(GridConfig, config["grid"], "grid"),
        launch=launch,
        action=build(Action, {key: config[key] for key in ("retry", "cancel", "status", "watch")}, "config"),
        site=site,
        name=None if config["name"] is None else str(config["name"]),
        dry_run=_flag("dry_run", config["dry_run"]),
        format=str(config["format"]),
        command=shlex.join(["python", "sweep.py", *(lines[0] if len(lines) == 1 else arguments)]),
        study=study,
    )


def _of_whole_sweep(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The config that says how a sweep is planned, run and shown; UserError where a list would vary that."""
    first = configs[0]
    for config in configs[1:]:
        pairs = [("max_epochs", config["data"], first["data"]), ("root", config["data"], first["data"])]
        for group in ("grid", "launch", "tracking"):
            pairs += [(key, config[group], first[group]) for key in first[group]]
        pairs += [(key, config, first) for key in first if not isinstance(first[key], Mapping)]
        for key, here, there in pairs:
            if key not in ("budget", "seed") and here[key] != there[key]:
                raise UserError(
                    f"{key} belongs to the sweep as a whole and takes one value, not {there[key]!r} and {here[key]!r}; "
                    "a list of its own stands in brackets: grid.widths=[64,128]"
                )
    return first


def options(root: str) -> str:
    """The text of --help: the groups with their options, and the default config as YAML."""
    groups = "\n".join(f"  {group}={'|'.join(_group_options(group))}" for group in _groups())
    keys = OmegaConf.to_yaml(_composed(root, []))
    if root == "sweep":
        groups += f"\n  study={'|'.join(studies(CONFIG_DIR / 'study'))} study.size=small|paper"
    return f"groups:\n{groups}\n\nkeys (as key=value; commas make a sweep):\n{keys}"


# --- from arguments to composed configs -------------------------------------------------------------------------


def _compose(root: str, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One plain config per combination of the axes, groups composed by Hydra, values set on a copy."""
    parsed = _parse([_protect(argument) for argument in arguments])
    _check_names(root, parsed)
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    axes = [override for override in parsed if override.is_sweep_override() and override.key_or_group != "budget"]
    # Budgets vary no run of their own: a list of them is one value, not an axis that composes every run anew.
    for override in parsed:
        if override.is_sweep_override() and override.key_or_group == "budget":
            fixed.append(f"budget=[{','.join(map(str, _choices(override)))}]")
    group_axes = [axis for axis in axes if axis.key_or_group in _groups()]
    value_axes = [axis for axis in axes if axis.key_or_group not in _groups()]
    for choices in itertools.product(*(_choices(axis) for axis in group_axes)):
        picked = [f"{axis.key_or_group}={choice}" for axis, choice in zip(group_axes, choices, strict=True)]
        composed = _plain(_composed(root, [*fixed, *picked]))
        for values in itertools.product(*(_choices(axis) for axis in value_axes)):
            yield _with_values(composed, [axis.key_or_group for axis in value_axes], values)


def _parse(arguments: Sequence[str]) -> list[Override]:
    parsed: dict[str, Override] = {}
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            raise UserError(f"'{argument}' is no key=value; try --help")
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException as error:
            raise UserError(f"cannot read '{argument}': {one_line(error).split('See https')[0].strip()}") from None
        if override.is_add() or override.is_delete():
            raise UserError(f"'{argument}': keys are set as key=value, neither added with + nor removed with ~")
        # As in Hydra, what is said last counts.
        parsed[override.key_or_group] = override
    return list(parsed.values())


def _protect(argument: str) -> str:
    """Quote a theta, so that its seven numbers are one value and not seven choices of an axis.

    ``structure.theta=1/3,0,..`` and ``structure.theta=(1/3|0|..)`` are one theta; several are written
    one after another in parentheses, separated by commas.
    """
    key, _, value = argument.partition("=")
    if key not in ("structure.theta", "structure.rho") or value.startswith(("'", '"')):
        return argument
    if re.fullmatch(rf"{_NUMBER}(?:[,|]{_NUMBER})*", value) and key == "structure.theta":
        return f"{key}='{value}'"
    thetas = re.findall(r"\([^()]*\)", value)
    if thetas and re.sub(r"\([^()]*\)", "", value).strip(", ") == "":
        return f"{key}=" + ",".join(f"'{theta}'" for theta in thetas)
    return argument


def _check_names(root: str, parsed: Iterable[Override]) -> None:
    """Refuse unknown groups, options and keys, suggesting the nearest valid one."""
    parsed = list(parsed)
    keys: set[str] = set()
    for override in parsed:
        name = override.key_or_group
        if name not in _groups():
            continue
        for choice in _choices(override):
            if choice not in _group_options(name):
                raise UserError(f"{name}={choice} is unknown; {suggest(str(choice), _group_options(name))}")
            # Each option may bring keys of its own (structure.count of structure=sample).
            keys |= _keys(root, f"{name}={choice}")
    keys |= _keys(root)
    for override in parsed:
        name = override.key_or_group
        if name not in _groups() and name not in keys:
            raise UserError(f"unknown key '{name}'; {suggest(name, [*keys, *_groups()])}")


def _composed(root: str, overrides: Sequence[str]) -> DictConfig:
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
    plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
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
        return list(value.filter(_group_options(override.key_or_group)))
    plain = OverridesParser.create()
    return [plain.parse_override(f"value={text}").value() for text in override.sweep_string_iterator()]


def _groups() -> list[str]:
    """Hydra's groups; a study is no group but a list of arguments (config/study.py)."""
    return sorted(folder.name for folder in CONFIG_DIR.iterdir() if folder.is_dir() and folder.name != "study")


def _group_options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


@cache
def _keys(root: str, *overrides: str) -> frozenset[str]:
    """Every key of a composed config; composing takes a tenth of a second, so each is kept."""
    return frozenset(_flat_keys(_composed(root, overrides)))


def _flat_keys(config: DictConfig, prefix: str = "") -> set[str]:
    keys = set()
    for key in map(str, config):
        node = config._get_node(key)
        keys.add(f"{prefix}{key}")
        if isinstance(node, DictConfig):
            keys |= _flat_keys(node, f"{prefix}{key}.")
    return keys


# --- from a plain config to typed values ------------------------------------------------------------------------


def _templates(config: Mapping[str, Any]) -> list[Template]:
    """The Sciences a config stands for: one, or one per sampled theta."""
    _check_model(config)
    schedule = dict(config["schedule"])
    kind = schedule.pop("kind")
    data = {key: value for key, value in config["data"].items() if key not in ("root", "max_epochs")}
    templates = []
    for theta in _thetas(config["structure"]):
        science = build(
            Science,
            {
                "structure": {"theta": theta, **{key: config["structure"][key] for key in ("rounding", "head_layout")}},
                "moe": config["moe"],
                "model": {**config["model"], "d_model": _least_width(config["model"])},
                "data": data,
                "optim": config["optim"],
                "schedule": {**schedule, "kind": "constant"},
                "evaluation": config["evaluation"],
                "seed": config["seed"],
                "task": config["task"],
            },
            "config",
        )
        templates.append(Template(science, str(kind)))
    return templates


def _check_model(config: Mapping[str, Any]) -> None:
    """A scale of another task sets fields that the model does not have: say so, and name the scales of the task."""
    name, task = str(config["model"]["name"]), str(config["task"])
    if name not in MODELS:
        return
    fields = {field.name for field in dataclasses.fields(MODELS[name])}
    for key in config["model"]:
        if key not in fields:
            own = "|".join(scale for scale in _group_options("scale") if scale.startswith(task)) or "paper|small"
            raise UserError(f"model={name} has no model.{key}; the scales of task={task} are scale={own}")


def _least_width(model: Mapping[str, Any]) -> Any:
    """A width that fits any model: planning puts the real ones in its place."""
    return model.get("d_head") or model.get("num_heads") or 64


def _thetas(structure: Mapping[str, Any]) -> list[str]:
    name, rounding = structure["name"], str(structure["rounding"])
    if name == "sample":
        bounds = {key: _pair(f"structure.{key}", structure[key]) for key in ("nu", "omega", "psi") if structure[key]}
        sample = sample_thetas(
            _whole("structure.count", structure["count"]), _whole("structure.seed", structure["seed"], 0), bounds
        )
        return [str(theta) for theta in sample]
    theta, rho = structure["theta"], structure["rho"]
    if name == "einsum" and theta is None:
        raise UserError("structure=einsum needs a theta: structure.theta=1/3,0,2/3,0,2/3,1/3,1/4")
    if name != "einsum" and theta is not None:
        raise UserError(f"structure={name} has its own theta; to give one, say structure=einsum structure.theta=...")
    if isinstance(theta, list):
        theta = ",".join(str(number) for number in theta)
    try:
        return [str(resolve(name, theta, None if rho is None else str(rho), rounding))]
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"structure: {error}") from None


def _launch(values: Mapping[str, Any]) -> LaunchConfig:
    return build(launch_kind(str(values["name"])), values, "launch")


def _site(config: Mapping[str, Any]) -> Site:
    placement = {
        key: config[key]
        for key in ("device", "threads", "compile", "recompute", "sharding", "checkpoint_seconds", "log_steps")
    }
    tracking = config["tracking"]
    return build(
        Site,
        {
            "runs": config["runs"],
            "data_root": config["data"]["root"],
            "max_epochs": config["data"]["max_epochs"],
            "evals_per_decade": config["evals_per_decade"],
            "placement": {**placement, "tracking": tracking["name"], "project": tracking["project"]},
        },
        "config",
    )


def _numbers(name: str, value: Any) -> list[float]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f"{name} = {number!r} is not a number such as 1e15")
    return [float(number) for number in values]


def _whole(name: str, value: Any, least: int = 1) -> int:
    numbers = _numbers(name, value)
    if len(numbers) != 1 or not numbers[0].is_integer() or numbers[0] < least:
        raise UserError(f"{name} = {value!r} should be a whole number of at least {least}")
    return int(numbers[0])


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{name} = {value!r} should be true or false")
    return value


def _pair(name: str, value: Any) -> tuple[float, float]:
    numbers = _numbers(name, value)
    if len(numbers) != 2:
        raise UserError(f"{name} = {value!r} should be [low, high]")
    return numbers[0], numbers[1]
