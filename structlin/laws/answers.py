"""How does a program ask fitted laws? Predictions, comparisons, verdicts, a table and a figure of a ``Laws``.

These are the methods of ``structlin.fit``'s answer; the command line writes the same numbers to laws.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from structlin.errors import UserError, suggest
from structlin.laws import predictions
from structlin.laws.approaches import multiplier
from structlin.laws.approaches.laws import Laws
from structlin.laws.choices import in_full
from structlin.laws.report import laws_json
from structlin.laws.verdict import verdicts

Entry = dict[str, Any]


def predict(
    laws: Laws,
    flops: float | Sequence[float] | None,
    loss: float | Sequence[float] | None,
    params: float | None,
    tokens: float | None,
    variant: str | None,
) -> list[Entry]:
    """``Laws.predict``."""
    variants = None if variant is None else [known(laws, variant)]
    if (params is None) != (tokens is None):
        raise UserError("a prediction at one model needs both params=... and tokens=...")
    found: list[Entry] = []
    if params is not None and tokens is not None:
        found += predictions.at(laws, params, tokens, variants)
    found += predictions.predict(laws, _listed(flops), _listed(loss), variants)
    if flops is None and loss is None and params is None:
        raise UserError(
            "nothing to predict; give a compute, predict(1e22), a loss, predict(loss=2.0), or both of a model"
        )
    answer: list[Entry] = laws_json.plain(found)
    return answer


def _listed(values: float | Sequence[float] | None) -> list[float]:
    if values is None:
        return []
    return list(values) if isinstance(values, list | tuple | np.ndarray) else [values]  # type: ignore[list-item]


def known(laws: Laws, variant: str) -> str:
    """The name of a variant, which may be given short (``in_full``); UserError with the nearest where there is none."""
    variant = in_full(variant, laws.points.variants)
    if variant not in laws.points.variants:
        raise UserError(f"there is no variant '{variant}'; {suggest(str(variant), laws.points.variants)}")
    return variant


def compare(laws: Laws, variant: str, baseline: str | None) -> Entry:
    """``Laws.compare``. UserError where the two share no losses, or one has too few points for a frontier."""
    variant = known(laws, variant)
    base = known(laws, baseline) if baseline is not None else laws.baseline
    if base is None:
        names = ", ".join(laws.points.variants)
        raise UserError(f"there is no baseline to compare with; fit with baseline=..., one of {names}")
    if variant == base:
        raise UserError(f"'{variant}' is the baseline itself; compare another: {', '.join(laws.points.variants)}")
    found = laws.multipliers.get(variant) if base == laws.baseline else _against(laws, variant, base)
    if found is None:
        raise UserError(f"'{variant}' and '{base}' cannot be compared: {verdicts(laws)[variant]}")
    sentence = {"verdict": verdicts(laws)[variant]} if base == laws.baseline else {}
    answer: Entry = laws_json.plain({"variant": variant, **laws_json.multiplier(found), **sentence})
    return answer


def _against(laws: Laws, variant: str, base: str) -> multiplier.Multiplier | None:
    """The multiplier against another baseline than the one that was fitted with."""
    law, other = laws.frontiers.get(variant), laws.frontiers.get(base)
    if law is None or other is None:
        return None
    frame = laws.points.of(variant)
    observed = (frame["C"].to_numpy(float)[law.members], frame["L"].to_numpy(float)[law.members])
    factor = max(laws.factor(variant, "multiplier"), laws.factor(base, "multiplier"))
    found = multiplier.compare(
        variant, law, observed, base, other,
        confidence=laws.choices.confidence, factor=factor, procedure=laws.choices.procedure,
    )  # fmt: skip
    silent = any(laws.withholds(one, "multiplier") for one in (variant, base))
    return multiplier.without_intervals(found) if found is not None and silent else found


def verdict(laws: Laws, variant: str | None) -> str | dict[str, str]:
    """``Laws.verdict``."""
    found = verdicts(laws)
    return found if variant is None else found[known(laws, variant)]


def to_frame(laws: Laws) -> pd.DataFrame:
    """``Laws.to_frame``."""
    said = verdicts(laws)
    rows = []
    for variant in laws.points.variants:
        frame, law, three = laws.points.of(variant), laws.frontiers.get(variant), laws.parametrics.get(variant)
        row: Entry = {
            "variant": variant, "runs": frame["run"].nunique(), "evaluations": len(frame),
            "flops_low": frame["C"].min(), "flops_high": frame["C"].max(), "lowest_loss": frame["L"].min(),
        }  # fmt: skip
        floor = laws.withholds(variant, "floor")
        if law is not None:
            ends = laws.frontier_intervals(variant)["a"]
            row |= {"frontier_E": np.nan if floor else law.E, "frontier_a": law.a}
            row |= {"frontier_a_low": ends.low, "frontier_a_high": ends.high}
            row["frontier_a_corrected"] = (laws.corrected(variant) or {}).get("a", np.nan)
        if three is not None:
            row["form"] = three.fit.form
            for name in ("E", "alpha", "beta", "size_exponent", "compute_exponent"):
                ends = laws.parametric_interval(variant, name)
                value = np.nan if name == "E" and floor else getattr(three.fit.law, name)
                row |= {name: value, f"{name}_low": ends.low, f"{name}_high": ends.high}
        found = laws.multipliers.get(variant)
        if found is not None:
            value, low, high = found.at_end
            row |= {"multiplier": value, "multiplier_low": low, "multiplier_high": high, "multiplier_mean": found.mean}
        rows.append({**row, "verdict": said[variant]})
    return pd.DataFrame(rows)


def plot(laws: Laws, path: str | None) -> Any:
    """``Laws.plot``."""
    import matplotlib

    from structlin.drawing.paint import figure_of
    from structlin.drawing.style import RC
    from structlin.laws.report.drawings import frontier

    with matplotlib.rc_context(RC):
        figure = figure_of(frontier(laws))
        if path is not None:
            if Path(path).suffix.lower() not in (".png", ".pdf", ".svg"):
                raise UserError(f"plot to '{path}': valid endings are .png, .pdf and .svg")
            figure.savefig(path)
    return figure
