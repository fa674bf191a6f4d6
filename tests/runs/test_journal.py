"""The journal is appended to, survives torn lines, and lets the last row of a step count."""

import json
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlin.runs.journal import Journal, MergedJournal, Part


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "metrics.jsonl")


def test_rows_come_back_by_kind_and_step(journal: Journal) -> None:
    for step in (3, 1, 2):
        journal.append({"kind": "train", "step": step, "loss": float(step)})
    journal.append({"kind": "eval", "step": 2, "val_loss": 0.1 + 0.2})
    assert [row["step"] for row in journal.rows("train")] == [1, 2, 3]
    assert journal.evaluations() == [{"kind": "eval", "step": 2, "val_loss": 0.1 + 0.2}]


def test_the_last_row_of_a_step_counts(journal: Journal) -> None:
    for loss in (1.0, 2.0):
        journal.append({"kind": "eval", "step": 5, "val_loss": loss})
    assert [row["val_loss"] for row in journal.evaluations()] == [2.0]


@pytest.mark.parametrize("torn", ['{"kind": "eval", "step": 7', '{"kind": "eval"}\n', "\xff\n", "[1]\n", "\x00\x00"])
def test_a_torn_line_swallows_nothing(torn: str, journal: Journal) -> None:
    journal.append({"kind": "eval", "step": 1, "val_loss": 1.0})
    with journal.path.open("ab") as stream:
        stream.write(torn.encode("latin-1"))
    journal.append({"kind": "eval", "step": 2, "val_loss": 2.0})
    assert [row["step"] for row in journal.evaluations()] == [1, 2]
    assert journal.torn_lines() == 1


def test_a_row_is_a_line_and_nothing_else_is_written(journal: Journal) -> None:
    lines = []
    for step in (1, 2, 3):
        row = {"kind": "train", "step": step, "loss": 0.5}
        journal.append(row)
        text = json.dumps(row)
        lines.append(f'{text[:-1]}, "sum": "{zlib.crc32(text.encode()):08x}"}}\n')
        assert journal.path.read_text() == "".join(lines)


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_no_changed_bit_changes_a_number(place: int, bit: int) -> None:
    rows = [{"kind": "eval", "step": step, "tokens": 64 * step, "val_loss": 1 / step} for step in (1, 2, 3)]
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "metrics.jsonl")
        for row in rows:
            journal.append(row)
        content = bytearray(journal.path.read_bytes())
        content[place % len(content)] ^= 1 << bit
        journal.path.write_bytes(content)
        for row in journal.evaluations():
            assert {key: row[key] for key in rows[0]} in rows
        assert journal.torn_lines() or len(journal.evaluations()) == 3


def test_rows_of_older_versions_have_no_checksum_and_count(journal: Journal) -> None:
    journal.path.write_text('{"kind": "eval", "step": 1, "val_loss": 1.0}\n')
    assert [row["step"] for row in journal.evaluations()] == [1]
    assert (journal.unsealed_rows(), journal.torn_lines()) == (1, 0)
    journal.append({"kind": "eval", "step": 2, "val_loss": 2.0})
    with journal.path.open("a") as stream:
        stream.write('{"kind": "eval", "step": 3, "val_loss": 1.0}\n')
    # Whoever writes checksums writes them to every row from then on.
    assert [row["step"] for row in journal.evaluations()] == [1, 2]
    assert journal.torn_lines() == 1


def test_a_line_that_lacks_its_end_alone_is_whole(journal: Journal) -> None:
    journal.append({"kind": "eval", "step": 1, "val_loss": 1.0})
    whole = journal.path.read_text()
    journal.path.write_text(whole.rstrip("\n"))
    journal.append({"kind": "eval", "step": 2, "val_loss": 2.0})
    assert journal.path.read_text().startswith(whole + '{"kind": "eval", "step": 2, "val_loss": 2.0, "sum": ')
    assert [row["step"] for row in journal.evaluations()] == [1, 2]


def test_what_is_not_finite_is_kept_as_null_and_is_no_evaluation(journal: Journal) -> None:
    journal.append({"kind": "eval", "step": 1, "val_loss": float("nan")})
    assert journal.rows() == [{"kind": "eval", "step": 1, "val_loss": None}]
    assert journal.evaluations() == []


def test_no_file_is_no_rows(journal: Journal) -> None:
    assert journal.rows() == []


# ---- attempts merged -------------------------------------------------------------------------------------------------

History = list[tuple[int, int, int]]
"""Of each attempt: the step it resumed at, the rows it wrote by its fence, and those it wrote after it."""


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Attempts that go on from a step that some older one had reached."""
    attempts: History = []
    reached = 0
    for _ in range(draw(st.integers(1, 4))):
        resumed, rows = draw(st.integers(0, reached)), draw(st.integers(0, 8))
        attempts.append((resumed, rows, draw(st.integers(0, 3))))
        reached = max(reached, resumed + rows)
    return attempts


def write(history: History, folder: Path) -> MergedJournal:
    """Journals with a training row a step and an evaluation at even steps; the loss is the attempt's number."""
    parts = []
    for number, (resumed, rows, beyond) in enumerate(history):
        journal = Journal(folder / f"{number}.jsonl")
        fence = 0
        for step in range(resumed + 1, resumed + rows + beyond + 1):
            journal.append({"kind": "train", "step": step, "loss": number})
            if step % 2 == 0:
                journal.append({"kind": "eval", "step": step, "val_loss": number})
            if step == resumed + rows:
                fence = journal.path.stat().st_size
        parts.append(Part(journal.path, resumed, fence))
    return MergedJournal(parts)


@given(histories())
def test_the_newest_attempt_that_trained_a_step_counts(history: History) -> None:
    expected = {}
    for number, (resumed, rows, _) in enumerate(history):
        expected.update(dict.fromkeys(range(resumed + 1, resumed + rows + 1), number))
    with tempfile.TemporaryDirectory() as folder:
        journal = write(history, Path(folder))
        assert {row["step"]: row["loss"] for row in journal.rows("train")} == expected
        evaluations = {row["step"]: row["val_loss"] for row in journal.evaluations()}
        assert evaluations == {step: number for step, number in expected.items() if step % 2 == 0}
        assert len(journal.rows()) == len(expected) + len(evaluations)
        assert {(row["kind"], row["step"]) for row in journal.written()} == {
            (row["kind"], row["step"]) for row in journal.rows()
        }


def test_a_step_trained_again_without_its_evaluation_has_none(tmp_path: Path) -> None:
    """The older attempt's value may be another trajectory's (another kind of GPU): it is made again, not mixed in."""
    old, new = Journal(tmp_path / "1.jsonl"), Journal(tmp_path / "2.jsonl")
    for step in (10, 15, 20, 30):
        old.append({"kind": "eval", "step": step, "val_loss": 1.0})
    new.append({"kind": "train", "step": 20, "loss": 2.0})
    merged = MergedJournal([Part(old.path), Part(new.path, resumed_step=10)])
    assert [row["step"] for row in merged.evaluations()] == [10, 30]


def test_a_fence_in_the_middle_of_a_line_hides_it(journal: Journal) -> None:
    for step in (1, 2):
        journal.append({"kind": "eval", "step": step, "val_loss": 1.0})
    cut = MergedJournal([Part(journal.path, fence=journal.path.stat().st_size - 5)])
    assert [row["step"] for row in cut.evaluations()] == [1]
