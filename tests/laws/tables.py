"""Tables the tests of the laws share: a table as this project's runs give it, and three planted structures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from structlin.laws import synthetic
from structlin.laws.approaches.fit import fit_laws
from structlin.laws.approaches.laws import Laws
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.choices import Choices
from structlin.laws.evaluations.own import from_runs
from structlin.laws.evaluations.points import choose
from structlin.laws.evaluations.source import from_table

DENSE = synthetic.CHINCHILLA
# Same E, B and exponents: btt needs fewer MACs for the same loss at every compute.
BTT = ParametricLaw(DENSE.E, 0.7 * DENSE.A, DENSE.B, DENSE.alpha, DENSE.beta)


def two(seed: int = 0, **options: object) -> pd.DataFrame:
    """Trunks of dense and btt under their planted laws."""
    generator = np.random.default_rng(seed)
    frames = [
        synthetic.trunks(law, variant=name, generator=generator, **options)  # type: ignore[arg-type]
        for name, law in (("dense", DENSE), ("btt", BTT))
    ]
    return pd.concat(frames, ignore_index=True)


def own(seed: int = 0, **options: object) -> pd.DataFrame:
    """The same two as a table of this project's runs: constant-rate trunks with a warm-up evaluation each."""
    table = two(seed, **options)
    step = table.groupby("run").cumcount() + 1
    return pd.DataFrame(
        {
            "run_id": table["run"], "variant": table["variant"], "structure": table["variant"], "moe": "none",
            "task": "language", "data": "sotu", "tokenizer": "char96", "model": "gpt2", "optimizer": "adamw",
            "rate_rule": "structure", "d_model": table["width"].astype(int), "num_layers": 3, "d_head": 16,
            "context": 128, "seed": table["seed"], "learning_rate": 3e-3, "batch_tokens": 4096, "dtype": "float32",
            "schedule": "constant", "warmup_steps": 1, "horizon_steps": np.nan, "in_warmup": step == 1,
            "step": step, "tokens": table["tokens"], "val_loss": table["loss"], "macs_per_token": table["params"],
            "training_flops": 6 * table["params"] * table["tokens"], "paper_flops": table["params"] * table["tokens"],
            "params_total": table["params"] * 0.9, "params_active": table["params"] * 0.9,
            "params_embedding": table["params"] * 0.05, "params_head": table["params"] * 0.05,
            "macs_head": table["params"] * 0.05, "macs_attention": table["params"] * 0.05,
            "weight_bytes": table["params"] * 4,
            "activation_bytes": table["params"] * 2, "tokens_per_second": 1e12 / table["params"], "status": "done",
            "nu": np.where(table["variant"] == "dense", 1.0, 0.5), "omega": 0.0, "psi": 1.0,
        }
    )  # fmt: skip


def laws_of(table: pd.DataFrame, **options: object) -> Laws:
    """A foreign table through reading, choosing and fitting."""
    choices = Choices(source="table", table="memory.csv", **options)  # type: ignore[arg-type]
    frame, assumed, cautions = from_table(table, choices)
    return fit_laws(choose(frame, choices, assumed, cautions, own=False), choices)


def laws_of_runs(table: pd.DataFrame, **options: object) -> Laws:
    """A table of this project's runs through reading, choosing and fitting."""
    choices = Choices(**options)  # type: ignore[arg-type]
    frame, assumed, cautions = from_runs(table, choices)
    return fit_laws(choose(frame, choices, assumed, cautions, own=True), choices)


def names(laws: Laws) -> set[str]:
    """Names of the cautions."""
    return {caution.name for caution in laws.cautions}
