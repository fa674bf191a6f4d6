"""Tables of runs as this project's runs give them, under planted laws, for the figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from structlin.laws import synthetic
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.structure import lookup

DENSE = synthetic.CHINCHILLA
SPAN = (1e15, 1e17)
SIZES = (2e5, 8e5, 3.2e6, 1.28e7)


def law_of(gain: float) -> ParametricLaw:
    """Dense's law with the size term times 1/gain: fewer MACs for the same loss where gain is above 1."""
    return ParametricLaw(DENSE.E, DENSE.A / gain, DENSE.B, DENSE.alpha, DENSE.beta)


def runs(
    gains: dict[str, float], *, task: str = "language", seeds: Sequence[int] = (0,), seed: int = 0
) -> pd.DataFrame:
    """Constant-rate runs of variants; a variant is a catalogue name, with a mixture or head layout after it."""
    generator = np.random.default_rng(seed)
    frames = [
        synthetic.trunks(law_of(gain), variant=name, sizes=SIZES, flops=SPAN, seeds=seeds, evaluations=16,
                         generator=generator)
        for name, gain in gains.items()
    ]  # fmt: skip
    table = pd.concat(frames, ignore_index=True)
    structure = table["variant"].map(structure_of)
    places = {name: lookup(name).taxonomy for name in structure.unique()}
    size = table["params"]
    return pd.DataFrame(
        {
            "run_id": table["run"], "variant": table["variant"], "structure": structure,
            "theta": structure.map(lambda name: str(lookup(name))),
            "moe": table["variant"].map(lambda v: next((w for w in v.split("+") if w.startswith("moe")), "none")),
            "task": task, "data": "sotu", "tokenizer": "char96", "model": "gpt2", "optimizer": "adamw",
            "rate_rule": "structure", "d_model": table["width"].astype(int), "num_layers": 3, "d_head": 16,
            "context": 64, "seed": table["seed"], "learning_rate": 3e-3, "batch_tokens": 4096, "dtype": "float32",
            "schedule": "constant", "warmup_steps": 1, "horizon_steps": np.nan, "in_warmup": False,
            "step": table.groupby("run").cumcount() + 2, "tokens": table["tokens"], "val_loss": table["loss"],
            "macs_per_token": size, "training_flops": 6 * size * table["tokens"],
            "paper_flops": size * table["tokens"], "params_total": size * 0.9, "params_active": size * 0.9,
            "params_embedding": size * 0.05, "params_head": size * 0.05, "macs_head": size * 0.05,
            "macs_attention": size * 0.05, "weight_bytes": size * 4, "activation_bytes": size * 2,
            "tokens_per_second": 1e12 / size, "status": "done",
            **{name: structure.map(lambda s, name=name: float(getattr(places[s], name))).astype(float)
               for name in ("nu", "omega", "psi")},
        }
    )  # fmt: skip


def structure_of(variant: str) -> str:
    """btt@nddn+moe-ffn8 -> btt; moe-btt8 -> dense."""
    first = variant.split("+")[0].split("@")[0]
    return "dense" if first.startswith("moe-") else first


TAXONOMY = {
    "dense": 1.0, "btt": 1.6, "btt3": 1.3, "btt7": 1.1, "btt11": 1.4, "l1": 0.9, "low_rank": 0.7, "tt1": 0.8,
    "tt3": 0.85, "g1": 0.75,
}  # fmt: skip
TAXONOMY = {{"tt1": "kronecker", "tt3": "tensor_train"}.get(name, name): gain for name, gain in TAXONOMY.items()}
MIXTURES = {
    "dense": 1.0, "btt": 1.4, "moe-ffn8": 1.8, "btt+moe-ffn8": 2.0, "moe-btt8": 2.6, "moe-dense8": 2.2,
    "moe-low_rank8": 1.2, "moe-ffn16": 2.0, "moe-btt16": 3.0,
}  # fmt: skip
HEADS = {"btt": 1.0, "btt@nddn": 1.2, "btt@dndn": 1.15, "btt@ndnd": 1.25, "btt@dnnd": 1.1}


def landscape(
    structures: Sequence[str] = ("dense", "btt", "low_rank"), widths: Sequence[int] = (64, 128, 256)
) -> pd.DataFrame:
    """Runs over the rate: the best one stays at 1e-3 under the structure rule, and falls as 1/width under the naive."""
    rows = []
    rates = 1e-3 * 2.0 ** (np.arange(-4, 5) / 2)
    for structure in structures:
        for rule in ("structure", "naive"):
            for width in widths:
                best = 1e-3 * (1 if rule == "structure" else 64 / width)
                for rate in rates:
                    for seed in (0, 1, 2):
                        loss = 0.05 + 0.01 * np.log2(rate / best) ** 2 + 0.001 * seed + 1 / width
                        rows.append((structure, rule, width, rate, seed, loss))
    table = pd.DataFrame(rows, columns=["structure", "rate_rule", "d_model", "learning_rate", "seed", "val_loss"])
    table["run_id"], table["step"] = [f"{place:016x}" for place in range(len(table))], 250
    table["task"], table["status"] = "regression", "done"
    return table
