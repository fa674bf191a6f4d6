"""grid=design spends a budget on the cells that narrow the frontier most, by the pilot in laws.json."""

import json
from pathlib import Path

import numpy as np
import pytest

from structlin.anatomy.ledger import ledger
from structlin.config.doors import sweep_request
from structlin.errors import UserError
from structlin.planning.design import LENGTHS, _candidates
from structlin.planning.grid import plan_sweep
from structlin.planning.horizon import warmup_share
from structlin.planning.widths import MOST_WARMUP

BUDGET = 1e13
VARIANT = "btt+fixed-norm"
"""BTT under scale=small, with the published RMS cap."""


@pytest.fixture
def laws(tmp_path: Path) -> Path:
    """A law with little information about alpha and beta."""
    information = np.diag([1e4, 1e3, 1e3, 1e2, 1e2]).tolist()
    pilot = {"information": information, "centre": [10.0, 14.0], "run_noise": 0.003, "row_noise": 0.001}
    law = {"E": 1.5, "A": 20.0, "B": 80.0, "alpha": 0.35, "beta": 0.3}
    path = tmp_path / "laws.json"
    path.write_text(json.dumps({"design": {VARIANT: {**pilot, "flops_per_nd": 6.0}}, "parametric": {VARIANT: law}}))
    return path


def plan(laws: Path, *more: str):
    return plan_sweep(
        sweep_request(["scale=small", "structure=btt", f"budget={BUDGET}", "grid=design", f"grid.laws={laws}", *more])
    )


def test_the_budget_is_for_all_cells_and_holds(laws: Path) -> None:
    cells = plan(laws).cells
    assert 1 <= len(cells) <= 6
    assert sum(cell.training_flops for cell in cells) <= BUDGET
    assert all(warmup_share(cell.science, cell.step) <= MOST_WARMUP for cell in cells)
    assert {cell.science.schedule.kind for cell in cells} == {"constant"}


def test_points_bound_the_cells(laws: Path) -> None:
    assert len(plan(laws, "grid.points=2").cells) == 2


@pytest.mark.parametrize(
    ("more", "hint"),
    [(["structure=kronecker"], "no pilot"), (["grid.laws=none.json"], "fit_laws.py"), (["budget=1e8"], "fits into")],
)
def test_what_is_missing_is_said(laws: Path, more: list[str], hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        plan(laws, *more)


def test_lengths_are_those_that_were_asked_for(laws: Path) -> None:
    words = ["scale=small", "structure=btt", f"budget={BUDGET}", "grid=design", f"grid.laws={laws}"]
    asked = sweep_request([*words, "grid.tokens_per_param=[8,128]"])
    (template,) = asked.templates
    ratios: dict[int, list[float]] = {}
    for width, steps in _candidates(template, BUDGET, asked.grid):
        trunk = template.trunk(width)
        ratio = steps * trunk.optim.batch_tokens / ledger(trunk).macs_per_token
        ratios.setdefault(width, []).append(ratio)
    assert max(map(len, ratios.values())) == LENGTHS
    for found in ratios.values():
        assert found == pytest.approx(np.geomspace(8, 128, LENGTHS)[-len(found) :], rel=0.05) or len(found) < LENGTHS
        assert 7.5 < min(found) <= max(found) < 135
