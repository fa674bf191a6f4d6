"""What does a run say to the table? Its columns once, as text that runs share, and its evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from structlin.anatomy.compute import inherited_flops, is_even
from structlin.anatomy.guide import guide_steps
from structlin.anatomy.ledger import alike, ledger, ledger_at
from structlin.config.identity import to_mapping
from structlin.config.nested import at_share, menu_of
from structlin.config.science import Science
from structlin.runs import measures
from structlin.runs.machine import BACKEND
from structlin.runs.speeds import shape_key
from structlin.structure import Theta, factorise
from structlin.tracker.history import flat

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A run as a store gives it, or a copy of one: all that its rows follow from."""

    run_id: str
    science: Science
    status: str
    origin: Mapping[str, Any]
    """Provenance of its newest attempt; empty where it is not known."""
    evaluations: Sequence[Mapping[str, Any]]
    """Step and val_loss of each, by step; and rank_share, where the run nests its ranks."""
    torn: int = 0
    """Lines of its journal that could not be read."""
    config: dict[str, Any] | None = None
    """The science as plain values, where they are known already."""


@dataclass(frozen=True)
class Shared:
    """What runs have in common that differ in their id, seed and evaluations alone."""

    columns: dict[str, Any]
    """The run's own, then its config; None for what each run has of its own (``OF_RUN``)."""
    num_own: int
    """How many of the columns are the run's own."""
    recomputed_macs: int
    """Forward MACs per token that its steps spend again."""
    batch_tokens: int
    warmup_steps: int
    guide_steps: int
    """Steps in which a dense matrix guides the factors."""
    is_even: bool
    """Whether every update costs alike."""
    inherited_flops: int
    """Training FLOPs of the run that it starts from."""
    machine: str
    shape: str
    """With the machine: what its speed depends on."""
    torn: int


OF_RUN = ("run_id", "seed", "config.seed")


@dataclass(frozen=True, slots=True)
class Record:
    """A run as the table shows it."""

    run_id: str
    seed: int
    shared: Shared
    steps: Ints
    losses: Floats
    more: str
    """JSON: what its evaluations say besides, a list a name; {} for most."""


@lru_cache(maxsize=65_536)
def shared_of(names: str, values: str) -> Shared:
    """The same object for equal texts: a store of thousands of runs has few."""
    num_own, *columns = json.loads(names)
    *others, found = json.loads(values)
    return Shared(dict(zip(columns, found, strict=True)), num_own, *others)


def by_share(run: Measured) -> Iterator[tuple[Fraction, tuple[Record, str, str]]]:
    """A run at each share of its ranks that it is trained at, of most runs the whole alone; with each what it shares
    with other runs, as texts of names and values."""
    menu = menu_of(run.science.nested)
    for share in menu:
        rows = [row for row in run.evaluations if row.get("rank_share", 1) == float(share)] if menu[1:] else None
        if rows or share == 1:
            yield share, _record(run if rows is None else replace(run, evaluations=rows), share)


def _record(run: Measured, share: Fraction) -> tuple[Record, str, str]:
    """A run at a share of its ranks, and what it shares with others as two texts: names and values."""
    science = run.science
    origin = {name: run.origin.get(name) for name in BACKEND}
    fused = str(origin["backend"]).startswith(("cpp", "triton"))
    recompute = bool(run.origin.get("recompute"))
    evaluations = sorted(run.evaluations, key=lambda row: int(row["step"]))
    own = (
        _run_columns(run, share)
        | _cost_columns(science, share, fused=fused, recompute=recompute)
        | origin
        | _corpus_columns(run.origin.get("corpus") or {})
    )
    config = flat(with_parent_as_text(to_mapping(science) if run.config is None else run.config))
    columns = own | {f"config.{name}": value for name, value in config} | dict.fromkeys(OF_RUN)
    recomputed = ledger(science).recomputed_macs_per_token if recompute else 0
    others: list[Any] = [recomputed, science.optim.batch_tokens, science.schedule.warmup_steps]
    others += [guide_steps(science), is_even(science), inherited_flops(science)]
    others += [str(run.origin.get("machine")), shape_key(science), run.torn]
    names = json.dumps([len(own), *columns])
    values = json.dumps([*others, list(columns.values())])
    steps = np.asarray([row["step"] for row in evaluations], dtype=np.int64)
    losses = np.asarray([row["val_loss"] for row in evaluations], dtype=float)
    more = _more([measures.of_row(row) for row in evaluations])
    return Record(run.run_id, science.seed, shared_of(names, values), steps, losses, more), names, values


