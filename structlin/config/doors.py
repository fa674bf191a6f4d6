"""What do the words of a door ask for? Composed configs become typed requests; after this file nobody meets a dict."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from structlin.config import nested, structured_ffn
from structlin.config.arms import blamed, is_search, search_lines
from structlin.config.checks import LARGEST
from structlin.config.compose import composed_configs, group_options, schedule_of
from structlin.config.files import CONFIG_DIR
from structlin.config.grid import DESIGNS, GridConfig
from structlin.config.identity import build
from structlin.config.launch import Action, LaunchConfig, SlurmLaunch, automatic, launch_kind
from structlin.config.model import MODELS
from structlin.config.placement import Placement
from structlin.config.ranks import NONE
from structlin.config.request import Site, SweepRequest, Template, TrainRequest
from structlin.config.science import TASKS, Science
from structlin.config.search import Sampled, SearchConfig
from structlin.config.start import started
from structlin.config.study import expand_study
from structlin.data.recipe import LABELS, SOURCES, UNKNOWN
from structlin.data.tokenizers import has_file
from structlin.errors import UserError
from structlin.structure import Theta, theta_of
from structlin.structure.families import ARGUMENTS, output_order_of
from structlin.structure.naming import name_of
from structlin.structure.sample import MOST_THETAS, sample_thetas


def train_request(arguments: Sequence[str]) -> TrainRequest:
    """The request of ``python train.py ARGUMENTS``. UserError for anything that does not compose."""
    configs = list(composed_configs("train", arguments))
    if len(configs) != 1:
        raise UserError(f"train.py trains one run, but the lists ask for {len(configs)}; use sweep.py")
    config = configs[0]
    size = structured_ffn.fill(config)
    width, tokens = config["model"].pop("d_model"), config.pop("tokens")
    if size is not None:
        width, tokens = width or size.d_model, size.tokens if tokens is None else tokens
    templates = _templates(config, size)
    width = _width_of(templates[0], width)
    if width is None or tokens is None:
        raise UserError("train.py needs a width and a length: model.d_model=512 tokens=1e7")
    for template in templates:
        _check_tokens(template)
    if len(templates) != 1:
        raise UserError(f"structure=sample names {len(templates)} thetas, but train.py trains one; use sweep.py")
    return TrainRequest(templates[0], _whole("model.d_model", width), _tokens(templates[0], tokens), _site(config))


def _width_of(template: Template, width: Any) -> Any:
    """The width of train.py; a run that starts from another one has its width."""
    if template.widths is None or width in (None, *template.widths):
        return width if template.widths is None else template.widths[0]
    raise UserError(f"model.d_model = {width}, but the run that it starts from has {template.widths[0]}; leave it out")


def _tokens(template: Template, tokens: Any) -> int:
    """Its length; none at all only shows what the weights of another run are worth under its structure."""
    return _whole("tokens", tokens, 0 if template.science.start.parent is not None else 1)


def sweep_request(arguments: Sequence[str]) -> SweepRequest:
    """The request of ``python sweep.py ARGUMENTS``. UserError for anything that does not compose."""
    templates: dict[Template, None] = {}
    words = tuple(arguments)
    budgets: dict[float, None] = {}
    plain: list[dict[str, Any]] = []
    arguments = [f"launch={automatic()}" if argument == "launch=auto" else argument for argument in arguments]
    asked, study = expand_study(arguments, CONFIG_DIR / "study")
    searched = any(map(is_search, asked))
    lines = [one for line in asked for one in search_lines(line)] if searched else asked
    sampled: dict[Sampled, None] = {}
    for line in lines:
        with blamed(line):
            configs = _beside_dense(list(composed_configs("sweep", _with_design(line))))
            of_line = _of_whole_sweep(configs)
            for config in configs:
                size = structured_ffn.fill(config)
                if config["model"].pop("d_model") is not None or config.pop("tokens") is not None:
                    raise UserError(
                        "a sweep plans widths and tokens itself; by hand they are grid.widths=[..] grid.tokens=[..]"
                    )
                if config["dry_run"] is True:
                    _plan_without_files(config["data"])
                budgets.update(dict.fromkeys(_numbers("budget", config["budget"])))
                several = len(asked) > 1 and not searched
                own = build(GridConfig, config["grid"], "grid") if several else GridConfig()
                widths, lengths = own.widths, own.tokens
                if size is not None:
                    widths = widths or ((size.d_model,) if config["grid"]["widths"] is None else None)
                    lengths = lengths or ((size.tokens,) if config["grid"]["tokens"] is None else None)
                sampled.update(dict.fromkeys(_sampled_by(config["structure"])))
                found = _templates(config, size, widths, lengths)
                if config["dry_run"] is not True:
                    _check_tokens(found[0])
                templates.update(dict.fromkeys(found))
            plain.append(of_line)
    config = _of_whole_sweep(plain, free=("widths", "tokens"))
    if config["dry_run"] is True and config["watch"] is True:
        raise UserError("watch=true follows runs, and dry_run=true starts none; leave out one of them")
    launch = _launch(config["launch"])
    site = _site(config)
    site = replace(site, placement=_placed(site.placement, launch))
    if isinstance(launch, SlurmLaunch):
        site = replace(site, machine=site.placement.as_it_runs(launch.speed_key), ranks=launch.gpus_per_run)
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
        command=shlex.join(["python", "sweep.py", *(asked[0] if len(asked) == 1 else arguments)]),
        study=study,
        words=words,
        search=_search(config, searched, arguments, tuple(sampled)),
    )


def _search(
    config: Mapping[str, Any], searched: bool, arguments: Sequence[str], sampled: tuple[Sampled, ...]
) -> SearchConfig | None:
    """The keys of a search; None where none is asked for. UserError for keys of a search without one."""
    target = _numbers("target", config["target"])
    if not searched:
        keys = [word.partition("=")[0] for word in arguments if word.startswith(("search.", "target="))]
        if keys:
            raise UserError(f"{keys[0]} is a key of a search; add grid=search")
        return None
    if len(target) != 1:
        raise UserError("grid=search compares arms at one compute, in training FLOPs of a run: target=1e18")
    values = {key: value for key, value in config["search"].items() if key != "arms"}
    return replace(build(SearchConfig, {**values, "target": target[0]}, "search"), sampled=sampled)


def _sampled_by(structure: Mapping[str, Any]) -> Iterator[Sampled]:
    """What structure=sample draws by; nothing of another structure."""
    if structure["name"] == "sample":
        bounds = tuple(
            (key, _pair(f"structure.{key}", structure[key])) for key in ("nu", "omega", "psi") if structure[key]
        )
        factors = 2 if structure["factors"] is None else _whole("structure.factors", structure["factors"])
        count, seed = _whole("structure.count", structure["count"]), _whole("structure.seed", structure["seed"], 0)
        yield Sampled(count, seed, factors, bounds)


def _beside_dense(configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same configs, in which dense beside other structures has none of their keys: they stand against it."""
    if any(config["structure"]["name"] != "dense" for config in configs):
        for config in configs:
            if config["structure"]["name"] == "dense":
                config["structure"].update(dict.fromkeys(("theta", "rho", *ARGUMENTS)), ranks=NONE)
                config["nested"]["menu"] = nested.NONE
    return configs


