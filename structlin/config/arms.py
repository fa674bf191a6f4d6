"""Which arms does a search begin with? Command lines in place of one, whose templates are the arms.

    structure=...               as asked for; not said: structure=sample, structure.count of them, half of two
                                factors and half of three
    moe=none,ffn                every structure under each; thetas of three factors have no experts
    search.arms=@FILE           a line of the file is an arm in words of the command line; # begins a remark

Always among them are dense and btt, without experts and under each kind that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from structlin.errors import UserError, one_line

COUNT = 32
SAMPLE = "sample"
_OF_SAMPLES = ("count", "seed", "nu", "omega", "psi", "factors")
"""Keys that only samples have; of names, factors is one of btt too, but beside samples it is theirs."""
_OF_NAMES = ("theta", "rho", "rank", "blocks", "terms", "cores", "bond")
_OF_ARM = ("structure", "moe")


class Line(list[str]):
    """The words of a command line, and where they stand if that is a file."""

    origin = ""


@contextmanager
def blamed(line: Sequence[str]) -> Iterator[None]:
    """What is wrong with a line of a file is said with the file and the line's number."""
    try:
        yield
    except UserError as error:
        origin = getattr(line, "origin", "")
        if not origin:
            raise
        raise UserError(f"{origin}: {error}") from None


def is_search(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for a search."""
    said = {word.partition("=")[0]: word.partition("=")[2] for word in arguments}
    return "search" in (said.get("grid"), said.get("grid.design"))


def search_lines(arguments: Sequence[str]) -> list[list[str]]:
    """The command lines whose templates are the arms. UserError for a file that cannot be read or has no arms."""
    rest = [word for word in arguments if not _is_of_arm(word)]
    own = [word for word in arguments if _is_of_arm(word)]
    given = {word.partition("=")[0]: word.partition("=")[2] for word in own}
    path = _path(arguments)
    lines: list[list[str]] = []
    if path is None or any(key.startswith("structure") for key in given):
        lines += _asked(rest, own, given)
    if path is not None:
        lines += [_beside(rest, words) for words in _of_file(path)]
    kinds = _list(given.get("moe", "none"))
    mixture = [word for word in own if word.partition("=")[0].startswith("moe.")]
    always = [[*rest, "structure=dense,btt"]]
    if kinds != ["none"]:
        experts = ",".join(kind for kind in kinds if kind != "none")
        always.append([*rest, "structure=dense,btt", f"moe={experts}", *mixture])
    return [*always, *lines]


def _beside(rest: list[str], words: Line) -> Line:
    line = Line([*rest, *words])
    line.origin = words.origin
    return line


def _asked(rest: list[str], own: list[str], given: dict[str, str]) -> list[list[str]]:
    """The structures of the command line, samples apart from names, by the kinds of mixture that they can have."""
    words = [word for word in own if not word.startswith(("moe=", "moe."))]
    kinds = _list(given.get("moe", "none"))
    mixture = [word for word in own if word.startswith("moe.")]
    experts = [kind for kind in kinds if kind != "none"]
    lines = []
    for changed, has_experts in _structures(words, given.get("structure", SAMPLE)):
        if "none" in kinds:
            lines.append([*rest, *changed])
        if experts and has_experts:
            lines.append([*rest, *changed, f"moe={','.join(experts)}", *mixture])
    return lines


def _structures(words: Sequence[str], structure: str) -> Iterator[tuple[list[str], bool]]:
    """Words of one kind of structure, and whether it can have experts."""
    names = _list(structure)
    others = [word for word in words if not word.startswith("structure=")]
    if SAMPLE not in names:
        yield [f"structure={structure}", *others], True
        return
    plain = [name for name in names if name != SAMPLE]
    if plain:
        yield [f"structure={','.join(plain)}", *(word for word in others if _key(word) not in _OF_SAMPLES)], True
        others = [word for word in others if _key(word) not in _OF_NAMES]
    for count, factors in _factors(others):
        kept = [word for word in others if not (factors and _key(word) == "factors")]
        added = [*([f"structure.count={count}"] if count else []), *([factors] if factors else [])]
        yield [f"structure={SAMPLE}", *kept, *added], factors != "structure.factors=3"


def _key(word: str) -> str:
    return word.partition("=")[0].removeprefix("structure.")


def _factors(words: Sequence[str]) -> list[tuple[int | None, str]]:
    """Counts and factors of the samples; nothing of a count where the words say it themselves."""
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    if "structure.factors" in given:
        return [(None, f"structure.factors={one}") for one in _list(given["structure.factors"])]
    text = given.get("structure.count", str(COUNT))
    count = int(float(text)) if text.replace(".", "").replace("e", "").isdigit() else 0
    if count < 2:  # one, or a mistake that the sampler names
        return [(None, "")]
    return [(count - count // 2, "structure.factors=2"), (count // 2, "structure.factors=3")]


def _is_of_arm(word: str) -> bool:
    return word.partition("=")[0].partition(".")[0] in _OF_ARM


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def _path(arguments: Sequence[str]) -> Path | None:
    said = [word.partition("=")[2] for word in arguments if word.startswith("search.arms=")]
    text = said[-1].strip("'\"") if said else "null"
    if text in ("null", ""):
        return None
    if not text.startswith("@"):
        raise UserError(f"search.arms={text} should name a file after an @: search.arms=@arms.txt")
    return Path(text[1:]).expanduser()


def _of_file(path: Path) -> list[Line]:
    """The arms of a file. UserError where it has none, or words that are none of an arm."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"search.arms=@{path} cannot be read: {one_line(error)}") from None
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = Line(line.partition("#")[0].split())
        words.origin = f"search.arms=@{path}, line {number}"
        if not words:
            continue
        for word in words:
            if "=" not in word or not _is_of_arm(word):
                raise UserError(
                    f"{words.origin}: '{word}' is no structure=..., structure.KEY=... or moe=...; "
                    "a line is one arm, such as structure=low_rank structure.rank=d/4"
                )
        found.append(words)
    if not found:
        raise UserError(
            f"search.arms=@{path} has no arms; a line is one, such as structure=low_rank structure.rank=d/4"
        )
    return found
