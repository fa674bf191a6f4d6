"""Which losses does today's mathematics give? Some steps of tiny models in float64, one case a way through the code.

    python -m tests.golden.losses        writes tests/golden/losses.json

losses.json   numerics   the NUMERICS that the losses are of
              build      torch, processor and kernels that their bits are of
              cases      name -> config (as a run folder keeps it), losses (bits), readable (the same in decimals)

The losses of a NUMERICS stand for ever: the writer adds new cases, and the bits of another build where all its losses
agree to TOLERANCE; anything else it refuses until NUMERICS is raised. What is trained is the stored config, upgraded,
so that a later schema has to train old runs to the same numbers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from structlin.config.identity import build as build_config
from structlin.config.identity import science_from, to_mapping
from structlin.config.placement import Placement
from structlin.config.science import NUMERICS, Science
from structlin.data import input_vocab_size, vocab_size
from structlin.data.batches import NO_TARGET
from structlin.data.teacher import INPUT_FEATURES
from structlin.runs.attempt import Attempt
from structlin.runs.job import Job
from structlin.structure import lookup
from structlin.tasks.catalogue import open_learner
from structlin.tasks.protocol import Batch, Task
from structlin.training.loop import Trainer
from structlin.training.made import Made
from structlin.training.world import ONE_PROCESS

FILE = Path(__file__).with_name("losses.json")
STEPS = 20
TOLERANCE = 1e-12
"""Largest difference between builds, over the loss."""
RATE = 2e-3
"""A stable one: at 1e-2 the last bits of another processor grow to 1e-9 within the steps."""
REMEDY = (
    "the mathematics changed: NUMERICS must be raised, then `python -m tests.golden.losses` writes the losses anew "
    "(a stored run of the old numerics is then another run)"
)

# ---- the cases ------------------------------------------------------------------------------------------------------

Case = tuple[str, str, str, str, str, dict[str, Any]]
"""Task, structure, mixture, weight normalisation, schedule, and whatever else differs from ``_plain``."""

_PLAIN: list[Case] = [
    # Every structure under every normalisation and every schedule.
    ("language", "dense", "none", "none", "constant", {}),
    ("language", "dense", "none", "fixed", "cosine", {}),
    ("language", "dense", "none", "learned", "cooldown", {}),
    ("language", "btt", "none", "none", "cosine", {}),
    ("language", "btt", "none", "fixed", "cooldown", {}),
    ("language", "btt", "none", "learned", "constant", {}),
    ("language", "g2", "none", "none", "cooldown", {}),
    ("language", "g2", "none", "fixed", "constant", {}),
    ("language", "g2", "none", "learned", "cosine", {}),
    ("language", "low_rank", "none", "none", "cosine", {}),
    ("language", "low_rank", "none", "fixed", "constant", {}),
    ("language", "low_rank", "none", "learned", "cooldown", {}),
    ("pixels", "dense", "none", "fixed", "cooldown", {}),
    ("pixels", "btt", "none", "learned", "cosine", {}),
    ("pixels", "g2", "none", "none", "constant", {}),
    ("pixels", "low_rank", "none", "none", "cooldown", {}),
    ("regression", "dense", "none", "none", "cosine", {}),
    ("regression", "btt", "none", "fixed", "constant", {}),
    ("regression", "g2", "none", "learned", "cooldown", {}),
    ("regression", "low_rank", "none", "learned", "constant", {}),
    ("regression", "low_rank", "none", "none", "cooldown", {"optim.rate_rule": "naive"}),
]
_MIXTURES: list[Case] = [
    # Every kind under every normalisation; experts that have a structure under every structure.
    ("language", "dense", "btt", "none", "constant", {}),
    ("language", "dense", "btt", "fixed", "cooldown", {}),
    ("language", "dense", "btt", "learned", "cosine", {}),
    ("language", "dense", "dense", "none", "cooldown", {}),
    ("language", "dense", "dense", "fixed", "cosine", {}),
    ("language", "dense", "dense", "learned", "constant", {}),
    ("language", "dense", "low_rank", "none", "cosine", {}),
    ("language", "dense", "low_rank", "fixed", "constant", {}),
    ("language", "dense", "low_rank", "learned", "cooldown", {}),
    ("language", "dense", "ffn", "none", "cosine", {"moe.layers": "ffn"}),
    ("language", "btt", "ffn", "fixed", "cooldown", {"moe.layers": "ffn"}),
    ("language", "g2", "ffn", "learned", "constant", {"moe.layers": "ffn"}),
    ("language", "low_rank", "ffn", "none", "cooldown", {}),
    ("language", "btt", "ffn", "learned", "cosine", {}),
    ("language", "dense", "ffn", "fixed", "constant", {}),
    ("pixels", "btt", "ffn", "none", "cosine", {"moe.layers": "ffn"}),
    ("pixels", "dense", "btt", "learned", "constant", {}),
    # What else a router and its place can be.
    ("language", "btt", "btt", "none", "cooldown", {"moe.layers": "ffn"}),
    ("language", "low_rank", "dense", "none", "constant", {"moe.layers": "attention"}),
    ("language", "dense", "low_rank", "none", "cooldown", {"moe.top_k": 3, "moe.capacity": 1.0}),
    ("language", "dense", "dense", "none", "cosine", {"moe.evaluation_top_k": 1, "moe.auxiliary_weight": 0.1}),
]
_OPTIONS: list[Case] = [
    # One option at a time on a plain model.
    ("language", "btt", "none", "none", "constant", {"optim.clip": 0.0, "optim.weight_decay": 0.1}),
    ("language", "btt", "none", "none", "cooldown", {"optim.clip": 0.05, "optim.beta1": 0.8, "optim.beta2": 0.9}),
    ("language", "btt", "none", "none", "cosine", {"optim.rate_rule": "naive", "optim.eps": 1e-5}),
    ("language", "btt", "none", "none", "constant", {"structure.head_layout": "nddn", "seed": 1}),
    ("language", "btt", "none", "none", "constant", {"structure.head_layout": "dndn", "model.d_model": 32}),
    ("language", "btt", "none", "none", "constant", {"model.structured": ["blocks.*", "head"], "model.num_layers": 1}),
    ("language", "btt2", "none", "none", "constant", {"structure.rounding": "paper", "model.d_model": 32}),
    # B is contracted first in one of its layers.
    ("language", "tt2", "none", "learned", "constant", {"model.d_head": None, "model.num_heads": 4}),
    ("language", "btt11", "none", "none", "constant", {"model.ffn_expansion": 2, "model.base_ffn_expansion": 4}),
]
_PIXELS = {
    "model.biases": ["blocks.*.attention.o", "blocks.*.ffn.*", "head", "*norm"],
    "model.zero_start": ["blocks.*.attention.q"],
    "model.context": 65,
    "optim.batch_tokens": 130,
}
_PUBLISHED: list[Case] = [
    # What the published models of images, of the regression and of mixtures have besides.
    ("pixels", "dense", "none", "fixed", "cosine", _PIXELS),
    ("pixels", "btt", "none", "fixed", "constant", _PIXELS),
    ("regression", "dense", "none", "none", "cosine", {"model.biases": ["*"], "model.outer_norm": "input"}),
    ("regression", "btt", "none", "none", "constant", {"model.biases": ["*"], "model.outer_norm": "input"}),
    ("language", "btt", "none", "none", "cosine", {"model.biases": ["*"], "model.structured": ["blocks.*", "head"]}),
    ("language", "dense", "btt", "learned", "constant", {"model.weight_norm_experts": "shared"}),
    ("language", "dense", "low_rank", "fixed", "cosine", {"model.weight_norm_experts": "shared"}),
    ("language", "dense", "ffn", "none", "constant", {"moe.layers": "ffn", "moe.router_start": "random"}),
]
_RECIPE = {
    "model.positions": "rope",
    "model.tied": True,
    "model.qk_norm": False,
    "model.branch_scale": "one",
    "model.logit_scale": "sqrt",
    "model.init": "fixed",
    "model.biases": ["blocks.*", "norm"],
    "model.structured": ["blocks.[1-9]*.ffn.*"],
    "optim.rate_rule": "plain",
    "optim.weight_decay": 0.1,
    "optim.decayed": ["factor", "embedding", "gain", "bias"],
}
_RECIPES: list[Case] = [
    # The recipe of StructuredFFN and its options.
    ("language", "dense", "none", "none", "cosine", _RECIPE),
    ("language", "low_rank", "none", "none", "cosine", _RECIPE | {"model.init": "svd"}),
    ("language", "btt", "none", "none", "constant", _RECIPE | {"model.init": "orthonormal", "model.kv_heads": 1}),
    ("language", "btt", "none", "none", "constant", {"model.positions": "rope", "model.attention_width": 24}),
    ("pixels", "low_rank", "none", "fixed", "constant", {"model.tied": True, "model.kv_heads": 1}),
    ("regression", "low_rank", "none", "none", "constant", {"model.init": "svd", "optim.rate_rule": "plain"}),
]


_GUIDED: list[Case] = [
    # A dense matrix beside the factors, all along or as it is drawn.
    ("language", "btt", "none", "none", "constant", {"guide.kind": "full", "guide.steps": 40}),
    ("regression", "low_rank", "none", "fixed", "cosine", {"guide.kind": "stochastic", "guide.share": 1.0}),
]


def cases() -> dict[str, Science]:
    """All cases by name."""
    return {_name(case): _science(case) for case in (*_PLAIN, *_MIXTURES, *_OPTIONS, *_PUBLISHED, *_RECIPES, *_GUIDED)}


def _name(case: Case) -> str:
    task, structure, mixture, norm, schedule, changes = case
    words = [task, structure, f"moe={mixture}", f"norm={norm}", schedule]
    shown: Any = changes.items()
    for name, recipe in (("published", _PIXELS), ("structured_ffn", _RECIPE)):
        if changes.keys() >= recipe.keys():
            shown = [(name, "yes"), *((key, value) for key, value in changes.items() if recipe.get(key) != value)]
    return " ".join(words + [f"{key.rpartition('.')[2]}={value}" for key, value in shown])


def _science(case: Case) -> Science:
    task, structure, mixture, norm, schedule, changes = case
    values = _plain(task)
    values["structure"]["theta"] = str(lookup(structure))
    values["moe"] = {"kind": "none"} if mixture == "none" else {"kind": mixture, "num_experts": 4}
    values["model"]["weight_norm"] = norm
    values["schedule"] |= {"kind": schedule, "horizon_steps": None if schedule == "constant" else STEPS}
    for path, value in changes.items():
        group, _, name = path.rpartition(".")
        (values[group] if group else values)[name] = value
    return build_config(Science, values, "case")


def _plain(task: str) -> dict[str, Any]:
    """A base shape that is not the model's, and a rate that changes all along the steps."""
    gpt2 = {"name": "gpt2", "d_head": 8, "context": 64 if task == "pixels" else 8}
    shape = {"d_model": 16, "num_layers": 2, "base_width": 24, "dtype": "float64"}
    return {
        "task": task,
        "structure": {},
        "guide": {},
        "model": ({"name": "mlp"} if task == "regression" else gpt2) | shape,
        "data": {"name": {"language": "sotu", "pixels": "digits", "regression": "teacher"}[task]},
        "optim": {"lr": RATE, "batch_tokens": 128 if task == "pixels" else 32},
        "schedule": {"warmup_steps": 4, "final": 0.1, "cooldown_fraction": 0.5},
        "evaluation": {"tokens": 128},
    }


