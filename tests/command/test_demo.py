"""The demo: a verdict first, three warnings at most, then a larger study's laws, backtest and scored forecast."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from structlin.command import demo, main
from tests.tiny import ARGUMENTS

TINY = ["budget=4e8", "grid.widths=[8,16]", "launch.workers=1"]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> list[str]:
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.extend(" ".join(map(str, words)).splitlines()))
        code = demo.main([f"out={out}", f"data.root={data_root}", *ARGUMENTS, *TINY])
    assert code == 0
    assert (out / "laws" / "report.html").is_file()
    assert (out / "study" / "report.html").is_file()
    return lines


def test_the_verdict_comes_first(printed: list[str]) -> None:
    first = printed.index("YOUR RUNS")
    assert "btt" in printed[first + 1]
    assert "dense" in printed[first + 1]
    assert any("lowest loss in nats by seed" in line for line in printed)
    assert any("another processor rounds otherwise" in line for line in printed)


def test_at_most_three_warnings(printed: list[str]) -> None:
    assert sum(line.startswith("  warning: ") for line in printed) <= demo.MOST_WARNINGS


def test_the_kept_study_is_fitted_tested_and_scored(printed: list[str]) -> None:
    rest = printed[next(n for n, line in enumerate(printed) if line.startswith("A LARGER STUDY")) :]
    for variant in demo.shown_of(main.kept_study(demo.STUDY)):
        assert any(line.startswith(f"  backtest {variant}: fitted below") for line in rest)
        said = next(line for line in rest if line.startswith(f"  forecast {variant} at "))
        assert re.search(
            r": [\d.]+ \[[\d.]+, [\d.]+\], measured [\d.]+ \([+-][\d.]+%, (in|out)side its interval\)$", said
        )
    assert any(re.match(r"  btt[+\w-]* needs .* of dense's compute", line) for line in rest)


def test_warnings_of_one_name_are_one_line_and_the_gravest_come_first() -> None:
    names = ["edge_of_grid", "few_runs", "few_runs", "one_curve", "bound", "few_points", "misfit"]
    found = {"warnings": [{"name": name, "variant": f"v{n}", "text": "t"} for n, name in enumerate(names)]}
    lines = demo.warnings(found)
    assert [line.split(":")[0] for line in lines] == ["one curve", "few runs", "misfit"]
    assert "v1: t; v2: t" in lines[1]


def test_every_kept_study_is_found() -> None:
    for name in ("pixels", "fig4", "regression"):
        assert main.kept_study(name).suffix == ".parquet"
    with pytest.raises(ValueError, match="study=none"):
        main.kept_study("none")
