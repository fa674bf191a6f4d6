"""Training FLOPs are those of the kept tables, bit for bit, and budgets are inverted exactly."""

from pathlib import Path

import pandas as pd
import pytest

from structlin.anatomy.compute import flops_between, flops_until, step_flops, steps_for_flops
from structlin.config.identity import science_from
from structlin.runs.row_config import config_of
from tests.tiny import tiny

KEPT = sorted(Path("analysis/data").glob("*.parquet"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_tables_have_the_flops_of_their_configs(path: Path) -> None:
    table = pd.read_parquet(path)
    runs = table.drop_duplicates("run_id")
    for row in runs.iloc[:: max(1, len(runs) // 12)].to_dict("records"):
        science = science_from(config_of(row))
        rows = table[table["run_id"] == row["run_id"]]
        assert rows["training_flops"].tolist() == [float(flops_until(science, step)) for step in rows["step"]]


def test_a_budget_buys_the_steps_nearest_to_it() -> None:
    science = tiny()
    one = step_flops(science)
    for share, steps in ((0.4, 0), (0.6, 1), (10.4, 10), (10.6, 11), (1e9, 10**9)):
        assert steps_for_flops(lambda _: science, share * one) == steps
    assert flops_between(science, 3, 10) == 7 * one == flops_until(science, 7)