def _plan_without_files(data: dict[str, Any]) -> None:
    """Let a plan that is only shown name no files: its runs then have no identity yet."""
    source = SOURCES.get(str(data.get("name")))
    if source is not None and source.needs_path and not data.get("path"):
        data["content"] = UNKNOWN


def _of_whole_sweep(configs: Sequence[dict[str, Any]], free: tuple[str, ...] = ()) -> dict[str, Any]:
    """The config that says how a sweep is planned, run and shown; UserError where a list would vary that.

    ``free``: keys that the lines of a study may each give a value of their own.
    """
    first = configs[0]
    for config in configs[1:]:
        pairs = [("data.", key, config["data"], first["data"]) for key in ("max_epochs", "root")]
        for group in ("grid", "launch", "tracking", "search"):
            pairs += [(f"{group}.", key, config[group], first[group]) for key in first[group]]
        pairs += [("", key, config, first) for key in first if not isinstance(first[key], Mapping)]
        for group, key, here, there in pairs:
            if key not in ("budget", "seed", *free) and here[key] != there[key]:
                raise UserError(
                    f"{group}{key} belongs to the sweep as a whole and takes one value, not {there[key]!r} and "
                    f"{here[key]!r}; a list of its own stands in brackets: grid.widths=[64,128]"
                )
    return first


