"""A recipe is an identity: complete, stable, about content, known before anything is prepared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from structlin.data import DataRecipe, folder, is_prepared, train_tokens, vocab_size
from structlin.data.documents import expand, fingerprint
from structlin.errors import UserError


def test_identities_never_change() -> None:
    """Golden: runs are named after these."""
    assert DataRecipe("sotu").to_dict() == {
        "name": "sotu",
        "tokenizer": "char96",
        "column": "text",
        "content": "",
        "validation_every": 25,
        "version": 1,
    }
    assert folder(DataRecipe("sotu"), "data") == Path("data/sotu-char96-804ba942")
    assert folder(DataRecipe("sotu", "gpt2"), "data") == Path("data/sotu-gpt2-c925fd7c")


def test_content_is_the_identity_and_the_path_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("one")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "renamed.txt").write_text("one")
    (tmp_path / "c.txt").write_text("two")
    here, moved, other = (DataRecipe("text", path=str(tmp_path / name)) for name in ("a", "b", "c.txt"))
    assert here.to_dict() == moved.to_dict()
    assert here.path != moved.path
    assert here.to_dict() != other.to_dict()
    assert "path" not in here.to_dict()
    again = DataRecipe(**here.to_dict())  # as a run record brings it back, where the files may not be
    assert folder(again, tmp_path) == folder(here, tmp_path)


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    assert DataRecipe("text", path="x.txt").path == str(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "sotus"}, "data=sotus: .*did you mean 'sotu'.*openwebtext, sotu, teacher, text"),
        ({"name": "sotu", "tokenizer": "gpt3"}, "tokenizer=gpt3: .*char96, gpt2"),
        ({"name": "text"}, "data=text needs data.path"),
        ({"name": "text", "path": "/no/such/file"}, "data.path=/no/such/file: no file there"),
        ({"name": "sotu", "path": "/etc"}, "data=sotu takes no data.path"),
        ({"name": "sotu", "validation_every": 1}, "validation_every=1: .*at least 2"),
        ({"name": "sotu", "validation_every": -3}, "validation_every=-3"),
    ],
)
def test_mistakes_say_what_and_the_way_out(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataRecipe(**values)  # type: ignore[arg-type]


def test_what_is_known_before_preparing(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one")
    assert (vocab_size("char96"), vocab_size("gpt2")) == (96, 50_304)
    assert train_tokens(DataRecipe("openwebtext"), tmp_path) is None
    assert train_tokens(DataRecipe("text", path=str(tmp_path / "x.txt")), tmp_path) is None
    assert train_tokens(DataRecipe("sotu", validation_every=10), tmp_path) is None
    assert not is_prepared(DataRecipe("sotu"), tmp_path)


@pytest.mark.parametrize("tokenizer", ["char96", "gpt2", "sotu2048"])
def test_the_constant_of_sotu_is_the_prepared_count(sotu_root: Path, tmp_path: Path, tokenizer: str) -> None:
    from structlin.data import Manifest, prepare

    recipe = DataRecipe("sotu", tokenizer)
    before = train_tokens(recipe, tmp_path)
    prepared = Manifest.read(prepare(recipe, sotu_root)).splits["train"].num_tokens
    assert before == prepared == train_tokens(recipe, sotu_root)


def test_a_recipe_tells_the_command_that_prepares_it(tmp_path: Path) -> None:
    (tmp_path / "my text.txt").write_text("one")
    recipe = DataRecipe("text", path=str(tmp_path / "my text.txt"), validation_every=3, column="body")
    assert recipe.command(Path("d")) == (
        f"python -m structlin.data data=text tokenizer=char96 root=d path='{tmp_path}/my text.txt' "
        "column=body validation_every=3"
    )
    assert DataRecipe("sotu").command(Path("d")) == "python -m structlin.data data=sotu tokenizer=char96 root=d"


def test_a_path_is_a_file_a_folder_or_a_glob(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl", "sub/c.parquet", "sub/d.txt.gz", "notes.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    names = [str(file.relative_to(tmp_path)) for file in expand(str(tmp_path))]
    assert names == ["a.jsonl", "b.txt", "sub/c.parquet", "sub/d.txt.gz"]
    assert expand(str(tmp_path / "*.txt")) == [tmp_path / "b.txt"]
    assert expand(str(tmp_path / "**" / "*.gz")) == [tmp_path / "sub/d.txt.gz"]
    assert expand(str(tmp_path / "notes.log")) == [tmp_path / "notes.log"]


def test_the_fingerprint_sees_size_order_and_every_sampled_byte(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(bytes(200_000))
    large.write_bytes(bytes(5_000_000))
    seen = {fingerprint([small, large]), fingerprint([large, small]), fingerprint([small]), fingerprint([large])}
    for where in (0, 65_536, 131_072, 199_999):  # a small file counts to the last byte
        data = bytearray(200_000)
        data[where] = 1
        small.write_bytes(data)
        seen.add(fingerprint([small]))
    for where in (0, 4_999_999):
        data = bytearray(5_000_000)
        data[where] = 1
        large.write_bytes(data)
        seen.add(fingerprint([large]))
    large.write_bytes(bytes(5_000_001))
    seen.add(fingerprint([large]))
    assert len(seen) == 11


REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "pandas", "datasets", "tiktoken", "pyarrow", "sotu", "hydra")


def heavy_modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return set(done.stdout.split())


def test_identity_and_reading_need_numpy_alone(sotu_root: Path) -> None:
    use = (
        "from structlin.data import *\n"
        "r = DataRecipe('sotu')\n"
        f"assert train_tokens(r, {str(sotu_root)!r}) and is_prepared(r, {str(sotu_root)!r}) and vocab_size('gpt2')\n"
        f"t = TokenShards.open(prepare(r, {str(sotu_root)!r}), 'train')\n"
        "train_batch(t, context=8, rows=2, seed=0, step=0)\n"
        "import structlin.data.__main__"
    )
    assert heavy_modules_after(use) == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert heavy_modules_after("from structlin.data import *\nimport pandas") >= {"pandas"}
