"""Tables of the terminal: a pipe has no width."""

import pytest

from structlin.laws.report import laws_json
from structlin.laws.report.console import show
from structlin.laws.run import enrich
from tests.laws.tables import laws_of, two


def test_tables_are_not_folded_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    found = laws_json.plain(laws_json.record(enrich(laws_of(two(), bootstrap=20))))
    show(found)
    widths = [len(line) for line in capsys.readouterr().out.splitlines() if "dense" in line and "warning" not in line]
    assert max(widths) > 90
