"""Which runs must be found under their ids for ever? Those kept in analysis/data, and those that the studies plan.

    python -m tests.golden.ids        writes tests/golden/kept_ids.json and tests/golden/study_ids.json

kept_ids.json    the kept runs, a table a study (tables.py), their configs from the columns of the kept table itself;
                 the writer adds runs, and never takes one away
study_ids.json   the runs of "<study> <size>", with the command lines they were planned from; the writer replaces those
                 of command lines that have changed and those whose NUMERICS has risen, and refuses other runs for the
                 same lines
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kept import FOLDER as KEPT
from analysis.missing import NEEDED, command_lines
from structlin.config.compose import CONFIG_DIR
from structlin.config.doors import sweep_request
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.config.science import Science
from structlin.config.study import sizes, studies
from structlin.planning.grid import plan_sweep
from structlin.runs.row_config import config_of
from tests.golden.tables import Run, id_by_text, pack, text, unpack

KEPT_FILE = Path(__file__).with_name("kept_ids.json")
STUDY_FILE = Path(__file__).with_name("study_ids.json")
CIFAR_PARTS = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
REMEDY = "if a run is another one now, its field needs a new name or SCHEMA an upgrade; stored runs are orphaned else"

Tables = dict[str, Any]


def read(path: Path) -> Tables:
    """The tables of a file."""
    tables: Tables = json.loads(path.read_text()) if path.exists() else {}
    return tables


# ---- kept runs ------------------------------------------------------------------------------------------------------


def kept_runs(study: str, folder: Path = KEPT) -> list[Run]:
    """The runs of a kept table with the steps of their last evaluations, by id."""
    table = pd.read_parquet(folder / f"{study}.parquet")
    last = table.sort_values("step").groupby("run_id", sort=True).tail(1).sort_values("run_id")
    return [(str(row["run_id"]), [int(row["step"])], config_of(row)) for row in last.to_dict("records")]


def add_kept(tables: Tables) -> Tables:
    """The tables, and one more for each study that keeps runs which stand in none."""
    found = dict(tables)
    for path in sorted(KEPT.glob("*.parquet")):
        have = {row[0] for table in found.values() for row in table["rows"]}
        new = [run for run in kept_runs(path.stem) if run[0] not in have]
        schemas = {run[2]["schema"] for run in new}
        for schema in sorted(schemas):
            runs = [run for run in new if run[2]["schema"] == schema]
            assert all(name == id_by_text(config) for name, _, config in runs), path
            number = sum(name.split()[0] == path.stem for name in found)
            found[f"{path.stem} {number + 1}"] = pack(runs)
    return found


# ---- planned runs ---------------------------------------------------------------------------------------------------


def study_sizes() -> list[str]:
    """All "<study> <size>"."""
    folder = CONFIG_DIR / "study"
    return [f"{name} {size}" for name in studies(folder) for size in sizes(folder, name)]


def planned(study_size: str) -> dict[str, tuple[Science, list[int]]]:
    """The runs that a study plans, by id: each with the steps of its cells."""
    study, size = study_size.split()
    with tempfile.TemporaryDirectory() as folder:
        # Images that are not here; their content, not their place, is in the ids.
        for name in ("cifar5m_part0.npz", *(f"{stem}.bin" for stem in CIFAR_PARTS), "a class/1.png", "another/1.png"):
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).write_bytes(b"no images")
        files = "/cifar5m_part0.npz" if study == "pixels" else ""
        own = [f"data.path={folder}{files}"] if (study, size) in NEEDED else []
        words = [f"study={study}", f"study.size={size}", "tracking=journal", *own]
        cells = plan_sweep(sweep_request(words)).cells
    sciences = {run_id(cell.science): cell.science for cell in cells}
    steps: dict[str, set[int]] = defaultdict(set)
    for cell in cells:
        steps[run_id(cell.science)].add(cell.step)
    return {name: (sciences[name], sorted(steps[name])) for name in sorted(sciences)}


def differences(table: Mapping[str, Any], plan: Mapping[str, tuple[Science, list[int]]]) -> str:
    """How a plan differs from its table, whose runs are of any schema; empty where it does not."""
    pinned = {run_id(science_from(config)): steps for _, steps, config in unpack(table)}
    wanted = {name: steps for name, (_, steps) in plan.items()}
    if pinned == wanted:
        return ""
    lost, new = pinned.keys() - wanted.keys(), wanted.keys() - pinned.keys()
    moved = {name for name in pinned.keys() & wanted.keys() if pinned[name] != wanted[name]}
    named = ", ".join(sorted(lost | new | moved)[:3])
    return f"{len(lost)} runs lost, {len(new)} new, {len(moved)} with other steps ({named})"


def numerics_rose(table: Mapping[str, Any], plan: Mapping[str, tuple[Science, list[int]]]) -> bool:
    """Whether a plan differs from its table in nothing but a higher NUMERICS of some runs."""

    def apart(science: Science, steps: list[int]) -> tuple[str, list[int]]:
        """The rest, and the numerics of the run and of those that it starts from."""
        config = to_mapping(science)
        numerics, one = [], config
        while one is not None:
            numerics.append(one.pop("numerics"))
            one = one["start"]["parent"]
        return json.dumps([config, steps], sort_keys=True), numerics

    before = dict(apart(science_from(config), steps) for _, steps, config in unpack(table))
    after = dict(apart(science, steps) for science, steps in plan.values())
    return before.keys() == after.keys() and all(
        new >= old for key in after for new, old in zip(after[key], before[key], strict=True)
    )


def write_studies(tables: Tables) -> Tables:
    """The tables of all studies as planned today. SystemExit where a study plans other runs under the same lines."""
    found = {}
    for name in study_sizes():
        lines, plan = command_lines(*name.split()), planned(name)
        pinned = tables.get(name)
        if pinned is not None and pinned["lines"] == lines:
            wrong = differences(pinned, plan)
            if wrong and not numerics_rose(pinned, plan):
                raise SystemExit(f"study {name} has the same command lines and other runs: {wrong}; {REMEDY}")
            if not wrong:
                found[name] = pinned
                continue
        runs = [(identity, steps, to_mapping(science)) for identity, (science, steps) in plan.items()]
        found[name] = {"lines": lines, **pack(runs)}
    return found


if __name__ == "__main__":
    kept, plans = add_kept(read(KEPT_FILE)), write_studies(read(STUDY_FILE))
    KEPT_FILE.write_text(text(kept))
    STUDY_FILE.write_text(text(plans))
    for file, tables in ((KEPT_FILE, kept), (STUDY_FILE, plans)):
        print(f"{file}: {sum(len(table['rows']) for table in tables.values())} runs in {len(tables)} tables")
