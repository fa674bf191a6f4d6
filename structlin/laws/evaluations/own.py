"""How does the table of this project's runs become evaluations? The frame is that of source.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from structlin.errors import UserError
from structlin.laws.caution import Caution
from structlin.laws.choices import Choices
from structlin.laws.evaluations.duplicates import without_duplicates
from structlin.laws.evaluations.quantities import first
from structlin.laws.evaluations.where import select

CORPUS = ("train_tokens", "unigram_loss", "bigram_loss")
"""What provenance says of a corpus: its size, and the losses of its unigrams and bigrams."""
# Columns that no foreign table has together, and without which from_runs cannot read one.
_OWN = (
    "run_id", "variant", "seed", "macs_per_token", "tokens", "training_flops", "paper_flops", "val_loss", "d_model",
    "step", "in_warmup", "schedule", "horizon_steps", "status", "params_total", "weight_bytes", "activation_bytes",
    "tokens_per_second",
)  # fmt: skip
# Convention of own runs -> its column and what stands in laws.json and on axes.
_CONVENTIONS = {
    "training": ("training_flops", "6 x forward MACs x tokens"),
    "paper": ("paper_flops", "forward MACs x tokens"),
    "logged": ("logged_flops", "(forward MACs, A first, + 5 per normed element) x tokens"),
}
# Parts of an own run's config that differ within a law: its size, seed and length, and what makes its variant.
_FREE = tuple(
    f"config.{name}"
    for name in (
        "seed", "model.d_model", "model.num_layers", "model.structured", "model.weight_norm", "model.moe", "moe",
        "optim.rate_rule", "optim.lr", "schedule.", "structure.", "guide.", "start.", "nested", "model.kv_heads",
        "model.attention_width",
    )
)  # fmt: skip
# One more, which is the beginning of another's name: a start that is not the published one of its structure is a word
# of the variant.
_START = "config.model.init"
# Training FLOPs within this share of 6 N D are those of an even run.
_EVEN = 0.01


def is_own(table: pd.DataFrame) -> bool:
    """Whether this project wrote the table: an export of a store, or the kept runs of a study."""
    return set(_OWN) <= set(table.columns)


def with_corpus(table: pd.DataFrame, corpus: Mapping[str, Any]) -> pd.DataFrame:
    """A table of own runs with what its provenance says of the corpus, where the table was written without it."""
    new: dict[str, Any] = {
        name: float(corpus[name]) for name in CORPUS if name not in table and corpus.get(name) is not None
    }
    if "train_tokens" in new and "epochs" not in table:
        new["epochs"] = table["tokens"] / new["train_tokens"]
    return table.assign(**new)


def from_runs(table: pd.DataFrame, choices: Choices) -> tuple[pd.DataFrame, dict[str, object], list[Caution]]:
    """The table of this project's runs -> evaluations, what was assumed, and cautions.

    N is forward MACs per token, so that training FLOPs are 6 N D, but where a run was guided or began from another
    (``uneven``). Losses while a dense matrix guides are none of the model that is left. A run whose ranks are nested
    is as many runs as it has shares of its rank, each a variant of its own, N that of the share, C that of the whole
    training. UserError where the chosen convention has no column.
    """
    table = table.reset_index(drop=True)
    if choices.where:
        table = select(table, choices.where)
    if choices.metric not in table:
        raise UserError(f"metric={choices.metric}: these runs lack that column; runs of task=classification have it")
    frame = _frame(table, choices)
    _sound(frame)
    nested = _nested(frame, table)
    frame, twice = without_duplicates(frame, choices)
    table = table.loc[frame.index]
    cautions = nested + twice
    started = frame["D"] > 0
    guided = table["in_guide"].astype(bool) if "in_guide" in table else pd.Series(False, index=table.index)
    if guided.any():
        cautions.append(Caution("left_out", f"{int(guided.sum())} evaluations while a dense matrix guides the factors"))
    started &= ~guided
    bad = started & (~np.isfinite(frame["L"]) | (frame["L"] <= 0))
    diverged = frame["run"].isin(frame.loc[table["status"] == "diverged", "run"])
    if (bad | diverged).any():
        text = f"{int(diverged.sum())} evaluations of diverged runs, {int((bad & ~diverged).sum())} without a loss"
        cautions.append(Caution("left_out", text))
    frame = frame[started & ~bad & ~diverged].reset_index(drop=True)
    if frame.empty:
        raise UserError("the store holds no evaluations with a loss yet; train first with sweep.py or train.py")
    return frame, {"flops": _CONVENTIONS[choices.convention][1], "size": "forward MACs per token"}, cautions


def _sound(frame: pd.DataFrame) -> None:
    """UserError for a row that no run of ours has written: without a name, or with a size or compute that is none."""
    for name, column in (("run", "run_id"), ("variant", "variant")):
        text = frame[name].astype(object)
        bad = text.isna() | (text.astype(str).str.strip() == "")
        if bad.any():
            row = int(frame.index[first(bad)]) + 1
            raise UserError(f"row {row}, column '{column}': it is empty; a row needs its run and its variant")
    trained = frame["D"] != 0
    for name, column in (("D", "tokens"), ("N", "macs_per_token"), ("C", "FLOPs")):
        bad = trained & ~(np.isfinite(frame[name]) & (frame[name] > 0))
        if bad.any():
            row = first(bad)
            where = f"row {int(frame.index[row]) + 1}, column '{column}'"
            raise UserError(
                f"{where}: {frame[name].iloc[row]:g} is not a positive, finite number; mend the table, or leave such "
                "rows out by where=..."
            )


def _frame(table: pd.DataFrame, choices: Choices) -> pd.DataFrame:
    """All rows of a table of own runs, under the names that the fits read."""
    frame = pd.DataFrame(
        {
            "run": table["run_id"], "variant": table["variant"], "seed": table["seed"].astype(str),
            "N": table["macs_per_token"].astype(float), "D": table["tokens"].astype(float),
            "C": _counted(table, choices.convention),
            "L": table[choices.metric].astype(float), "metric": choices.metric,
            "width": table["d_model"].astype(float), "step": table["step"],
            "in_warmup": table["in_warmup"].astype(bool),
        }
    )  # fmt: skip
    keep = ["epochs", "unigram_loss", "bigram_loss",
            "task", "data", "tokenizer", "model", "context", "batch_tokens", "optimizer", "dtype", "theta",
            "schedule", "learning_rate", "num_layers", "status", "nu", "omega", "psi", "macs_head", "macs_attention",
            "xi", "params_total", "params_active", "params_embedding", "params_head"]  # fmt: skip
    frame = frame.join(table[[name for name in keep if name in table]])
    # What a law may not mix, and the table names only in its config; ``variant`` holds the free parts of the model.
    rest = [name for name in table if str(name).startswith("config.") and not str(name).startswith(_FREE)]
    rest = [name for name in rest if name != _START]
    frame = frame.join(table[rest])
    if "config.structure.rounding" in table:
        frame["rounding"] = table["config.structure.rounding"]
    decayed = table["schedule"] != "constant"
    even = 6.0 * frame["N"] * frame["D"]
    frame["uneven"] = (table["training_flops"].astype(float) - even).abs() > _EVEN * even
    frame["kind"] = np.where(decayed, "decayed", "constant")
    frame["final"] = ~decayed | (table["step"] >= table["horizon_steps"])
    frame["pair"] = frame["width"].map("{:g}".format) + "/" + frame["seed"]
    frame["params"] = table["params_total"].astype(float)
    # Of training: a weight, its gradient and two moments, and what a step keeps for the backward pass.
    frame["memory"] = (4.0 * table["weight_bytes"] + table["activation_bytes"]).astype(float)
    speed = table["tokens_per_second"].astype(float)
    frame["seconds"] = frame["D"] / speed.where(speed > 0)
    if "decode_ms_1" in table:
        frame["decode"] = table["decode_ms_1"].astype(float)
    return frame


def _nested(frame: pd.DataFrame, table: pd.DataFrame) -> list[Caution]:
    """Give every share of the rank of one run a run of its own, and say what such losses are."""
    if "rank_share" not in table:
        return []
    part = table["rank_share"].astype(float) != 1
    if not part.any():
        return []
    share = table.loc[part, "variant"].astype(str).str.rpartition("@")[2]
    frame["run"] = frame["run"].astype(str)
    frame.loc[part, "run"] += "@" + share
    nested = table["run_id"].isin(table.loc[part, "run_id"])
    variants = sorted(table.loc[nested, "variant"].astype(str).unique())
    text = (
        "losses of ranks that one run was trained at together lie above those of runs trained at that rank alone; by "
        "how much: docs/nested.md"
    )
    return [Caution("nested_ranks", text, variant) for variant in variants]


def _counted(table: pd.DataFrame, convention: str) -> pd.Series:
    """The FLOPs of a table of own runs; UserError where it was written before they were counted so."""
    column, _ = _CONVENTIONS[convention]
    if column not in table:
        raise UserError(
            f"convention={convention} needs the column {column}, which this table was written without; export its runs "
            "again with python -m structlin.runs.table, or take convention=paper"
        )
    return table[column].astype(float)
