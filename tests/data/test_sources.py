"""Whatever a file's name says is read as that, each text once, and copies never lie on both sides."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest

from structlin.config.compose import composed_configs
from structlin.config.doors import sweep_request
from structlin.data import DataRecipe, TokenShards, prepare
from structlin.data import documents as files
from structlin.data.manifest import Manifest
from structlin.data.split import FEW, digest_of
from structlin.data.tokenizers import TokenizerSpec
from structlin.data.writer import SplitWriter
from structlin.errors import UserError
from tests.tiny import ARGUMENTS

TEXTS = ["one\ntwo", 'three, "four"', "five ~= six"]


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstd,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def lines(texts: list[str]) -> str:
    return "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts)


def array(texts: list[str]) -> str:
    return json.dumps([{"id": 1, "text": text} for text in texts], indent=1)


def table(texts: list[str]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["id", "text"])
    writer.writeheader()
    writer.writerows({"id": 1, "text": text} for text in texts)
    return stream.getvalue()


FORMS = {".jsonl": lines, ".ndjson": lines, ".json": array, ".csv": table}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("ending", FORMS)
def test_rows_by_name(ending: str, packed: str, mark: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"data.v1{ending}{packed}"
    file.write_bytes(PACKERS[packed](mark + FORMS[ending](TEXTS).encode()))
    assert list(files.read_documents(files.expand(str(tmp_path)), "text")) == TEXTS


def test_json_lines_in_a_json_file(tmp_path: Path) -> None:
    file = tmp_path / "c4.json.gz"
    file.write_bytes(gzip.compress(lines(TEXTS).encode()))
    assert list(files.read_documents([file], "text")) == TEXTS


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("version", [1, 2])
def test_a_byte_order_mark_is_text_under_version_1_alone(packed: str, version: int, tmp_path: Path) -> None:
    file = tmp_path / f"a.txt{packed}"
    file.write_bytes(PACKERS[packed](b"\xef\xbb\xbfhello"))
    assert list(files.read_documents([file], "text", version)) == ["hello" if version == 2 else "\ufeffhello"]


def test_an_array_larger_than_a_block_is_read_item_by_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_ARRAY_CHARACTERS", 64)
    texts = [f"{number} " * number for number in range(60)]
    file = tmp_path / "a.json"
    file.write_text(array(texts))
    assert list(files.read_documents([file], "text")) == texts


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b'[{"text": "x"}, {"text": "y"', "item 2 is not JSON"),
        ("a.json", b'{\n "text": "x"\n}', "line 1 is not JSON"),
        ("a.json", b'["x"]', "item 1 holds no JSON object"),
        ("a.csv", b"a,b\n1,2\n", "no such column; it has a, b"),
        ("a.jsonl.gz", b"no gzip at all", "cannot read"),
        ("a.jsonl.zst", b"no zstd at all", "cannot read"),
        ("a.txt", gzip.compress(b"text", mtime=0), "not UTF-8"),
    ],
)
def test_what_a_name_promises_and_a_file_does_not_hold_is_named(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=words) as found:
        list(files.read_documents([file], "text"))
    assert name in str(found.value)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz.tar", "a.npz", "a.pdf"])
def test_what_is_no_text_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(UserError, match="is no text"):
        files.expand(str(tmp_path / name))


def test_hidden_files_are_left_out_and_links_followed_once(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for name in ("a.txt", ".hidden.txt", ".ipynb_checkpoints/a-checkpoint.txt", "sub/b.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    other.mkdir()
    (other / "c.txt").write_text("c")
    for name in ("link", "sub/again"):
        (root / name).symlink_to(other)
    (root / "sub" / "loop").symlink_to(root)
    (root / "a-again.txt").symlink_to(root / "a.txt")
    found = [str(file.relative_to(root)) for file in files.expand(str(root))]
    assert found == ["a-again.txt", "link/c.txt", "sub/b.txt"]


# ---- the split -----------------------------------------------------------------------------------------------------


def texts_of(root: Path, recipe: DataRecipe) -> dict[str, list[str]]:
    """The documents of each split, cut at the newlines that end them."""
    from structlin.data.char96 import decode

    place = prepare(recipe, root)
    found = {}
    for split in ("train", "validation"):
        shards = TokenShards.open(place, split)
        tokens = shards.read(np.array([0]), shards.num_tokens)[0]
        found[split] = decode(tokens).split("\n")[:-1]
    return found


def source(folder: Path, texts: list[str]) -> str:
    folder.mkdir(exist_ok=True)
    file = folder / "a.jsonl"
    file.write_text(lines(texts))
    return str(file)


@pytest.mark.parametrize("number", [30, 40 * FEW])
def test_copies_lie_on_one_side_whatever_their_order(number: int, tmp_path: Path) -> None:
    texts = [f"document {index % (number // 3)} of some length" for index in range(number)]
    found = texts_of(tmp_path / "data", DataRecipe("text", path=source(tmp_path, texts), validation_every=10))
    assert not set(found["train"]) & set(found["validation"])
    assert sorted(found["train"] + found["validation"]) == sorted(texts)
    share = len(set(found["validation"])) / (number // 3)
    assert 0.3 * 0.1 < share < 3 * 0.1
    turned = DataRecipe("text", path=source(tmp_path / "turned", texts[::-1]), validation_every=10)
    assert set(texts_of(tmp_path / "data", turned)["validation"]) == set(found["validation"])


@pytest.mark.parametrize("number", [2, 3, 7, 19, 41])
def test_few_documents_have_a_validation_split(number: int, tmp_path: Path) -> None:
    texts = [f"document {index}" for index in range(number)]
    found = texts_of(tmp_path / "data", DataRecipe("text", path=source(tmp_path, texts)))
    assert len(found["validation"]) == max(1, round(number / 20))


def test_version_1_splits_as_it_did(tmp_path: Path) -> None:
    texts = [f"document {index % 20}" for index in range(60)]
    found = texts_of(tmp_path / "data", DataRecipe("text", path=source(tmp_path, texts), version=1))
    assert found["validation"] == [texts[index] for index in (10, 30, 50)]


def test_old_and_new_data_of_one_file_lie_side_by_side(tmp_path: Path) -> None:
    texts = [f"document {index}" for index in range(60)]
    path = source(tmp_path, texts)
    places = [prepare(DataRecipe("text", path=path, version=version), tmp_path / "data") for version in (1, 2)]
    assert places[0] != places[1]
    assert [Manifest.read(place).recipe["version"] for place in places] == [1, 2]
    assert DataRecipe("text", path=path).version == 2
    assert [DataRecipe(name).version for name in ("sotu", "digits", "openwebtext")] == [1, 1, 1]


def test_the_embedded_speeches_by_version_2_when_asked(tmp_path: Path) -> None:
    place = prepare(DataRecipe("sotu", version=2), tmp_path)
    entry = Manifest.read(place).splits["validation"]
    assert 5 <= entry.num_documents <= 15


def test_digests_are_of_the_tokens_alone() -> None:
    assert digest_of(np.array([1, 2], dtype=np.uint8)) == digest_of(np.array([1, 2], dtype=np.uint8))
    assert digest_of(np.array([1, 2], dtype=np.uint8)) != digest_of(np.array([1, 3], dtype=np.uint8))


# ---- symbols and paths ---------------------------------------------------------------------------------------------


def test_more_symbols_than_a_type_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="70,000 symbols, more than uint16"):
        TokenizerSpec("large", 70_000, "uint16")
    assert TokenizerSpec("large", 70_000, "uint32").vocab_size == 70_000
    writer = SplitWriter(tmp_path, "train", "uint16")
    with pytest.raises(UserError, match="token 65536 does not fit uint16"):
        writer.write_document(np.array([65_536], dtype=np.uint32))
    wide = SplitWriter(tmp_path, "train", "uint32")
    wide.write_document(np.array([65_536, 1], dtype=np.uint32))
    (shard,) = wide.close().shards
    assert np.fromfile(tmp_path / shard.file, dtype="<u4").tolist() == [65_536, 1]


PATHS = ["~/data", "a=b/c", "with blank/x", "br[0]/(1)", "it's", "plain/path", "100%j/x", "a~b"]


@pytest.mark.parametrize("path", PATHS)
def test_paths_need_no_quotes_of_hydra(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    (config,) = composed_configs("sweep", ["structure=btt", "budget=1e9", f"runs={path}", f"data.root={path}"])
    assert (config["runs"], config["data"]["root"]) == (path, path)
    request = sweep_request([*ARGUMENTS, "structure=btt", "budget=1e9", f"runs={path}"])
    assert str(request.site.runs) == os.path.expanduser(path)


def test_commas_still_divide_several_paths(tmp_path: Path) -> None:
    words = ["structure=btt", "budget=1e9", "data=text", "data.path=~/a,~/b"]
    assert [config["data"]["path"] for config in composed_configs("sweep", words)] == ["~/a", "~/b"]
