"""The bench of laws takes the words that its first lines name, and says of others which there are."""

import pytest

from bench.laws import main
from structlin.errors import UserError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["coverages"], "unknown task 'coverages'; did you mean 'coverage'"),
        (["coverage", "abc"], "n=abc: write a whole number of at least 1"),
        (["minimum", "0"], "n=0: write a whole number of at least 1"),
        (["coverage", "10", "foo"], "'foo' is no part of coverage"),
        (["misfits", "10", "parametric"], "'parametric' is no part of misfits"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(words)


def test_planted_crossings_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crossings", "1"]) == 0
    assert capsys.readouterr().out.count("| crossing |") == 1
