"""What will the planned cells tell? The interval of each multiplier and exponent that a plan can be expected to give.

A pilot law L(N, D) = E + A/N^alpha + B/D^beta says what each cell would measure, and its noise how surely: the Fisher
information of (E, log A, log B, alpha, beta) from the planned rows, J^T V^-1 J with V = s_row^2 I + s_run^2 11^T within
a run. A wide prior keeps a plan of few widths from being nothing at all. The interval of the multiplier at the largest
compute that both structures reach follows by the delta method through log L and its slope.

The pilot is the user's own law of the variant where laws.json (grid.laws) has one, with what its runs already tell;
else one kept with the package (pilots.json: bench/pilots.py), which is named. numpy alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from structlin.anatomy.ledger import ledger
from structlin.config.request import SweepRequest
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.host.files import read_json
from structlin.planning.grid import Cell, Plan

Array = npt.NDArray[np.float64]
BASELINE = "dense"
CONFIDENCE, QUANTILE = 0.9, 1.6449
TOLD = 1.25
"""A plan decides where a multiplier of a quarter more, or that of the pilots where it is larger, is told from 1."""
PRIOR = {"E": 0.3, "log_A": 1.0, "log_B": 1.0, "alpha": 0.5, "beta": 0.5}
"""Standard deviations of the prior: relative for E, alpha and beta, absolute for the logarithms."""
BEYOND = 30.0
"""A kept pilot is used to so many times the compute of its runs."""
ROWS_A_DECADE = 20
"""Evaluations of a run per decade of tokens, from the end of warm-up on."""
LEAST_ROW_NOISE, LEAST_RUN_NOISE = 3e-4, 1e-3


@dataclass(frozen=True)
class Pilot:
    """What is known before a plan is carried out."""

    values: Mapping[str, float]
    """E, A, B, alpha, beta, run_noise, row_noise."""
    source: str
    """Where it comes from, for people."""
    information: Array | None = None
    """Of runs that are there already, (5, 5); None: none."""
    centre: tuple[float, float] | None = None
    """log N and log D at which A and B of the information are taken."""

    def loss(self, size: float, tokens: float) -> float:
        """L(N, D)."""
        v = self.values
        return float(v["E"] + v["A"] * size ** -v["alpha"] + v["B"] * tokens ** -v["beta"])

    @property
    def exponent(self) -> float:
        """Of the frontier: L - E ~ C^-exponent."""
        alpha, beta = self.values["alpha"], self.values["beta"]
        return alpha * beta / (alpha + beta)

    def optimum(self, flops: float) -> tuple[float, float]:
        """N and D of the lowest loss at C = 6 N D."""
        v = self.values
        total = v["alpha"] + v["beta"]
        ratio = v["alpha"] * v["A"] / (v["beta"] * v["B"])
        size = (ratio * (flops / 6) ** v["beta"]) ** (1 / total)
        return size, flops / (6 * size)

    def compute_for(self, loss: float) -> float:
        """Least FLOPs for a loss; infinite below the floor."""
        low, high = 1.0, 1e40
        if loss <= self.loss(*self.optimum(high)):
            return math.inf
        for _ in range(200):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.loss(*self.optimum(middle)) > loss else (low, middle)
        return math.sqrt(low * high)


@dataclass(frozen=True)
class Answer:
    """What a plan can be expected to say of one structure."""

    variant: str
    baseline: str
    flops: float
    """The largest compute that both reach."""
    factor: float
    """The interval of the multiplier reaches from itself / factor to itself * factor."""
    exponent: float
    exponent_half: float
    """The frontier's exponent and the half-width of its interval."""
    expected: float | None
    """The multiplier by the pilots; None where they are not of one source."""
    source: str
    runs: int

    @property
    def decides(self) -> bool:
        """Whether the structure would be told from the baseline: by the pilots' multiplier, or by a quarter."""
        expected = 1.0 if self.expected is None else max(self.expected, 1 / self.expected)
        return self.factor <= max(TOLD, expected)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for format=json."""
        finite = math.isfinite(self.factor)
        return {
            "variant": self.variant, "baseline": self.baseline, "flops": self.flops,
            "factor": self.factor if finite else None, "exponent": self.exponent,
            "exponent_half_width": self.exponent_half, "expected_multiplier": self.expected,
            "confidence": CONFIDENCE, "pilot": self.source, "decides": self.decides,
        }  # fmt: skip


def answers(plan: Plan, request: SweepRequest) -> list[Answer]:
    """What the plan would say of every structure but the baseline; [] where there is nothing to compare with."""
    laws = own_laws(request.grid.laws)
    groups = _by_variant(plan.cells)
    base = next((name for name in groups if name.split("+")[0].split("/")[0] == BASELINE), None)
    if base is None or task_without_pilot(request, laws):
        return []
    found = []
    for variant, runs in groups.items():
        if variant != base:
            found.append(_answer(variant, runs, base, groups[base], laws))
    return found


def task_without_pilot(request: SweepRequest, laws: Mapping[str, Any] | None = None) -> str:
    """A task of which neither the user nor the package has laws, so that nothing is foretold; empty where all have."""
    known = own_laws(request.grid.laws) if laws is None else laws
    for template in request.templates:
        science = template.science
        if science.data.kind not in kept() and _own(science.variant, known) is None:
            return science.task
    return ""


def _answer(
    variant: str, runs: Sequence[Cell], base: str, base_runs: Sequence[Cell], laws: Mapping[str, Any]
) -> Answer:
    top = min(max(cell.training_flops for cell in of) for of in (runs, base_runs))
    own, other = (pilot_of(of[0].science, top, laws) for of in (runs, base_runs))
    told = [_told(pilot, of, top) for pilot, of in ((own, runs), (other, base_runs))]
    spread = math.hypot(told[0][0], told[1][0])
    expected = None
    if own.source == other.source and own.values is not other.values:
        expected = other.compute_for(own.loss(*own.optimum(top))) / top
    return Answer(
        variant, base, top, math.exp(min(QUANTILE * spread, 50.0)), own.exponent, QUANTILE * told[0][1],
        expected if expected is not None and math.isfinite(expected) else None, own.source, len(runs) + len(base_runs),
    )  # fmt: skip


def _by_variant(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Variant -> the longest cell of each of its runs."""
    longest: dict[Science, Cell] = {}
    for cell in cells:
        known = longest.get(cell.science)
        longest[cell.science] = cell if known is None or cell.step > known.step else known
    groups: dict[str, list[Cell]] = {}
    for cell in longest.values():
        groups.setdefault(cell.science.variant, []).append(cell)
    return groups


