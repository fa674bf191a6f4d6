"""A first result: dense against btt on the bundled text, then the laws of a larger study kept with the package.

    structlin demo                 trains into demo/, and says what it found
    structlin demo out=FOLDER

It trains eight small runs (study=demo: two sizes each around the optimum of a budget, two seeds each, past the bigram
plateau), a few minutes on two cores; what is trained already is not trained again. Then the verdict: how much of
dense's compute btt needs. At last, in seconds, what the platform says where there are more data.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from structlin.errors import UserError, asks_help, key_values
from structlin.laws.choices import Choices
from structlin.laws.report.console import span

MOST_WARNINGS = 3
MATTER = ("plateau", "one_curve", "few_runs", "misfit", "edge_of_grid", "few_points")
"""Warnings that change how a verdict is read, the gravest first."""
OF_A_SWEEP = ("runs", "study", "structure", "status", "watch", "format", "name", "cancel", "retry")
"""Keys of a sweep that the demo does not take: it would look for its runs in vain, or have nothing to compare."""
STUDY = "pixels"
SHOWN = ("dense", "btt")
AHEAD = 4.0
"""The forecast is made from runs below the largest compute over this."""
KEPT = "study"
"""The forecast's name below demo/forecasts."""
INSIDE = {True: ", inside its interval", False: ", outside its interval", None: ", without an interval"}


def main(arguments: list[str]) -> int:
    """Train, and say what was found; the exit code of the sweep."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    own = [word for word in arguments if word.startswith("out=")]
    for key in (word.partition("=")[0] for word in arguments):
        if key in OF_A_SWEEP:
            raise UserError(
                f"the demo trains one study and takes no {key}=; out=FOLDER says where; your own study: structlin sweep"
            )
    out = Path(key_values(own, {"out": "demo"})["out"])
    from structlin.command import sweep

    code = sweep.main(["study=demo", f"runs={out / 'runs'}", *(word for word in arguments if word not in own)])
    if code or "dry_run=true" in arguments:
        return code
    print("\n".join(["", *of_own_runs(out), "", *of_kept_study(out)]))
    return 0


# --- the verdict of the runs --------------------------------------------------------------------------------------


def of_own_runs(out: Path) -> list[str]:
    """What the demo's own runs say: the verdict, the multiplier, and the warnings that matter."""
    from structlin.runs import table as store

    runs = store.load(out / "runs")
    found = _laws(Choices(runs=str(out / "runs"), out=str(out / "laws"), figures=False), runs)
    return [
        "YOUR RUNS",
        *(f"  {line}" for line in verdicts(found)),
        *(f"  {line}" for line in pairs(runs)),
        "  (another processor rounds otherwise, so your numbers differ from others' by about as much as two seeds do)",
        *(f"  warning: {line}" for line in warnings(found)),
        f"  {out / 'laws' / 'report.html'} has every curve and table",
    ]


def verdicts(found: dict[str, Any]) -> list[str]:
    """One sentence a variant that was compared."""
    said = found.get("verdict") or {}
    lines = []
    for variant, m in found["multipliers"].items():
        ends = m["interval"]["at_end"]
        share = f"[{1 / ends['high']:.2g}, {1 / ends['low']:.2g}]" if _known(ends) else "(interval unknown)"
        plain = f"{variant} needs {1 / m['at_end']:.2g} of {found['choices']['baseline_used']}'s compute {share}"
        lines.append(said.get(variant, f"{plain} at the lowest loss that both reached"))
    return lines or [f"no multiplier: {found['choices']['baseline_used']} and the others reached no common loss"]


def _known(ends: dict[str, float | None]) -> bool:
    return all(ends[key] is not None and math.isfinite(float(ends[key] or 0)) and ends[key] for key in ("low", "high"))


def pairs(runs: Any) -> list[str]:
    """The lowest loss of each structure, seed by seed: what the multiplier rests on."""
    best = runs.groupby(["variant", "seed"])["val_loss"].min().unstack("seed")
    rows = [f"{variant}: " + ", ".join(f"{loss:.3f}" for loss in best.loc[variant]) for variant in best.index]
    return [f"lowest loss in nats by seed: {'; '.join(rows)}"]


