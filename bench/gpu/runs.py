"""Whole runs on a GPU: equal bits, two GPUs against one, and a sweep with its law."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.gpu.check import Check, in_processes
from structlin.config.model import Gpt2Config
from structlin.config.moe import MoeConfig
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.placement import Placement
from structlin.config.science import EvaluationConfig, Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe, prepare
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.structure import theta_of
from structlin.training.entry import execute


def small(structure: str = "btt", width: int = 128, context: int = 128, moe: str = "none") -> Science:
    """A small run of the bundled text in bfloat16."""
    mixture = MoeConfig() if moe == "none" else MoeConfig(moe, 4, 2, auxiliary_weight=0.01)
    return Science(
        structure=StructureConfig(str(theta_of(structure))),
        moe=mixture,
        model=Gpt2Config(d_model=width, num_layers=2, context=context, dtype="bfloat16"),
        data=DataRecipe("sotu"),
        optim=OptimConfig(batch_tokens=context * 16),
        schedule=ScheduleConfig(warmup_steps=4),
        evaluation=EvaluationConfig(tokens=context * 16),
    )


def trained(one: Science, steps: tuple[int, ...], folder: Path, data: Path, placement: Placement) -> list[float]:
    """Losses of a run, by the journal; trained on from what lies in the folder."""
    store = Store(folder)
    state = execute(Job(one, steps), store, data, placement)
    assert state == "done", store.folder(one).status()
    return [row["val_loss"] for row in store.folder(one).journal.evaluations()]


BIT_CASES = (
    ("btt", 128, "none"),
    ("dense", 192, "none"),
    ("btt", 512, "none"),
    ("dense", 128, "btt"),
    ("dense", 128, "ffn"),
    ("dense", 512, "none"),
)
"""Structure, context and mixture of runs that are trained twice, and cut in two."""


def bits(check: Check, found: dict[str, Any]) -> None:
    """Equal bits twice, across stop and resume, over contexts and mixtures, plain and deterministic."""
    ways = [(case, deterministic) for deterministic in (True, False) for case in BIT_CASES]
    # Compiling takes longer than such runs; structured ones, and a mixture, show what it does to bits.
    orders = [(*one, False) for one in ways] + [(case, True, True) for case in BIT_CASES if "btt" in case]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare(DataRecipe("sotu"), data, lambda line: None)
        calls = {
            f"{structure} context {context} moe={moe}{' deterministic' * deterministic}{' compiled' * compiles}": (
                small(structure, 128 if check.on_gpu else 64, context, moe),
                Placement(deterministic=deterministic, tracking="journal", compile=str(compiles).lower()),
                Path(folder) / f"run-{number}",
                data,
            )
            for number, ((structure, context, moe), deterministic, compiles) in enumerate(
                orders if check.on_gpu else orders[:1]
            )
        }
        for key, equal in in_processes(check, "bits of", _bits_of, calls):
            found[key] = equal
            if " deterministic" in key:
                check.expect(all(equal.values()), f"{key}: other bits {equal}, though promised")


def _bits_of(one: Science, placement: Placement, folder: Path, data: Path) -> dict[str, bool]:
    """Whether a run has the same losses when it is trained again, and when it is cut in two."""
    first, second = (trained(one, (6, 12), folder / name, data, placement) for name in ("one", "other"))
    trained(one, (6,), folder / "cut", data, replace(placement, graphs="false"))
    return {"twice": first == second, "resumed": trained(one, (6, 12), folder / "cut", data, placement) == first}


def two_gpus(check: Check, found: dict[str, Any]) -> None:
    """Two GPUs against one: the same losses to rounding, and the time of a step."""
    if not check.on_gpu or torch.cuda.device_count() < 2:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(DataRecipe("sotu"), root / "data", lambda line: None)
        one = small("dense", 256)
        placement = Placement(tracking="journal")
        alone = trained(one, (20,), root / "alone", root / "data", placement)
        request = {"job": Job(one, (20,)).to_mapping(), "runs": str(root / "two"), "data_root": str(root / "data")}
        (root / "job.json").write_text(json.dumps({**request, "placement": vars(placement)}))
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "structlin.training.rank"]
        subprocess.run([sys.executable, *words, str(root / "job.json")], check=True, timeout=300)
        several = [row["val_loss"] for row in Store(root / "two").folder(one).journal.evaluations()]
        found |= {"one": alone, "two": several}
        check.expect(abs(alone[-1] - several[-1]) < 0.02, f"two GPUs end at {several[-1]}, one at {alone[-1]}")


def sweep(check: Check, found: dict[str, Any]) -> None:
    """A sweep of three minutes with its law."""
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        words = ["scale=small", "structure=dense,btt", "grid.points=3", "tracking=journal", "launch.max_hours=1"]
        words += ["budget=1e13,3e13"] if check.on_gpu else ["budget=1e9,3e9", "schedule.warmup_steps=4", "device=cpu"]
        common = {"cwd": root, "capture_output": True, "text": True, "timeout": max(60.0, check.seconds_left)}
        command = [sys.executable, "sweep.py", *words, f"runs={folder}/runs", "data.root=data"]
        done = subprocess.run(command, **common)  # type: ignore[call-overload]
        check.expect(done.returncode == 0, f"the sweep ended with {done.returncode}: {done.stderr[-200:]}")
        fit = [sys.executable, "fit_laws.py", f"runs={folder}/runs", f"out={folder}/laws"]
        fitted = subprocess.run(fit, **common)  # type: ignore[call-overload]
        laws = Path(folder) / "laws" / "laws.json"
        found |= {"ended": done.returncode, "laws": fitted.stdout[-4000:], "has_laws": laws.exists()}
