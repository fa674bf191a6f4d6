"""OpenWebText without the hub: local files through the same code, a stand-in for the hub, and quick failures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from structlin.data import DataRecipe, Manifest, TokenShards, openwebtext, prepare
from structlin.data.bpe import END_OF_TEXT, load_encoding
from structlin.data.char96 import decode
from structlin.errors import UserError

CLEAN = [f"Clean document {number}.\nIt has two lines." for number in range(300)]
DIRTY = [f"Document {number} with a curly quote’s mark." for number in range(100)]
DOCUMENTS = [text for number in range(100) for text in (*CLEAN[3 * number : 3 * number + 3], DIRTY[number])]


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """400 documents in two files, of which 300 are made of the 96 characters."""
    source = tmp_path / "source"
    source.mkdir()
    for part in range(2):
        table = pyarrow.table({"text": DOCUMENTS[200 * part : 200 * part + 200]})
        pyarrow.parquet.write_table(table, source / f"train-{part}.parquet")
    return source


def local(path: Path, tokenizer: str = "char96") -> DataRecipe:
    return DataRecipe("openwebtext", tokenizer, path=str(path), validation_every=10)


def texts(place: Path, split: str) -> list[str]:
    shards = TokenShards.open(place, split)
    text = decode(shards.read(np.array([0]), shards.num_tokens)[0])
    return [f"Clean{part}".removesuffix("\n") for part in text.split("Clean")[1:]]


def test_only_whole_documents_of_the_96_characters_are_kept(parquet: Path, tmp_path: Path) -> None:
    place = prepare(local(parquet), tmp_path / "data")
    train, validation = texts(place, "train"), texts(place, "validation")
    assert sorted(train + validation) == sorted(CLEAN)
    assert train == [text for text in CLEAN if text in set(train)]  # in the order of the source
    assert 10 <= len(validation) <= 60
    cleaning = Manifest.read(place).cleaning
    assert (cleaning["documents_read"], cleaning["documents_kept"]) == (400, 300)
    assert cleaning["characters_dropped"] == sum(map(len, DIRTY))
    assert cleaning["mapped"] == {}


def test_copies_of_a_document_lie_on_one_side(tmp_path: Path) -> None:
    rows = [json.dumps({"text": text}) + "\n" for text in CLEAN for _ in range(2)]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    place = prepare(local(tmp_path / "rows.jsonl"), tmp_path / "data")
    train, validation = texts(place, "train"), texts(place, "validation")
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(CLEAN * 2)


def test_bpe_holds_every_document_and_the_same_split(parquet: Path, tmp_path: Path) -> None:
    place = prepare(local(parquet, "gpt2"), tmp_path / "data")
    manifest = Manifest.read(place)
    assert (manifest.vocab_size, manifest.dtype) == (50_304, "uint16")
    found = {}
    for split in ("train", "validation"):
        shards = TokenShards.open(place, split)
        tokens = shards.read(np.array([0]), shards.num_tokens)[0]
        assert tokens[-1] == END_OF_TEXT
        ends = np.flatnonzero(tokens == END_OF_TEXT)
        encoding = load_encoding(tmp_path / "data")
        found[split] = [encoding.decode(part[part != END_OF_TEXT].tolist()) for part in np.split(tokens, ends)[:-1]]
    assert sorted(found["train"] + found["validation"]) == sorted(DOCUMENTS)
    characters = prepare(local(parquet), tmp_path / "data")
    assert texts(characters, "validation") == [text for text in found["validation"] if text in CLEAN]


class Hub:
    """Stands in for ``datasets.load_dataset``: some revisions fail, the others stream the local files."""

    def __init__(self, failing: dict[str, Exception], source: Path) -> None:
        import datasets

        self.asked: list[str] = []
        self._failing, self._source, self._real = failing, source, datasets.load_dataset

    def __call__(self, name: str, *, revision: str, split: str, streaming: bool) -> Any:
        assert (name, split, streaming) == ("Skylion007/openwebtext", "train", True)
        self.asked.append(revision)
        if revision in self._failing:
            raise self._failing[revision]
        found = [str(file) for file in sorted(self._source.glob("*.parquet"))]
        return self._real("parquet", data_files=found, split=split, streaming=streaming)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openwebtext, "reachable", lambda url: True)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)


@pytest.mark.parametrize(
    ("failing", "asked"),
    [
        ({}, ["main"]),
        ({"main": RuntimeError("Dataset scripts are no longer supported")}, ["main", "refs/convert/parquet"]),
    ],
)
@pytest.mark.usefixtures("online")
def test_the_hub_is_asked_first_for_the_dataset_then_for_its_parquet_copy(
    failing: dict[str, Exception], asked: list[str], parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(failing, parquet)
    monkeypatch.setattr("datasets.load_dataset", hub)
    place = prepare(DataRecipe("openwebtext", validation_every=10), tmp_path / "data")
    assert hub.asked == asked
    manifest = Manifest.read(place)
    assert manifest.provenance["revision"] == asked[-1]
    assert manifest.recipe["content"] == ""
    monkeypatch.undo()
    same = Manifest.read(prepare(local(parquet), tmp_path / "data"))
    assert manifest.splits == same.splits  # the way the rows came leaves no trace in the tokens


@pytest.mark.usefixtures("online")
def test_a_hub_without_the_dataset_names_every_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = {"main": RuntimeError("no scripts"), "refs/convert/parquet": FileNotFoundError("no such revision")}
    monkeypatch.setattr("datasets.load_dataset", Hub(failing, tmp_path))
    with pytest.raises(UserError, match=r"main: no scripts; refs/convert/parquet: no such revision\); use scale=small"):
        prepare(DataRecipe("openwebtext"), tmp_path)


@pytest.mark.usefixtures("online")
def test_something_that_answers_but_is_no_hub_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def certificate_of_a_firewall(*_: object, timeout: float, **__: object) -> None:
        assert 0 < timeout < 10
        raise OSError("CERTIFICATE_VERIFY_FAILED")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", certificate_of_a_firewall)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("would retry for a minute"))
    with pytest.raises(
        UserError, match=r"the hub does not serve .*CERTIFICATE_VERIFY_FAILED\); try later, or use scale=small"
    ):
        prepare(DataRecipe("openwebtext"), tmp_path)


class BreaksOff:
    """A stream that loses its connection after one batch."""

    def iter(self, batch_size: int) -> Any:
        yield {"text": ["a document"] * batch_size}
        raise ConnectionError("connection reset")


@pytest.mark.usefixtures("online")
def test_a_stream_that_breaks_off_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: BreaksOff())
    with pytest.raises(UserError, match=r"broke off after 256 documents \(connection reset\); run it again"):
        prepare(DataRecipe("openwebtext"), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_a_declared_offline_fails_at_once(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, "1")
    began = time.monotonic()
    with pytest.raises(UserError, match=f"{variable} is set: unset it, or use scale=small"):
        prepare(DataRecipe("openwebtext"), tmp_path)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "https://hub.invalid"])
def test_a_hub_out_of_reach_is_said_within_seconds(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    began = time.monotonic()
    with pytest.raises(
        UserError,
        match=f"{endpoint} is out of reach from here; connect, or use scale=small",
    ):
        prepare(DataRecipe("openwebtext"), tmp_path)
    assert time.monotonic() - began < 6


def test_local_files_need_no_network(parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Manifest.read(prepare(local(parquet), tmp_path / "data")).splits["train"].num_documents > 200


def test_local_files_of_mixed_or_other_kinds_are_refused(parquet: Path, tmp_path: Path) -> None:
    (parquet / "more.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match="one kind; use data=text"):
        prepare(local(parquet), tmp_path / "data")


def test_a_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"content": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"data.column=text: openwebtext has no such column; it has content"):
        prepare(local(tmp_path / "a.parquet"), tmp_path / "data")