def warnings(found: dict[str, Any]) -> list[str]:
    """At most three lines, of those that change how the verdict is read; the rest stands in the report."""
    ranked = sorted(
        (one for one in found["warnings"] if one["name"] in MATTER), key=lambda one: MATTER.index(one["name"])
    )
    by_name: dict[str, list[str]] = {}
    for one in ranked:
        by_name.setdefault(one["name"], []).append(f"{one['variant'] or 'all'}: {one['text']}")
    return [f"{name.replace('_', ' ')}: {'; '.join(lines)}" for name, lines in list(by_name.items())[:MOST_WARNINGS]]


# --- the kept study -----------------------------------------------------------------------------------------------


def of_kept_study(out: Path) -> list[str]:
    """What the platform says of more data: verdicts, a backtest, and a forecast that is scored."""
    from structlin.command.main import kept_study

    path = kept_study(STUDY)
    shown = f"variant in {shown_of(path)}"
    choices = Choices(source="table", table=str(path), out=str(out / "study"), figures=False, where=shown)
    found = _laws(choices, None)
    origin = json.loads(path.with_suffix(".json").read_text())
    return [
        f"A LARGER STUDY, kept with the package: {origin['command']}",
        *(f"  {line}" for line in verdicts(found)),
        *(f"  {line}" for line in backtests(found)),
        *(f"  {line}" for line in forecast(choices, out / "forecasts")),
        f"  {out / 'study' / 'report.html'} has the laws of all of it",
    ]


def shown_of(path: Path) -> list[str]:
    """The variants of the structures that are shown, with what the study adds to their names: btt+fixed-norm."""
    import pandas as pd

    variants = sorted(pd.read_parquet(path, columns=["variant"])["variant"].astype(str).unique())
    return [variant for variant in variants if variant.partition("+")[0] in SHOWN]


def backtests(found: dict[str, Any]) -> list[str]:
    """Of each variant the cut that looks furthest ahead: fitted below it, asked about what was measured above."""
    lines = []
    for variant, cuts in found.get("backtest", {}).get("variants", {}).items():
        scored = [cut for cut in cuts if cut["parametric"]]
        if scored:
            cut, score = scored[0], scored[0]["parametric"]
            inside = "" if score["coverage"] is None else f", {score['coverage']:.0%} inside their intervals"
            lines.append(
                f"backtest {variant}: fitted below {cut['cut']:.1e} FLOPs, it foretold {score['rows']} losses up to "
                f"{cut['reach']:.0f}x beyond within {score['error']:.1%}{inside}"
            )
    return lines


def forecast(choices: Choices, folder: Path) -> list[str]:
    """The loss at the largest compute, foretold with its interval from runs below a quarter of it, and scored.

    As ``structlin fit forecast=NAME`` keeps it and ``score=`` holds later runs against it; its file is in ``folder``.
    """
    from structlin.laws import forecasts
    from structlin.laws.approaches.fit import fit_laws
    from structlin.laws.report.laws_json import record
    from structlin.laws.run import enrich, read

    whole = read(choices)
    # The least of the variants' own largest, so that each has runs beyond the cut.
    top = min(float(whole.of(variant)["C"].max()) for variant in whole.variants)
    below = replace(choices, where=f"({choices.where}) and training_flops < {top / AHEAD:.6g}", predict=(top,))
    laws = enrich(fit_laws(read(below), below))
    (folder / f"{KEPT}.json").unlink(missing_ok=True)
    path = forecasts.keep(laws, record(laws), KEPT, folder)
    ends = {one["variant"]: (one["interval"] or {}).get("loss") for one in forecasts.read(path)["predictions"]}
    return [
        f"forecast {one['variant']} at {one['flops']:.1e} FLOPs from runs below {top / AHEAD:.1e}: "
        f"{one['predicted']:.4g} {span(ends[one['variant']], 4)}, measured {one['measured']:.4g} "
        f"({one['error']:+.1%}{INSIDE[one['inside']]})"
        for one in forecasts.score(replace(laws, points=whole), path)["scores"]
    ]


def _laws(choices: Choices, table: Any) -> dict[str, Any]:
    """Everything of laws.json, and its files; what the terminal would show is said in other words here."""
    from structlin.laws import run

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return run.run(choices, table, quiet=True)
    except UserError as error:
        raise UserError(f"the demo's runs cannot be fitted: {error}") from None
