"""From choices to files: read the evaluations, fit, write laws.json, figures and the report, print the tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from structlin.errors import UserError
from structlin.laws import forecasts
from structlin.laws.approaches.fit import fit_laws
from structlin.laws.approaches.laws import Laws
from structlin.laws.checked import Checked
from structlin.laws.checks import agreement, backtest, joint, mixtures, rates, resources, sensitivity
from structlin.laws.checks import next_runs as design
from structlin.laws.choices import Choices
from structlin.laws.evaluations import own, source
from structlin.laws.evaluations.files import provenance, read_file
from structlin.laws.evaluations.points import Points, choose
from structlin.laws.report import laws_json as record


def read(choices: Choices, table: pd.DataFrame | None = None) -> Points:
    """The points of any source; ``table`` is the table of this project's runs when source=runs.

    A file of that table is read as the runs themselves, unless its columns are named otherwise.
    """
    if choices.source == "runs":
        if table is None or table.empty:
            raise UserError(f"runs={choices.runs} holds no evaluations; train first with sweep.py or train.py")
    else:
        table = _foreign(choices)
    file_of_own = choices.source == "table" and not choices.columns and own.is_own(table)
    if file_of_own:
        table = own.with_corpus(table, provenance(Path(choices.table)).get("corpus", {}))
    is_own = choices.source == "runs" or file_of_own
    frame, assumed, cautions = (own.from_runs if is_own else source.from_table)(table, choices)
    return choose(frame, choices, assumed, cautions, own=is_own)


def _foreign(choices: Choices) -> pd.DataFrame:
    """The table behind source=table, wandb or wandb_offline."""
    if choices.source == "table":
        return read_file(Path(choices.table))
    from structlin.tracker import history as wandb_source  # W&B is only imported when asked for

    if choices.source == "wandb":
        return wandb_source.as_table(wandb_source.online(choices.project, Path(choices.cache)))
    return wandb_source.as_table(wandb_source.offline(Path(choices.dir)))


def budgets_of(runs: Path, table: pd.DataFrame, convention: str) -> tuple[float, ...]:
    """The budgets of a store's sweeps that trained runs of the table, in FLOPs of a convention; none where unknown.

    A sweep that cannot be read is passed over: its budgets are then found from the data.
    """
    if convention == "logged" or "run_id" not in table:
        return ()
    known, found = set(table["run_id"].astype(str)), set()
    for path in sorted((runs / "sweeps").glob("*.json")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            found |= {float(cell["budget_flops"]) for cell in cells if cell["budget_flops"] and cell["run_id"] in known}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return tuple(budget / (6.0 if convention == "paper" else 1.0) for budget in sorted(found))


def fit(choices: Choices, table: pd.DataFrame | None = None) -> Laws:
    """Points, every law of them, and what the laws say about each other."""
    if choices.source == "runs" and not choices.budgets and table is not None:
        choices = replace(choices, budgets=budgets_of(Path(choices.runs), table, choices.convention))
    return enrich(fit_laws(read(choices, table), choices))


def enrich(laws: Laws) -> Laws:
    """The laws with what they say about each other: joint, resources, backtest, agreement, sensitivity, design."""
    agreement.check_design(laws)
    # The order of the checks is that of their cautions.
    laws.checked = Checked(
        joint=joint.joint(laws),
        resources=resources.resources(laws),
        backtest=backtest.backtest(laws),
        agreement=agreement.agreement(laws),
        sensitivity=sensitivity.sensitivity(laws),
        rates=rates.rates(laws),
        mixtures=mixtures.mixtures(laws),
        design=design.pilots(laws),
    )
    return laws


def run(choices: Choices, table: pd.DataFrame | None = None, *, quiet: bool = False) -> dict[str, Any]:
    """Fit, write everything under ``choices.out`` and print the tables. Returns what stands in laws.json."""
    laws = fit(choices, table)
    found: dict[str, Any] = record.plain(record.record(laws))
    # Before anything is written: a forecast that cannot be scored is a mistake of the command.
    scored = forecasts.score(laws, Path(choices.score)) if choices.score else None
    if choices.forecast:
        kept = forecasts.keep(laws, found, choices.forecast)
    if scored is not None:
        found["score"] = record.plain(scored)
    out = Path(choices.out)
    record.write(found, out / "laws.json")
    if choices.figures:
        from structlin.laws.report import drawings

        drawings.write(laws, out)
    if choices.report:
        from structlin.laws.report import page

        page.write(laws, found, out / "report.html")
    if not quiet:
        from structlin.laws.report import console

        console.show(found)
        if choices.forecast:
            print(f"forecast kept in {kept}")
    return found
