"""Where and how is a run executed? The keys of a door that touch no result: folders, device, launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from structlin.config import typed
from structlin.config.identity import build
from structlin.config.launch import LaunchConfig, SlurmLaunch, launch_kind
from structlin.config.placement import Placement
from structlin.config.request import Site

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

_MINUTES = ("time_minutes", "max_minutes", "min_minutes")
"""Keys of ``launch`` that may be written as SLURM writes times."""


def placed(placement: Placement, launch: LaunchConfig) -> Placement:
    """Where GPUs are asked for, a run that would train on a processor is refused; and it is to fit their memory."""
    wants = isinstance(launch, SlurmLaunch) and launch.gpus > 0 and placement.device == "auto"
    memory = float(launch.memory_of_gpu_gb)
    return replace(placement, device="cuda" if wants else placement.device, gpu_memory_gb=memory)


def launch_of(values: Mapping[str, Any]) -> LaunchConfig:
    """The group ``launch`` of a config, typed by its name."""
    minutes = {key: typed.minutes(f"launch.{key}", values[key]) for key in _MINUTES if key in values}
    values = {**values, **minutes}
    if isinstance(values.get("clusters"), list):
        values["clusters"] = ",".join(map(str, values["clusters"]))
    return build(launch_kind(str(values["name"])), values, "launch")


def site_of(config: Mapping[str, Any]) -> Site:
    """Folders, the placement of runs and where they are logged, of a whole config."""
    placement = {key: config[key] for key in _PLACED}
    for key in _SWITCHES:
        # Written as YAML has it: compile: true.
        placement[key] = {True: "true", False: "false"}.get(config[key], config[key])
    tracking = config["tracking"]
    return build(
        Site,
        {
            "runs": typed.path("runs", config["runs"]),
            "data_root": typed.path("data.root", config["data"]["root"]),
            "max_epochs": config["data"]["max_epochs"],
            "evals_per_decade": config["evals_per_decade"],
            "umask": config["store"]["umask"],
            "placement": {**placement, "tracking": tracking["name"], "project": tracking["project"]},
        },
        "config",
    )
