"""A tokenizer's file: its size without a library, its name by its content, its tokens, and one-line refusals."""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from structlin.command.generate import text_of
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.data import DataRecipe, input_vocab_size, is_prepared, prepare, train_tokens, vocab_size
from structlin.data.manifest import Manifest
from structlin.data.shards import TokenShards
from structlin.data.vocabulary import FOLDER, load, name_of_file
from structlin.errors import UserError
from tests.tiny import tiny

MERGES = [b"th", b"the", b" the", b"er"]


def tiktoken_file(folder: Path, merges: list[bytes] = MERGES) -> Path:
    """All bytes and some merges, as tiktoken keeps them."""
    tokens = [bytes([byte]) for byte in range(256)] + merges
    path = folder / "small.tiktoken"
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)))
    return path


def json_file(folder: Path, size: int = 31_999) -> Path:
    path = folder / "tokenizer.json"
    vocabulary = {f"t{number}": number for number in range(size)}
    added = [{"id": 0, "content": "t0"}, {"id": size, "content": "</s>"}]
    path.write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary}, "added_tokens": added}))
    return path


def model_file(folder: Path, size: int = 300) -> Path:
    """SentencePiece's message: pieces are field 1 (text, score), then a trainer's spec as field 2, and a number."""
    piece = b"".join([b"\x0a", bytes([2]), b"ab", b"\x15", bytes(4)])
    path = folder / "tokenizer.model"
    path.write_bytes((b"\x0a" + bytes([len(piece)]) + piece) * size + b"\x12\x82\x01" + bytes(130) + b"\x18\x05")
    return path


@pytest.mark.parametrize(
    ("make", "size"), [(tiktoken_file, 256 + 4 + 1), (json_file, 32_000), (model_file, 300)],
    ids=["tiktoken", "json", "model"],
)  # fmt: skip
def test_a_file_has_a_size_and_a_name_by_its_content(make: object, size: int, tmp_path: Path) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    name = name_of_file(path)
    assert name.startswith(f"vocab{size}-")
    assert vocab_size(name) == input_vocab_size(name) == size
    moved = tmp_path / f"other{path.suffix}"
    moved.write_bytes(path.read_bytes())
    assert name_of_file(moved) == name


def test_a_size_alone_is_a_vocabulary_without_identity() -> None:
    recipe = DataRecipe("sotu", tokenizer="vocab32000")
    assert vocab_size(recipe.tokenizer) == 32_000
    assert not recipe.is_known
    assert train_tokens(recipe, "nowhere") is None
    assert DataRecipe("sotu").is_known
    for name in ("vocab0", "vocab", "vocab12-xyz", "vocab99999999999999"):
        with pytest.raises(UserError, match=f"tokenizer={name}: no such tokenizer"):
            DataRecipe("sotu", tokenizer=name)


def test_a_file_makes_tokens_that_are_found_again_by_its_name_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    documents = [f"the other {number} — naïve\n" * 30 for number in range(60)]
    text.write_text("\n\n".join(documents))
    path = tiktoken_file(tmp_path)
    recipe = DataRecipe("text", tokenizer=str(path), path=str(text))
    assert recipe.is_known
    root = tmp_path / "data"
    place = prepare(recipe, root)
    # Without paths, as a stored run has it.
    again = DataRecipe(**recipe.to_dict())  # type: ignore[arg-type]
    assert again == DataRecipe("text", tokenizer=recipe.tokenizer, content=recipe.content)
    assert is_prepared(again, root)
    assert Manifest.read(place).vocab_size == 261
    vocabulary = load(recipe.tokenizer, root)
    assert vocabulary.end == 260
    assert vocabulary.written(vocabulary.ids(documents[0])) == documents[0]
    assert vocabulary.ids(" the") == [258]
    tokens = TokenShards.open(place, "train").read(np.array([0]), 200)
    assert vocabulary.written(tokens[0].tolist()).startswith("the other")
    assert (root / FOLDER / f"{recipe.tokenizer}.tiktoken").read_bytes() == path.read_bytes()


def test_a_run_is_that_of_the_files_content(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("a", "b"))
    first.mkdir()
    second.mkdir()
    ids = [run_id(tiny(data=DataRecipe("sotu", tokenizer=str(tiktoken_file(folder))))) for folder in (first, second)]
    assert ids[0] == ids[1]
    other = tiny(data=DataRecipe("sotu", tokenizer=str(tiktoken_file(second, MERGES[:2]))))
    assert run_id(other) != ids[0]
    assert run_id(science_from(to_mapping(other))) == run_id(other)


def test_generate_reads_and_writes_by_the_kept_file(tmp_path: Path) -> None:
    recipe = DataRecipe("sotu", tokenizer=str(tiktoken_file(tmp_path)))
    with pytest.raises(UserError, match=r"is known by its size alone"):
        text_of(tiny(data=recipe), tmp_path / "data")
    (tmp_path / "data" / FOLDER).mkdir(parents=True)
    (tmp_path / "data" / FOLDER / f"{recipe.tokenizer}.tiktoken").write_bytes(tiktoken_file(tmp_path).read_bytes())
    text = text_of(tiny(data=recipe), tmp_path / "data")
    assert text.written(text.ids("the other")) == "the other"
    assert text.among == 261


WRONG = {
    "absent": ("none/tokenizer.json", r"data.tokenizer=.*tokenizer.json cannot be read: No such file"),
    "another kind": ("some/tokenizer.txt", r"is none of .json, .model, .tiktoken; or write a name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_tokenizers_file_is_refused(case: str) -> None:
    name, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        DataRecipe("sotu", tokenizer=name)


@pytest.mark.parametrize("suffix", [".json", ".model", ".tiktoken"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe\x00garbage", b'{"model": {"vocab": 3}}'])
def test_a_broken_file_is_refused_in_one_line(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"is no tokenizer's {suffix} file") as refused:
        name_of_file(path)
    assert "\n" not in str(refused.value)


def test_a_file_whose_package_is_not_here_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for make, package in ((json_file, "tokenizers"), (model_file, "sentencepiece")):
        path = make(tmp_path)
        (tmp_path / FOLDER).mkdir(exist_ok=True)
        name = name_of_file(path)
        (tmp_path / FOLDER / f"{name}{path.suffix}").write_bytes(path.read_bytes())
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=f"is read by the package {package}: pip install {package}"):
            load(name, tmp_path)


def test_a_file_that_changed_since_is_refused(tmp_path: Path) -> None:
    path = tiktoken_file(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(["some words"] * 100))
    recipe = DataRecipe("text", tokenizer=str(path), path=str(text))
    tiktoken_file(tmp_path, MERGES[:1])
    with pytest.raises(UserError, match=r"has changed: it is vocab258-.* now and was vocab261-"):
        prepare(recipe, tmp_path / "data")
