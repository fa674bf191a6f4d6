"""What does a tracker get of a run? Its rows with the compute spent, and what people sort and group runs by."""

from __future__ import annotations

import math
from typing import Any

from structlin.anatomy.compute import flops_at
from structlin.anatomy.ledger import ledger
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.host.files import read_json
from structlin.runs.journal import OF_RANKS
from structlin.runs.store import RunFolder

Row = dict[str, Any]
"""FLOPs a MAC and token."""
ABOUT = ("variant", "parameters", "macs_per_token", "budget_flops", "budgets", "design", "sweep", "commit")
"""Keys of a tracker's config that the Science does not hold."""
CURVES = {"eval": "val_loss", "train": "loss"}
"""Kind of a row -> its loss."""


def numbers(row: Row) -> dict[str, float]:
    """The finite numbers of a row: others would not survive a tracker's JSON."""
    return {key: value for key, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}


def payload(row: Row, science: Science) -> dict[str, float]:
    """A row as W&B gets it: numbers under its kind, tokens and training FLOPs so far, its loss over each of them."""
    found = numbers(row)
    times = {"_timestamp": found.pop("time")} if "time" in found else {}
    values = {f"{row['kind']}/{key}": value for key, value in found.items()}
    if "tokens" in found:
        values |= {"tokens": found["tokens"], "flops": flops_at(science, int(found["tokens"]))}
        loss = CURVES.get("eval" if row["kind"].startswith(OF_RANKS) else row["kind"], "")
        if loss in found:
            values |= {f"over_{axis}/{row['kind']}_loss": found[loss] for axis in ("flops", "tokens")}
    return {**values, **times}


def about(science: Science, folder: RunFolder, sweep: str) -> dict[str, Any]:
    """Variant, parameters, MACs, budgets and design of its sweep, and the commit: columns of a table of runs."""
    costs, cells, design = ledger(science), *_of_sweep(folder, sweep)
    budgets = sorted({cell["budget_flops"] for cell in cells if cell.get("budget_flops") is not None})
    return {
        "variant": science.variant,
        "parameters": costs.params_total,
        "macs_per_token": costs.macs_per_token,
        "budget_flops": budgets[-1] if budgets else None,
        "budgets": budgets,
        "design": design,
        "sweep": sweep,
        "commit": (folder.provenance() or [{}])[-1].get("code"),
    }


def tags(science: Science) -> list[str]:
    """Words to filter runs by; W&B takes 64 characters of each."""
    found = [science.task, science.data.name, science.structure.name, science.schedule.kind, science.optim.rate_rule]
    if science.moe.kind != "none":
        found.append(science.moe.label)
    return [word[:64] for word in dict.fromkeys(found) if word]


def _of_sweep(folder: RunFolder, sweep: str) -> tuple[list[dict[str, Any]], str]:
    """The cells of a run in its sweep's manifest, and the sweep's design."""
    if not sweep:
        return [], "run"
    try:
        found = read_json(folder.path.parent / "sweeps" / f"{sweep}.json")
        return [cell for cell in found["cells"] if cell["run_id"] == folder.run_id], str(found["design"])
    except (UserError, OSError, KeyError, TypeError):
        return [], ""
