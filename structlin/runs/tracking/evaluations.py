"""What does W&B get of a whole sweep? Its evaluations as one table: an artifact of a run of job type sweep.

It is sent when a sweep has ended on this machine, and by `make sync` for sweeps of a cluster. Like every copy it may
fail, and never takes longer than the run's own end does.

runs/sweeps/<name>.wandb.json    what was sent last: the mode and how many evaluations
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from structlin.errors import UserError, one_line
from structlin.host.files import read_json, write_json
from structlin.runs.tracking.copier import say
from structlin.runs.tracking.mirror import LIMITS, QUIET, Mode

COLUMNS = (
    "run_id", "variant", "d_model", "seed", "schedule", "status", "step", "tokens", "training_flops", "macs_per_token",
    "params_total", "val_loss",
)  # fmt: skip


def publish(runs: Path, name: str, project: str, mode: Mode, seconds: float) -> bool:
    """Send the table of a sweep, or give up after some seconds with one line; whether it was sent or was there."""
    done: list[bool] = []
    thread = Thread(target=lambda: done.append(_sent(runs, name, project, mode)), daemon=True, name=f"table-{name}")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _failed(name, f"no answer within {seconds:.0f} s")
    return bool(done and done[0])


def sweeps(runs: Path) -> list[str]:
    """Names of the sweeps of a store that were written down."""
    found = (runs / "sweeps").glob("*.json")
    return sorted(path.name.removesuffix(".json") for path in found if not path.name.endswith(".wandb.json"))


def members(runs: Path, name: str) -> list[str]:
    """Ids of the runs of a sweep. UserError where its manifest cannot be read."""
    return list(dict.fromkeys(cell["run_id"] for cell in read_json(runs / "sweeps" / f"{name}.json")["cells"]))


def _sent(runs: Path, name: str, project: str, mode: Mode) -> bool:
    try:
        table = _table(runs, members(runs, name))
        note = {"mode": mode, "evaluations": len(table)}
        place = runs / "sweeps" / f"{name}.wandb.json"
        if place.exists() and read_json(place) == note:
            return True
        _send(table, runs, name, project, mode)
        write_json(place, note)
    except Exception as error:  # whatever wandb raises, the sweep has ended well
        _failed(name, one_line(error)[:300])
        return False
    return True


def _table(runs: Path, identities: Sequence[str]) -> Any:
    """The table of some runs of a store."""
    from structlin.runs import table

    return table.load_some(runs, identities)


def _send(table: Any, runs: Path, name: str, project: str, mode: Mode) -> None:
    for key, value in {**LIMITS, **QUIET}.items():
        os.environ.setdefault(key, value)
    import wandb

    identity = hashlib.sha256(f"sweep {name}".encode()).hexdigest()[:16]
    run = wandb.init(
        project=project, group=name, job_type="sweep", id=identity, name=f"sweep {name}",
        config={"sweep": name, "runs": int(table["run_id"].nunique())},
        dir=str(runs / "sweeps"), mode=mode or None, resume="allow" if mode == "online" else None, reinit="create_new",
        settings=wandb.Settings(console="off"),
    )  # fmt: skip
    last = table.sort_values("step").groupby("run_id").tail(1)
    best = last.loc[last["val_loss"].idxmin()] if len(last) else None
    if best is not None:
        run.summary.update({"best/val_loss": float(best["val_loss"]), "best/variant": str(best["variant"])})
    artifact = wandb.Artifact(f"evaluations-{identity}", type="evaluations", metadata={"sweep": name})
    shown = [column for column in COLUMNS if column in table]
    artifact.add(wandb.Table(dataframe=table[shown]), "evaluations")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "evaluations.parquet"
        table.to_parquet(path)
        artifact.add_file(str(path))
        run.log_artifact(artifact)
        run.finish()


def _failed(name: str, reason: str) -> None:
    say(f"sweep {name}", "W&B table", "artifact", reason, "`make sync` sends it")


def is_ended(runs: Path, name: str) -> bool:
    """Whether every run of a sweep has ended well, by the store."""
    from structlin.runs.store import RunFolder

    try:
        return all(RunFolder(runs / run).status()["state"] in ("done", "diverged") for run in members(runs, name))
    except (UserError, KeyError, TypeError):
        return False