# --- information --------------------------------------------------------------------------------------------------


def _told(pilot: Pilot, runs: Sequence[Cell], top: float) -> tuple[float, float]:
    """Standard deviations of log C at the loss of the optimum at ``top``, and of the exponent."""
    sizes = [ledger(cell.science).macs_per_token for cell in runs]
    centre = pilot.centre or (
        float(np.mean(np.log(sizes))), float(np.mean(np.log([cell.tokens for cell in runs])))
    )  # fmt: skip
    information = _prior(pilot) if pilot.information is None else pilot.information + 1e-3 * _prior(pilot)
    for cell, size in zip(runs, sizes, strict=True):
        information = information + _of_run(pilot, cell, size, centre)
    covariance = np.linalg.pinv(information, hermitian=True)
    best, tokens = pilot.optimum(top)
    gradient = _jacobian(pilot, centre, best, np.array([tokens]))[0]
    loss = pilot.loss(best, tokens)
    slope = pilot.exponent * (loss - pilot.values["E"]) / loss
    alpha, beta = pilot.values["alpha"], pilot.values["beta"]
    of_exponent = np.array([0, 0, 0, beta**2, alpha**2]) / (alpha + beta) ** 2
    deviation = [math.sqrt(max(0.0, float(g @ covariance @ g))) for g in (gradient, of_exponent)]
    # The best of a structure's runs is a draw too: noise between runs does not vanish with the law's.
    noise = max(pilot.values["run_noise"], LEAST_RUN_NOISE) / math.sqrt(_seeds(runs))
    return math.hypot(deviation[0], noise) / slope, deviation[1]


def _seeds(runs: Sequence[Cell]) -> int:
    """Seeds that a structure is trained under."""
    return len({cell.science.seed for cell in runs})


def _prior(pilot: Pilot) -> Array:
    """Precision of the prior."""
    v = pilot.values
    deviations = [
        PRIOR["E"] * v["E"],
        PRIOR["log_A"],
        PRIOR["log_B"],
        PRIOR["alpha"] * v["alpha"],
        PRIOR["beta"] * v["beta"],
    ]
    return np.diag([1 / max(deviation, 1e-6) ** 2 for deviation in deviations])