# ---- their losses ---------------------------------------------------------------------------------------------------


def losses(science: Science) -> list[float]:
    """The training loss of each step, then the loss of an evaluation of what was trained."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of sums
    try:
        return _losses(science)
    finally:
        torch.set_num_threads(threads)


def _losses(science: Science) -> list[float]:
    trainer = _trainer(science)
    found = []
    for step in range(STEPS):
        # The loop's own update, so that rates, clipping and the order of both are those of a run.
        loss, _ = trainer._update(batch(science, step))
        trainer.step += 1
        found.append(float(loss))
    trainer.model.eval()
    with torch.no_grad():
        found.append(float(trainer.task.loss(trainer.model, batch(science, STEPS))))
    return found


def _trainer(science: Science) -> Trainer:
    """A run without a folder and data, as training/entry.py puts it together."""
    learner, device = open_learner(science), torch.device("cpu")
    job, placement = Job(science, (STEPS,)), Placement(device="cpu", tracking="journal")
    made = Made(job, cast(Task, learner), placement)
    return Trainer(
        job=job,
        attempt=cast(Attempt, SimpleNamespace(journal=None)),
        task=cast(Task, learner),
        model=made.model,
        forward=ONE_PROCESS.place(made.model, made.optimizer, device),
        optimizer=made.optimizer,
        device=device,
        placement=placement,
        observe=lambda row: None,
        should_stop=lambda: False,
        evaluations=frozenset(),
        world=ONE_PROCESS,
        is_guided=made.is_guided,
    )


def batch(science: Science, step: int) -> Batch:
    """Inputs and targets of a step: there is something to learn in them, and torch has no part in their making."""
    random = np.random.default_rng([science.seed, step])
    if science.task == "regression":
        x = random.standard_normal((science.rows, INPUT_FEATURES))
        y = x[:, :1] * x[:, 1:2] - 0.5 * x[:, 2:3] + 0.1 * random.standard_normal((science.rows, 1))
        return torch.from_numpy(x), torch.from_numpy(y)
    vocabulary, shape = vocab_size(science.data.tokenizer), (science.rows, science.model.context + 1)
    # Every token is the one before it and a little more.
    tokens = (random.integers(0, vocabulary, (shape[0], 1)) + random.integers(1, 4, shape).cumsum(1)) % vocabulary
    inputs, targets = tokens[:, :-1].copy(), tokens[:, 1:].copy()
    if science.task == "pixels":
        inputs[:, 0] = input_vocab_size(science.data.tokenizer) - 1
        targets[:, science.data.sample_tokens :] = NO_TARGET
    return torch.from_numpy(inputs), torch.from_numpy(targets)


# ---- the file -------------------------------------------------------------------------------------------------------


def build() -> dict[str, str]:
    """All that has to be equal for equal bits: torch, the processor as its libraries see it, and what they are told."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    words = ("vendor_id", "cpu family", "model", "stepping", "model name")
    sets = [flag for flag in cpu.get("flags", "").split() if flag.startswith(("sse", "avx", "fma", "amx"))]
    told = [f"{key}={value}" for key, value in sorted(os.environ.items()) if key.startswith(("MKL_", "ONEDNN_"))]
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": ", ".join(cpu.get(word, "?") for word in words),
        "instructions": " ".join(sorted(sets)),
        "environment": " ".join(word for word in told if not word.startswith("MKL_NUM_THREADS")),
    }