def _with_design(line: Sequence[str]) -> list[str]:
    """The words of a sweep, and the design that trains under its scale's own schedule where they name none.

    A scale with a schedule of its own gives way to a design that is asked for.
    """
    words = dict(word.split("=", 1) for word in line if "=" in word)
    scale, design = words.get("scale", ""), words.get("grid")
    kind = schedule_of(scale) if scale in group_options("scale") else "constant"
    if kind == "constant" or (design is not None and design not in DESIGNS):
        return list(line)
    more = [] if design else [f"grid={next(name for name, kinds in DESIGNS.items() if kind in kinds)}"]
    more += [] if "schedule" in words else [f"schedule={DESIGNS[design][0] if design else kind}"]
    return [*line, *more]


def _check_tokens(template: Template) -> None:
    """What trains reads tokens; what only counts needs no more of them than how many there are."""
    data = template.science.data
    if data.kind == "language" and not has_file(data.tokenizer):
        raise UserError(
            f"data.tokenizer={data.tokenizer} is known by its size alone, which plans and counts (dry_run=true); to "
            "train, give its file: data.tokenizer=PATH, or a name: char96, gpt2"
        )


def _templates(
    config: Mapping[str, Any],
    size: structured_ffn.Size | None,
    widths: tuple[int, ...] | None = None,
    tokens: tuple[int, ...] | None = None,
) -> list[Template]:
    """The Sciences a config stands for: one, or one per sampled theta; ``widths`` and ``tokens`` of their own."""
    _check_model(config)
    _check_ranks(config)
    schedule = dict(config["schedule"])
    kind, share = schedule.pop("kind"), schedule.pop("warmup_share")
    if share is not None:
        share = _numbers("schedule.warmup_share", share)[0]
    data = {key: value for key, value in config["data"].items() if key not in ("root", "max_epochs")}
    if TASKS.get(config["task"]) == "classification":
        data.setdefault("tokenizer", LABELS)
    templates = []
    for structure in _structures(config["structure"], size):
        model = {**config["model"], "d_model": _least_width(config["model"])}
        published = model.get("init", "") is None
        if published:
            model["init"] = (
                "fixed"
                if config["moe"]["kind"] != "none"
                else structured_ffn.published_init(name_of(Theta.parse(structure["theta"]), structure["output_order"]))
            )
        science = build(
            Science,
            {
                "structure": structure,
                "moe": config["moe"],
                "guide": config["guide"],
                "nested": nested.of_words(config["nested"]["menu"], config["nested"]["draw"]),
                "model": model,
                "data": data,
                "optim": config["optim"],
                "schedule": {**schedule, "kind": "constant"},
                "evaluation": config["evaluation"],
                "augment": config["augment"],
                "seed": config["seed"],
                "task": config["task"],
            },
            "config",
        )
        science = started(science, config["start"], _path("runs", config["runs"]), published)
        if config["start"]["run"] is not None:
            widths = (science.model.d_model,)
            if "grid" in config and config["grid"]["widths"] not in (None, list(widths)):
                raise UserError(f"grid.widths = {config['grid']['widths']}, but the run it starts from has {widths[0]}")
        templates.append(Template(science, str(kind), str(config["structure"]["name"]), widths, tokens, share))
    return templates