def _of_run(pilot: Pilot, cell: Cell, size: int, centre: tuple[float, float]) -> Array:
    """Information of one run: its evaluations after warm-up (of a decayed run the last), with an error in common."""
    decayed = cell.science.schedule.kind != "constant"
    warm = cell.science.schedule.warmup_steps * cell.science.optim.batch_tokens
    tokens = np.array([float(cell.tokens)]) if decayed else _evaluated(warm, cell.tokens)
    if not len(tokens):
        return np.zeros((5, 5))
    jacobian = _jacobian(pilot, centre, float(size), tokens)
    row = max(pilot.values["row_noise"], LEAST_ROW_NOISE)
    run = max(pilot.values["run_noise"], LEAST_RUN_NOISE)
    sums = jacobian.sum(axis=0)
    shrink = run**2 / (row**2 + len(tokens) * run**2)
    found: Array = (jacobian.T @ jacobian - shrink * np.outer(sums, sums)) / row**2
    return found


def _evaluated(warm: int, tokens: int) -> Array:
    """Tokens at which a trunk is evaluated: on one lattice, so that a longer run has the rows of a shorter one."""
    step = 1 / ROWS_A_DECADE
    first, last = math.ceil(math.log10(max(warm, 1)) / step), math.floor(math.log10(tokens) / step)
    return np.power(10.0, step * np.arange(first, last + 1, dtype=np.float64))


def _jacobian(pilot: Pilot, centre: tuple[float, float], size: float, tokens: Array) -> Array:
    """d log L / d (E, log A, log B, alpha, beta), (n, 5)."""
    v = pilot.values
    of_n = np.full(len(tokens), v["A"] * size ** -v["alpha"])
    of_d = v["B"] * tokens ** -v["beta"]
    loss = v["E"] + of_n + of_d
    x, y = math.log(size) - centre[0], np.log(tokens) - centre[1]
    found: Array = np.stack([np.ones(len(tokens)), of_n, of_d, -x * of_n, -y * of_d], axis=1) / loss[:, None]
    return found


# --- pilots -------------------------------------------------------------------------------------------------------


def own_laws(path: str) -> Mapping[str, Any]:
    """A user's laws.json; empty where there is none, or one that cannot be read."""
    try:
        found = read_json(Path(path)) if Path(path).is_file() else {}
    except UserError:
        return {}
    return {**found, "path": path} if isinstance(found, dict) else {}


def pilot_of(science: Science, flops: float, laws: Mapping[str, Any]) -> Pilot:
    """The user's own pilot of a variant, else a kept one of its task, of its structure or of the nearest kin."""
    own = _own(science.variant, laws)
    if own is not None:
        return own
    known = kept()
    kind = science.data.kind
    entry = known[kind]
    if flops > BEYOND * entry["flops"] and kind == "language":
        entry = known["large"]
    laws_of = entry["laws"]
    structure = science.structure.plain_name
    name = structure if structure in laws_of else "btt" if structure != BASELINE and "btt" in laws_of else BASELINE
    where = f"the law of {name} by {entry['study']}" if entry["study"].startswith("arXiv") else (
        f"laws of study={entry['study']}, kept with structlin"
    )  # fmt: skip
    return Pilot(laws_of[name], where)


def _own(variant: str, laws: Mapping[str, Any]) -> Pilot | None:
    """The pilot of a variant in laws.json, with the information of its runs."""
    try:
        law, about = laws["parametric"][variant], laws["design"][variant]
        values = {name: float(law[name]) for name in ("E", "A", "B", "alpha", "beta")}
        values |= {name: float(about[name]) for name in ("run_noise", "row_noise")}
        information = np.array(about["information"], dtype=float)
        centre = (float(about["centre"][0]), float(about["centre"][1]))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    is_usable = all(math.isfinite(v) for v in values.values()) and min(values["alpha"], values["beta"]) > 1e-3
    if law.get("form", "additive") != "additive" or not is_usable or not np.isfinite(information).all():
        return None
    return Pilot(values, f"your own laws, {laws['path']}", information, centre)


@cache
def kept() -> dict[str, Any]:
    """The pilots of the package, by task."""
    found: dict[str, Any] = json.loads((Path(__file__).parent / "pilots.json").read_text())
    return found
