"""Laws of a table in memory: those of the command line, what was planted, and mistakes in one line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from structlin.laws import run
from structlin.laws.choices import Choices
from structlin.laws.library import fit
from structlin.laws.report.laws_json import plain, record
from tests.laws.tables import DENSE, two

NAMES = {"params": "size", "tokens": "seen", "loss": "nats", "flops": "work", "structure": "arch", "run": "who"}


def table() -> pd.DataFrame:
    own = {"params": "size", "tokens": "seen", "loss": "nats", "flops": "work", "variant": "arch", "run": "who"}
    return two().rename(columns=own)


def test_a_frame_and_a_file_give_what_the_command_line_gives(tmp_path: Path) -> None:
    given = table()
    before = given.copy()
    path = tmp_path / "t.parquet"
    given.to_parquet(path)
    by_command = run.fit(Choices(source="table", table=str(path), columns=NAMES, bootstrap=50))
    wanted = plain(record(by_command))
    for data in (given, path, str(path)):
        found = plain(record(fit(data, **NAMES, bootstrap=50)))
        assert found == wanted
    pd.testing.assert_frame_equal(given, before)
    assert [one.name for one in tmp_path.iterdir()] == ["t.parquet"]
    assert set(by_command.parametrics) == {"dense", "btt"}


def test_a_planted_law_is_found_from_an_exact_table() -> None:
    size, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    given = pd.DataFrame(
        {"N": size, "D": tokens, "L": DENSE.E + DENSE.A / size**DENSE.alpha + DENSE.B / tokens**DENSE.beta}
    )
    laws = fit(given, params="N", tokens="D", loss="L", bootstrap=20)
    law = laws.parametrics["all"].fit.law
    assert [law.E, law.alpha, law.beta] == pytest.approx([DENSE.E, DENSE.alpha, DENSE.beta], rel=1e-3)
    assert "assumed_flops" in {caution.name for caution in laws.cautions}


def test_laws_show_what_was_fitted() -> None:
    shown = repr(fit(table(), **NAMES, bootstrap=20))
    assert shown.startswith("Laws(300 evaluations of ")
    assert "L(N, D): dense, btt; multiplier: btt;" in shown


def test_choices_are_taken_in_python_types() -> None:
    laws = fit(table(), **NAMES, offset=0, budgets=[1e18, 1e19], bootstrap=20, units={"tokens": 2})
    assert laws.choices.frontier_offset == 0.0
    assert laws.choices.budgets == (1e18, 1e19)
    assert laws.points.frame["D"].max() == 2 * table()["seen"].max()


MISTAKES = [
    ({"loss": "nat"}, "the table has no column 'nat'; did you mean 'nats'"),
    ({"bootstap": 50}, "fit takes no bootstap; did you mean 'bootstrap'"),
    ({"out": "laws/"}, "fit takes no out"),
    ({"bootstrap": "many"}, "bootstrap = 'many': it takes a whole number"),
    ({"bootstrap": 3}, "bootstrap=3 must lie in"),
    ({"budgets": 1e18}, "budgets = 1e\\+18: it takes numbers"),
    ({"where": "size > 1e99"}, "keeps none of the 300 rows"),
]


@pytest.mark.parametrize(("changed", "message"), MISTAKES)
def test_a_mistake_is_one_line(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        fit(table(), **{**NAMES, **changed})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("data", "message"), [([1], "data is a list"), ("none.csv", "none.csv is not a file")])
def test_what_is_no_table_is_named(data: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(data, loss="L")
