"""The arms of a command line: samples of two and three factors, families, mixtures, a file; always dense and btt."""

from collections import Counter
from pathlib import Path

import pytest

from structlin.config.doors import sweep_request
from structlin.errors import UserError

WORDS = ["grid=search", "target=1e12", "budget=1e12", "scale=small", "tracking=journal", "dry_run=true"]


def kinds(*words: str) -> Counter:
    """(mixture, factors, structure asked for) of every template."""
    return Counter(
        (one.science.moe.kind, one.science.structure.num_factors, one.asked)
        for one in sweep_request([*WORDS, *words]).templates
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["structure.count=5"], {("none", 2, "sample"): 3, ("none", 3, "sample"): 2}),
        (["structure.count=5", "structure.factors=2"], {("none", 2, "sample"): 5}),
        (["structure.count=3", "structure.factors=2,3"], {("none", 2, "sample"): 3, ("none", 3, "sample"): 3}),
        (["structure=low_rank", "structure.rank=d/4,d/8"], {("none", 2, "low_rank"): 2}),
        (
            ["structure.count=2", "moe=none,ffn"],
            {("none", 2, "sample"): 1, ("none", 3, "sample"): 1, ("ffn", 2, "sample"): 1, ("ffn", 2, "dense"): 1,
             ("ffn", 2, "btt"): 1},
        ),
        (
            ["structure=sample,low_rank", "structure.count=4", "structure.rank=d/8"],
            {("none", 2, "low_rank"): 1, ("none", 2, "sample"): 2, ("none", 3, "sample"): 2},
        ),
        (["structure.count=2", "moe=btt"], {("btt", 2, "dense"): 1}),
        (
            ["structure=kronecker,btt", "seed=0,1"],
            {("none", 2, "kronecker"): 2, ("none", 2, "btt"): 1, ("none", 2, "dense"): 1},
        ),
    ],
)  # fmt: skip
def test_arms(words: list[str], expected: dict) -> None:
    assert kinds(*words) == Counter({("none", 2, "dense"): 1, ("none", 2, "btt"): 1}) + Counter(expected)


def test_a_file_of_arms_stands_alone_unless_structures_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "my arms.txt"
    path.write_text(
        "# mine\nstructure=low_rank structure.rank=d/4\n\nstructure=btt moe=ffn moe.num_experts=4  # a mixture\n"
    )
    always = Counter({("none", 2, "dense"): 1, ("none", 2, "btt"): 1})
    own = Counter({("none", 2, "low_rank"): 1, ("ffn", 2, "btt"): 1})
    assert kinds(f"search.arms=@{path}") == always + own
    assert kinds(f"search.arms=@{path}", "structure=kronecker") == always + own + Counter({("none", 2, "kronecker"): 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no arms"),
        ("# none\n", "has no arms"),
        ("structure=btt\nlow_rank\n", "line 2: 'low_rank' is no structure="),
        ("structure=btt seed=3\n", "line 1: 'seed=3' is no structure="),
        ("structure=bttt\n", "line 1: structure=bttt is unknown; did you mean 'btt'"),
        ("structure=btt\n\nstructure=low_rank structure.rank=q", "line 3: structure.rank = q: write a whole number"),
        ("structure=btt moe=ffm", "line 1: moe=ffm is unknown"),
    ],
)
def test_a_bad_file_of_arms_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "arms.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        sweep_request([*WORDS, f"search.arms=@{path}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grid=search", "budget=1e12"], "compares arms at one compute.*target=1e18"),
        (["grid=search", "target=1e12"], "no budget"),
        (["grid=search", "target=1e12", "budget=1e12,2e12"], "has one budget"),
        (["grid=search", "target=1e12,2e12", "budget=1e12"], "target belongs to the sweep as a whole"),
        (["target=1e12", "budget=1e12"], "target is a key of a search; add grid=search"),
        (["search.eta=9", "budget=1e12"], "search.eta is a key of a search; add grid=search"),
        (["grid=search", "target=0", "budget=1e12"], "target = 0.0 must be training FLOPs"),
        (["grid=search", "target=1e12", "budget=1e12", "search.eta=1"], "search.eta = 1.0"),
        (["grid=search", "target=1e12", "budget=1e12", "search.rungs=0"], "search.rungs = 0"),
        (["grid=search", "target=1e12", "budget=1e12", "search.level=1"], "search.level = 1.0"),
        (["grid=search", "target=1e12", "budget=1e12", "search.seeds=some"], "search.seeds = some"),
        (["grid=search", "target=1e12", "budget=1e12", "search.proposals=-1"], "search.proposals = -1"),
        (["grid=search", "target=1e12", "budget=1e12", "search.arms=arms.txt"], "after an @"),
        (["grid=search", "target=1e12", "budget=1e12", "search.arms=@nowhere"], "search.arms=@nowhere cannot be read"),
        (["grid=search", "target=1e12", "budget=1e12", "evals_per_decade=5"], "evals_per_decade = 5"),
        (["grid=search", "target=1e12", "grid.widths=[16]", "grid.tokens=[1e5]"], "has one budget"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        sweep_request(["scale=small", "tracking=journal", *words])
    assert "\n" not in str(error.value)
