"""Which form of L(N, D) is believed? The one that predicts the largest computes best from all below them.

Every form is fitted below two cuts (the top decade of compute, or the upper half of a shorter range, and half of that
in logarithms) and asked about the rows above. The error of a cut is the mean absolute log error, runs counting alike.
The additive law has the fewest parameters: the powered one has to be better by a tenth, the coupled one by a quarter.

Shapes: n rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from structlin.laws.approaches import parametric
from structlin.laws.approaches.parametric import FORMS, ParametricFit
from structlin.laws.minimum.objective import Array, Objective

CLEARLY = 0.6
"""Of the additive law's error, what a form may have at most to excuse a misfit of the additive law."""
# Rows and sizes below a cut that a form of six parameters needs.
_ROWS, _SIZES = 10, 4
# Of the additive law's error, what another form may have at most. Where it is planted the coupled form has less than
# 0.4; mistuned large models, which it can imitate, leave it 0.8 and hide their misfit behind it.
_BETTER = {"additive": 1.0, "powered": 0.9, "coupled": 0.75}
# Evaluations of a run that choosing a form sees.
_EVALUATIONS = 8


@dataclass(frozen=True)
class Held:
    """How well one form foretold the largest computes."""

    error: float | None
    """Mean absolute log error above the first cut; None where too few rows lie on either side."""
    errors: tuple[float, ...]
    """The same above each cut."""
    objective: float
    """Its objective on all rows."""


@dataclass(frozen=True)
class Choice:
    """The form of one variant and what the others would have said."""

    form: str
    """One of FORMS."""
    held: dict[str, Held]
    """Every form's errors, by form."""
    fits: dict[str, ParametricFit]
    """Every form on all rows."""
    cuts: tuple[float, ...]
    """Computes below which forms were fitted, FLOPs."""
    early: ParametricFit | None = None
    """The chosen form below the first cut; None where it was not fitted."""

    @property
    def share(self) -> float:
        """Error of the chosen form over that of the additive law; 1 where one of them is not known."""
        mine, plain = self.held[self.form].errors, self.held["additive"].errors
        return float(np.mean(mine) / np.mean(plain)) if mine and plain and np.mean(plain) > 0 else 1.0

    def record(self) -> dict[str, dict[str, object]]:
        """As it stands in laws.json."""
        return {
            form: {
                "held_out": one.error,
                "held_out_cuts": list(one.errors),
                "cuts": list(self.cuts),
                "objective": one.objective,
                "chosen": form == self.form,
            }
            for form, one in self.held.items()
        }


def cuts_of(flops: Array) -> tuple[float, ...]:
    """Where the top decade begins, or the upper half of less than two decades; and half as far from the top."""
    low, high = float(np.log(flops.min())), float(np.log(flops.max()))
    reach = min(np.log(10.0), 0.5 * (high - low))
    return float(np.exp(high - reach)), float(np.exp(high - 0.5 * reach))


def choose(
    size: Array,
    tokens: Array,
    loss: Array,
    flops: Array,
    run: np.ndarray,
    objective: Objective,
    *,
    asked: str = "auto",
    pinned: float | None = None,
    weights: Array | None = None,
) -> Choice:
    """Fit every form to rows (n,) and choose one; ``run`` numbers the run of each row, ``asked`` may settle it."""
    rows = np.ones(len(loss)) if weights is None else weights
    wanted = [form for form in FORMS if form in ("additive", asked) or _enough(size)]
    fits = _all_forms(wanted, size, tokens, loss, objective, rows, pinned)
    cuts = cuts_of(flops)
    seen = thinned(run, flops, _EVALUATIONS)
    errors: dict[str, list[float]] = {form: [] for form in fits}
    below: dict[tuple[str, float], ParametricFit] = {}
    for cut in cuts:
        past, future = seen[flops[seen] <= cut], np.flatnonzero(flops > cut)
        if len(past) < _ROWS or not len(future) or not _enough(size[past]):
            continue
        there = (size[past], tokens[past], loss[past], objective, rows[past], pinned)
        for form, early in _all_forms(wanted, *there, near=fits).items():
            below[form, cut] = early
            errors[form].append(_error(early, size[future], tokens[future], loss[future], run[future]))
    held = {
        form: Held(errors[form][0] if errors[form] else None, tuple(errors[form]), fit.objective)
        for form, fit in fits.items()
    }
    chosen = asked if asked != "auto" else _best(errors)
    return Choice(chosen, held, fits, cuts, below.get((chosen, cuts[0])))


def _all_forms(
    wanted: list[str],
    size: Array,
    tokens: Array,
    loss: Array,
    objective: Objective,
    weights: Array,
    pinned: float | None,
    near: dict[str, ParametricFit] | None = None,
) -> dict[str, ParametricFit]:
    """Every wanted form; all start from the additive law, which is found first."""
    found: dict[str, ParametricFit] = {}
    for form in wanted:
        found[form] = parametric.fit(
            size, tokens, loss, objective, weights=weights, form=form, pinned=pinned,
            near=near[form] if near else None, additive=found.get("additive"),
        )  # fmt: skip
    return found


def _enough(size: Array) -> bool:
    return len(np.unique(np.round(np.log(size), 4))) >= _SIZES


def _best(errors: dict[str, list[float]]) -> str:
    """The form of lowest mean error of those that are as much better than the additive one as _BETTER asks."""
    means = {form: float(np.mean(found)) for form, found in errors.items() if found and np.isfinite(found).all()}
    if "additive" not in means:
        return "additive"
    good = [form for form, error in means.items() if error <= _BETTER[form] * means["additive"]]
    return min(good, key=lambda form: means[form])


def _error(fit: ParametricFit, size: Array, tokens: Array, loss: Array, run: np.ndarray) -> float:
    """Mean over runs of their mean absolute log error."""
    error = np.abs(np.log(fit.law.loss(size, tokens) / loss))
    _, place = np.unique(run, return_inverse=True)
    return float(np.mean(np.bincount(place, weights=error) / np.bincount(place)))


def thinned(run: np.ndarray, flops: Array, most: int) -> np.ndarray:
    """Positions of at most ``most`` rows of every run, evenly by rank of compute; ``run`` is each row's run, (n,)."""
    order = np.lexsort((flops, run))
    count = np.bincount(run)
    rank = np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)
    each = np.minimum(count, most)[run[order]] / count[run[order]]
    return np.sort(order[np.floor((rank + 1) * each + 1e-9) > np.floor(rank * each + 1e-9)])