def _check_model(config: Mapping[str, Any]) -> None:
    """A scale of another task sets fields that the model does not have: say so, and name the scales of the task."""
    name, task = str(config["model"]["name"]), str(config["task"])
    if name not in MODELS:
        return
    fields = {field.name for field in dataclasses.fields(MODELS[name])}
    for key in config["model"]:
        if key not in fields:
            own = "|".join(scale for scale in group_options("scale") if scale.startswith(task)) or "paper|small"
            raise UserError(f"model={name} has no model.{key}; the scales of task={task} are scale={own}")


def _check_ranks(config: Mapping[str, Any]) -> None:
    """Here, since a mixture that replaces the structure would leave them unread."""
    kind = config["moe"]["kind"]
    if config["structure"]["ranks"] != NONE and kind != "none":
        raise UserError(
            f"structure.ranks gives single linears a rank, and moe = {kind} makes them experts; use moe=none, or "
            "structure.ranks=none"
        )


def _least_width(model: Mapping[str, Any]) -> Any:
    """A width that fits any model: planning puts the real ones in its place."""
    size, heads, groups = (model.get(key) for key in ("d_head", "num_heads", "kv_heads"))
    if isinstance(heads, int) and size is None:
        return heads * (2 if model.get("positions") == "rope" else 1)
    if isinstance(size, int) and isinstance(groups, int) and model.get("attention_width") is None:
        return size * max(1, groups)
    return size or heads or 64


def _structures(structure: Mapping[str, Any], size: structured_ffn.Size | None) -> Iterator[dict[str, Any]]:
    """The fields of StructureConfig that a config stands for: one set, or one per sampled theta."""
    name, order = str(structure["name"]), structure["output_order"]
    kept = {key: structure[key] for key in ("rounding", "head_layout", "contraction", "ranks")}
    for theta in _thetas(name, structure, size):
        yield {**kept, "theta": theta, "output_order": output_order_of(name) if order is None else order}


def _thetas(name: str, structure: Mapping[str, Any], size: structured_ffn.Size | None) -> list[str]:
    arguments = {key: structure[key] for key in ARGUMENTS}
    if structure["rho"] is None and not any(value is not None for value in arguments.values()):
        arguments.update(structured_ffn.arguments(name, size, structure.get("percent")))
    if name == "sample":
        return [str(theta) for theta in _sampled(structure)]
    theta, rho = structure["theta"], structure["rho"]
    if name == "einsum" and theta is None:
        raise UserError("structure=einsum needs a theta: structure.theta=1/3,0,2/3,0,2/3,1/3,1/4")
    if name != "einsum" and theta is not None:
        raise UserError(f"structure={name} has its own theta; to give one, say structure=einsum structure.theta=...")
    if isinstance(theta, list):
        theta = ",".join(str(number) for number in theta)
    theta = None if theta is None else str(theta)
    if rho is not None and arguments["rank"] is not None:
        raise UserError(f"structure.rho = {rho} and structure.rank = {arguments['rank']} both say the rank; give one")
    try:
        found = theta_of(
            name,
            theta=theta,
            rho=None if rho is None else str(rho),
            rounding=str(structure["rounding"]),
            arguments=arguments,
        )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"structure: {error}") from None
    return [str(found)]


def _sampled(structure: Mapping[str, Any]) -> list[Theta]:
    bounds = {key: _pair(f"structure.{key}", structure[key]) for key in ("nu", "omega", "psi") if structure[key]}
    for key in ("theta", "rho", *ARGUMENTS):
        if structure[key] is not None and key != "factors":
            raise UserError(f"structure=sample takes no structure.{key}; it draws thetas of structure.factors=2|3")
    return sample_thetas(
        _whole("structure.count", structure["count"], most=MOST_THETAS),
        _whole("structure.seed", structure["seed"], 0),
        bounds,
        2 if structure["factors"] is None else _whole("structure.factors", structure["factors"]),
    )


