"""Does a command line ask for a status alone, and of which sweep? Read without composing it, which takes Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from structlin.config.files import CONFIG_DIR
from structlin.config.placement import Placement
from structlin.config.request import Site, StatusRequest

STATUS_KEYS = ("status", "watch", "format", "runs")


def status_request(arguments: Sequence[str]) -> tuple[StatusRequest, bool] | None:
    """What is asked where only a status is; whether it is that of the sweep that the other words name.

    None where something else is wanted. ``status=NAME`` names a sweep; ``status=true`` without any key of a sweep is
    the last one. UserError for a name that none can have.
    """
    values = {key: value for key, equals, value in (argument.partition("=") for argument in arguments) if equals}
    wish = values.get("status", "false").strip("'\"")
    is_flag = wish.lower() in ("true", "false")
    watches = values.get("watch", "false").lower() == "true"
    if (is_flag and wish.lower() == "false" and not watches) or {"cancel", "retry", "dry_run"} & set(values):
        return None
    runs = Path(values.get("runs", _defaults()["runs"]).strip("'\"")).expanduser()
    site = Site(runs, Path("data"), 1.0, 1, Placement())
    request = StatusRequest(site, None if is_flag else wish, watches, values.get("format", "table"))
    return request, is_flag and not set(values) <= set(STATUS_KEYS)


def _defaults() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONFIG_DIR / "train.yaml").read_text())
    return found
