"""A table on a terminal: at any width every number stands there whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from structlin.drawing.terminal import Columns, show, terminal

NAMES = ("structure", "width", "budget", "FLOPs", "time taken", "note")


def shown(columns: Columns, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(columns, console)
    return console.export_text()


def table(rows: list[tuple[str, ...]], less: tuple[str, ...] = ()) -> Columns:
    return Columns(NAMES, "a title", texts=("note",), less=less, rows=rows)


numbers = st.floats(1e-30, 1e30).map(lambda x: f"{x:.3e}")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text("abc+-_/", min_size=1, max_size=40), numbers, numbers, numbers, numbers, st.text("ab ", max_size=30)
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(40, 130),
)
def test_no_number_is_cut_at_any_width(rows: list[tuple[str, ...]], width: int) -> None:
    text = shown(table(rows), width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    found = re.findall(r"\d\.\d{3}e[+-]\d+", text)
    assert sorted(found) == sorted(cell for row in rows for cell in row[1:5])


def test_what_matters_least_is_left_out_first_and_said() -> None:
    rows = [("btt", "1.234e+05", "1.234e+05", "1.234e+05", "1.234e+05", "a note")]
    assert "too narrow" not in shown(table(rows, ("budget", "FLOPs")), 100)
    text = shown(table(rows, ("budget", "FLOPs")), 55)
    assert "(too narrow for: budget)" in text
    assert text.count("1.234e+05") == 3


def test_the_columns_that_name_a_row_stand_in_every_part() -> None:
    rows = [("btt", "64", "1e+12", "1.234e+05", "1.234e+05", "a note"), ("btt", "96", "1e+12", "5.0e+05", "2", "b")]
    text = shown(Columns(NAMES, texts=("note",), keys=2, rows=rows), 34)
    assert text.count("64") > 1
    assert text.count("96") == text.count("64")


def test_empty_columns_go() -> None:
    rows = [("btt", "64", "", "1", "2", ""), ("btt", "96", "", "1", "2", "")]
    assert Columns(NAMES, rows=rows).without_empty().names == ["structure", "width", "FLOPs", "time taken"]


def test_nothing_is_printed_of_no_rows() -> None:
    assert shown(table([]), 80) == ""


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("100", 100), ("", 160), ("x", 160)])
def test_a_pipe_is_wide_unless_columns_says_otherwise(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with (tmp_path / "out").open("w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert terminal().width == width