def _placed(placement: Placement, launch: LaunchConfig) -> Placement:
    """Where GPUs are asked for, a run that would train on a processor is refused; and it is to fit their memory."""
    wants = isinstance(launch, SlurmLaunch) and launch.gpus > 0 and placement.device == "auto"
    memory = float(launch.memory_of_gpu_gb)
    return replace(placement, device="cuda" if wants else placement.device, gpu_memory_gb=memory)


def _launch(values: Mapping[str, Any]) -> LaunchConfig:
    minutes = {key: _minutes(f"launch.{key}", values[key]) for key in MINUTES if key in values}
    values = {**values, **minutes}
    if isinstance(values.get("clusters"), list):
        values["clusters"] = ",".join(map(str, values["clusters"]))
    return build(launch_kind(str(values["name"])), values, "launch")


MINUTES = ("time_minutes", "max_minutes", "min_minutes")


def _minutes(key: str, value: Any) -> Any:
    """Minutes of SLURM's d-hh:mm:ss, d-hh, hh:mm:ss or mm:ss; what is no such text as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", value)
    if found is None:
        raise UserError(
            f"{key} = {value!r} should be minutes, or a time such as 2-00:00:00 (days-hours:minutes:seconds)"
        )
    days, *clock = found.groups()
    numbers = [int(number) for number in clock if number is not None]
    if days is not None or len(numbers) == 3:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    else:
        hours, minutes, seconds = 0, numbers[0], [*numbers, 0][1]
    total = int(days or 0) * 1440 + hours * 60 + minutes
    return total + (1 if seconds else 0)


_PLACED = (
    "device",
    "threads",
    "deterministic",
    "recompute",
    "micro_tokens",
    "fit",
    "sharding",
    "checkpoint_seconds",
    "log_steps",
)
"""Keys of the command line that say how a run is executed."""
_SWITCHES = ("compile", "graphs")
"""More of them: true, false or a word."""


def _site(config: Mapping[str, Any]) -> Site:
    placement = {key: config[key] for key in _PLACED}
    for key in _SWITCHES:
        # Written as YAML has it: compile: true.
        placement[key] = {True: "true", False: "false"}.get(config[key], config[key])
    tracking = config["tracking"]
    return build(
        Site,
        {
            "runs": _path("runs", config["runs"]),
            "data_root": _path("data.root", config["data"]["root"]),
            "max_epochs": config["data"]["max_epochs"],
            "evals_per_decade": config["evals_per_decade"],
            "umask": config["store"]["umask"],
            "placement": {**placement, "tracking": tracking["name"], "project": tracking["project"]},
        },
        "config",
    )


def _path(name: str, value: Any) -> Path:
    """A folder, with ~ for the user's own."""
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value):
        raise UserError(f"{name} = {value!r} should be a path")
    return Path(str(value)).expanduser()


def _numbers(name: str, value: Any) -> list[float]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f"{name} = {number!r} is not a number such as 1e15")
        if isinstance(number, int) and abs(number) > LARGEST**3:
            raise UserError(f"{name} is a number of {len(str(abs(number)))} digits; write it such as 1e15")
    return [float(number) for number in values]


def _whole(name: str, value: Any, least: int = 1, most: float = math.inf) -> int:
    numbers = _numbers(name, value)
    if len(numbers) != 1 or not numbers[0].is_integer() or numbers[0] < least:
        raise UserError(f"{name} = {value!r} should be a whole number of at least {least}")
    if numbers[0] > most:
        raise UserError(f"{name} = {value:.3g} is too large; at most {most:,}")
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