def difference(stored: Sequence[str], found: Sequence[float], *, bits: bool) -> str:
    """Where the losses of a case first differ from the stored ones, and by how much; empty where they do not.

    ``bits``: to the last; else by more than TOLERANCE of the loss.
    """
    expected = [float.fromhex(text) for text in stored]
    assert len(expected) == len(found) == STEPS + 1
    for step, (old, new) in enumerate(zip(expected, found, strict=True)):
        relative = abs(new - old) / abs(old)
        if not (new == old if bits else relative <= TOLERANCE):
            return f"step {step}: {new!r} was {old!r}, relative difference {relative:.1e}"
    return ""


def read(path: Path = FILE) -> dict[str, Any]:
    """The stored file."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def write(path: Path, wanted: Mapping[str, Science]) -> str:
    """Write what may be written and say what it was. SystemExit where the mathematics changed under one NUMERICS."""
    stored = read(path) if path.exists() else {"numerics": 0, "build": build(), "cases": {}}
    if stored["numerics"] > NUMERICS:
        raise SystemExit(f"{path} is of NUMERICS {stored['numerics']}, the code of {NUMERICS}; NUMERICS only rises")
    kept = stored["cases"] if stored["numerics"] == NUMERICS else {}
    same_build = stored["build"] == build()
    written = {}
    for name, case in kept.items():
        found = losses(science_from(case["config"]))
        wrong = difference(case["losses"], found, bits=same_build)
        if wrong:
            raise SystemExit(f"{name}, {wrong}; {REMEDY}")
        written[name] = _entry(case["config"], found)
    for name in wanted.keys() - kept.keys():
        written[name] = _entry(to_mapping(wanted[name]), losses(wanted[name]))
    path.write_text(_text(written, [*wanted, *(kept.keys() - wanted.keys())]))
    return f"{path}: {len(written)} cases, {len(written) - len(kept)} of them new" + (
        "" if same_build else "; new bits"
    )


def _entry(config: Mapping[str, Any], found: Sequence[float]) -> dict[str, Any]:
    return {"config": config, "losses": [loss.hex() for loss in found], "readable": found}


def _text(written: Mapping[str, Any], order: Iterable[str]) -> str:
    """JSON with a line for each part of a case, so that a difference of two versions can be read."""
    head = json.dumps({"numerics": NUMERICS, "build": build()}, indent=1)[:-2]
    parts = [
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in written[name].items())
        + "\n  }"
        for name in order
    ]
    return head + ',\n "cases": {\n' + ",\n".join(parts) + "\n }\n}\n"


if __name__ == "__main__":
    print(write(FILE, cases()))
