"""How does a command come by a trained model? A run of a store by its id, and the model of one of its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from structlin.config.science import Science
from structlin.errors import UserError, one_line, whole_number
from structlin.runs.store import RunFolder, Store

if TYPE_CHECKING:
    from torch import nn

NEWEST = "newest"
"""The step of the last checkpoint there is."""


def found(runs: Path, run: str) -> RunFolder:
    """The run of an id, the beginning of one, or a folder. UserError where it is none, or several."""
    if not run:
        raise UserError(f"run=ID says which run; {_some(Store(runs))}")
    if (Path(run).expanduser() / "config.json").is_file():
        return RunFolder(Path(run).expanduser())
    store = Store(runs)
    folder = store.by_id(run)
    if folder.exists():
        return folder
    begin = [one for one in store.folders() if one.run_id.startswith(run)]
    if len(begin) == 1:
        return begin[0]
    if begin:
        raise UserError(f"run={run} begins {len(begin)} ids: {', '.join(one.run_id for one in begin[:5])}, ...")
    raise UserError(f"run={run}: no such run; {_some(store)}")


def _some(store: Store) -> str:
    ids = [folder.run_id for folder in store.folders()]
    if not ids:
        return f"{store.root} has none; runs=FOLDER names another store"
    return f"{store.root} has {', '.join(ids[:5])}{f' and {len(ids) - 5} more' if len(ids) > 5 else ''}"


def loaded(folder: RunFolder, science: Science, wanted: str) -> tuple[nn.Module, int]:
    """The model of a checkpoint on the CPU, and its step. UserError where there is none that can be used."""
    # Here, since a shell that completes the keys of a command needs no torch.
    from structlin.models.build import build_model
    from structlin.training.checkpoint import read

    checkpoints = folder.checkpoints
    if not checkpoints:
        raise UserError(f"run {folder.run_id} has no checkpoint to read; train it first")
    step = max(checkpoints) if wanted == NEWEST else whole_number("step", wanted, 0)
    if step not in checkpoints:
        kept = ", ".join(map(str, checkpoints))
        raise UserError(f"run {folder.run_id} keeps no checkpoint of step {step}; it has {kept}")
    model = build_model(science)
    try:
        model.load_state_dict(read(checkpoints[step])["model"])
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{checkpoints[step]} cannot be used: {one_line(error)[:200]}") from None
    return model, step