def _more(rows: Sequence[Mapping[str, float]]) -> str:
    """Errors and losses besides the first, a list a name, null where an evaluation lacks one."""
    names = [name for name in measures.MORE if any(name in row for row in rows)]
    return json.dumps({name: [row.get(name) for row in rows] for name in names})


def with_parent_as_text(config: dict[str, Any]) -> dict[str, Any]:
    """A config whose parent, which has as many fields again, is one column of JSON."""
    start = config.get("start")
    if not isinstance(start, Mapping) or not start.get("parent"):
        return config
    return {**config, "start": {**start, "parent": json.dumps(start["parent"], sort_keys=True)}}


def _corpus_columns(corpus: Mapping[str, Any]) -> dict[str, float]:
    """Tokens of the training split, and the losses of its unigrams and bigrams; NaN where provenance lacks them."""
    known = {name: corpus.get(name) for name in ("train_tokens", "unigram_loss", "bigram_loss")}
    return {name: float("nan") if value is None else float(value) for name, value in known.items()}


def _run_columns(run: Measured, share: Fraction) -> dict[str, Any]:
    science = run.science
    model, optim, schedule = science.model, science.optim, science.schedule
    return {
        "run_id": run.run_id,
        "variant": at_share(science.variant, share),
        "structure": science.structure.name,
        "theta": science.structure.theta,
        "moe": science.moe.label,
        "task": science.task,
        "data": science.data.name,
        "tokenizer": science.data.tokenizer,
        "model": model.name,
        "optimizer": optim.name,
        "rate_rule": optim.rate_rule,
        "d_model": model.d_model,
        "num_layers": model.num_layers,
        "d_head": getattr(model, "head_size", float("nan")),
        "context": model.context,
        "seed": science.seed,
        "learning_rate": optim.lr,
        "batch_tokens": optim.batch_tokens,
        "dtype": model.dtype,
        "schedule": schedule.kind,
        "warmup_steps": schedule.warmup_steps,
        "horizon_steps": float("nan") if schedule.horizon_steps is None else float(schedule.horizon_steps),
        "status": run.status,
        "mixed_code": bool(run.origin.get("mixed_code")),
        "rank_share": float(share),
    }


def _cost_columns(science: Science, share: Fraction, *, fused: bool, recompute: bool) -> dict[str, Any]:
    """Costs are those of the model and the batch: one answer for all seeds, rates and lengths."""
    return _costs_of(alike(science), share, fused, recompute)


@lru_cache(maxsize=16_384)
def _costs_of(science: Science, share: Fraction, fused: bool, recompute: bool) -> dict[str, Any]:
    """MACs and parameters at a share of the ranks; bytes of training, which takes them all."""
    whole, costs = ledger(science), ledger_at(science, share)
    width = science.model.d_model
    place = factorise(Theta.parse(science.structure.theta), width, width, science.structure.rounding).taxonomy
    macs = {f"macs_{group}": costs.macs[group] for group in ("attention", "linear", "head", "router")}
    params = {f"params_{group}": count for group, count in costs.params.items() if group != "attention"}
    assert sum(macs.values()) == costs.macs_per_token
    assert sum(params.values()) == costs.params_total
    return {
        "macs_per_token": costs.macs_per_token,
        "logged_macs_per_token": costs.logged_macs_per_token,
        **macs,
        "params_total": costs.params_total,
        "params_active": costs.params_active,
        **params,
        "xi": costs.xi,
        "weight_bytes": whole.weight_bytes,
        "activation_bytes": whole.kept_bytes(fused=fused, recompute=recompute),
        "nu": place.nu,
        "omega": place.omega,
        "psi": place.psi,
    }
