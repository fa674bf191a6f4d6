"""More than launch.max_hours is asked for on a terminal and refused elsewhere."""

import pytest

from structlin.errors import UserError
from structlin.launch.agreement import agree

COST = "this takes about 9.0 hours on this machine"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    """The questions, on a terminal where somebody gives the parameter as the answer."""
    questions: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: request.param is not None, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: request.param is not None, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or request.param)
    return questions


@pytest.mark.parametrize("asked", ["y", " YES "], indirect=True)
def test_who_agrees_goes_on(asked: list[str]) -> None:
    agree(COST, 9.0, 8.0)
    assert asked == [f"{COST}, more than launch.max_hours=8; go on? [y/N] "]


@pytest.mark.parametrize("asked", ["n", "", "yess", None], indirect=True)
def test_who_does_not_is_told_the_way_out(asked: list[str]) -> None:
    with pytest.raises(UserError, match=rf"{COST}, more than launch\.max_hours=8; raise it \(launch\.max_hours=11\)"):
        agree(COST, 9.0, 8.0)


@pytest.mark.parametrize("asked", [None, "n"], indirect=True)
def test_what_is_allowed_is_not_asked(asked: list[str]) -> None:
    agree(COST, 8.0, 8.0)
    agree(COST, 0.0, float("inf"))
    assert asked == []
