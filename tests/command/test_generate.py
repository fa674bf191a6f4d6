"""A trained run goes on with a text; what cannot is one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from structlin.command.generate import Text, _write, main, text_of
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe
from structlin.errors import UserError
from structlin.nn import linear
from structlin.runs.store import RunFolder
from structlin.structure import theta_of
from tests.tiny import tiny, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> RunFolder:
    store = tmp_path_factory.mktemp("generate")
    state, folder = train(tiny(), (4, 8), store, data_root)
    assert state == "done"
    return folder


def words(run: RunFolder, *more: str) -> list[str]:
    return [f"runs={run.path.parent}", f"run={run.run_id[:6]}", "device=cpu", *more]


def test_the_prompt_and_what_follows_the_same_for_the_same_seed(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for more in (["seed=3"], ["seed=3"], ["seed=4"], ["seed=3", "runs=elsewhere", f"run={run.path}"]):
        assert main(words(run, "prompt=The ", "tokens=30", *more)) == 0
        out, err = capsys.readouterr()
        assert out.startswith("The ")
        assert len(out) == len("The ") + 30 + 1
        assert "at step 8" in err
        assert "30 tokens, " in err
        printed.append(out)
    assert printed[0] == printed[1] == printed[3] != printed[2]


@pytest.mark.parametrize("merged", ["true", "false", "auto"])
def test_with_matrices_beside_the_factors(run: RunFolder, merged: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(run, "prompt=The ", "tokens=12", "temperature=0", f"merged={merged}")) == 0
    out, err = capsys.readouterr()
    assert len(out) == len("The ") + 12 + 1
    assert ("layers are merged" in err) == (merged != "false")
    assert merged != "true" or "6 layers are merged" in err


def test_a_share_of_the_ranks_writes_alone(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By factors and by matrices; a share that the run was not trained at is refused."""
    structure = StructureConfig(str(theta_of("low_rank", arguments={"rank": 8})))
    _, folder = train(replace(tiny(), structure=structure, nested="1/4,1"), (8,), tmp_path, data_root)
    ranks = []
    product = linear.structured_product

    def seen(x, first, *others):
        ranks.append(first.shape[1])
        return product(x, first, *others)

    monkeypatch.setattr(linear, "structured_product", seen)
    printed = []
    for share, merged, rank in (("1/4", "false", 2), (".25", "true", 2), ("1", "false", 8)):
        more = [f"rank_share={share}", f"merged={merged}", "prompt=The ", "tokens=20", "temperature=0"]
        assert main(words(folder, *more)) == 0
        out, err = capsys.readouterr()
        printed.append(out)
        assert set(ranks) == {rank}
        assert ("+nested-1:4@1/4 d16" in err) == (rank == 2)
        ranks.clear()
    assert printed[0] == printed[1]
    with pytest.raises(UserError, match=r"rank_share = 1/2, but the run was trained at rank_share=1/4\|1 of"):
        main(words(folder, "rank_share=1/2"))


def test_by_the_module_that_is_named_after_it_and_from_a_file(run: RunFolder, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("We hold\n")
    command = [sys.executable, "-m", "structlin.generate", *words(run, f"prompt=@{prompt}", "tokens=5")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(prompt.read_text())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["run=zzz"], "run=zzz: no such run; .* has [0-9a-f]{16}$"),
        (["step=5"], "keeps no checkpoint of step 5; it has .*8"),
        (["step=last"], "step"),
        (["prompt=caf\u00e9"], "prompt: character '\u00e9' at position 3 is outside"),
        (["prompt=@nowhere.txt"], "prompt=@nowhere.txt cannot be read: No such file"),
        (["temperature=-1"], "temperature = -1 should be a number of at least 0"),
        (["temperature=nan"], "temperature = nan"),
        (["tokens=0"], "tokens"),
        (["top_k=x"], "top_k"),
        (["device=tpu"], "device"),
        (["runs=nowhere"], "nowhere has none; runs=FOLDER"),
        (["merged=maybe"], "merged=maybe is unknown; .*valid: auto, false, true"),
        (["colour=red"], "colour"),
        (["rank_share=half"], "rank_share: half is no share of a rank"),
        (["rank_share=1/2"], "the run was trained at rank_share=1 of its rank alone"),
    ],
)
def test_what_cannot_be_is_said(run: RunFolder, more: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        main(words(run, *more))


def test_a_run_without_checkpoints_and_one_of_no_text(run: RunFolder, tmp_path: Path, data_root: Path) -> None:
    state, folder = train(tiny(seed=1), (4,), tmp_path, data_root)
    assert state == "done"
    for path in folder.checkpoints.values():
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be used"):
        main(words(folder))
    for path in folder.checkpoints.values():
        path.unlink()
    with pytest.raises(UserError, match="has no checkpoint to read"):
        main(words(folder))
    images = replace(tiny().model, context=64)
    with pytest.raises(UserError, match="task=pixels, tokenizer=pixels writes no text"):
        text_of(tiny(task="pixels", data=DataRecipe("digits"), model=images), data_root)


def test_characters_of_several_tokens_are_written_when_they_are_whole(
    data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = text_of(tiny(data=DataRecipe("sotu", tokenizer="gpt2")), data_root)
    ids = text.ids("na\u00efve \u2603\u2603!")
    assert len(ids) == 7
    _write("", iter(ids), len(ids), text)
    assert capsys.readouterr().out == "na\u00efve \u2603\u2603!\n"
    assert isinstance(text, Text)
