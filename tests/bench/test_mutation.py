"""Mutants are the changes that they say, at their place, and of nothing that only people read."""

from __future__ import annotations

import pytest

from bench.mutants import covering
from bench.mutation import Mutant, mutants, parses


def changes(text: str) -> set[str]:
    """The mutated texts of a module."""
    source = text.encode()
    return {one.applied(source).decode() for one in mutants("a.py", source)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = a - b", {"x = a + b"}),
        ("x = (a) * (b)  # a * b", {"x = (a) / (b)  # a * b"}),
        ("x = (a +  # plus +\n b)", {"x = (a -  # plus +\n b)"}),
        ("x = 'ω' + f'{a + 1}'", set()),
        ("x = 'ω', a / b", {"x = 'ω', a * b"}),
        ("x = a < b", {"x = a <= b", "x = a >= b"}),
        ("x = a not in b", {"x = a in b"}),
        ("x = a and b or c", {"x = a or b or c", "x = a and b and c"}),
        ("x = a[0]", {"x = a[(0 + 1)]", "x = a[(0 - 1)]"}),
        ("x = -y", {"x = y"}),
        ("x = True", {"x = False"}),
        ("x = not y", {"x = y"}),
        ("x = min(y)", {"x = max(y)"}),
        ("x = np.argmin(y)", {"x = np.argmax(y)"}),
        ("x = sorted(y, key=f)", {"x = sorted(y, key=f, reverse=True)"}),
        ("x = [y for y in z if y]", {"x = [y for y in z if (not (y))]"}),
        ("x = y if z else w", {"x = y if (not (z)) else w"}),
        ("if x:\n    y += z", {"if (not (x)):\n    y += z", "if x:\n    y -= z", "if x:\n    pass"}),
        ("if x == y:\n    z()", {"if x != y:\n    z()", "if x == y:\n    pass"}),
        ("def f(x: int | None = 2) -> list[2]:\n    '''2'''", {
            f"def f(x: int | None = {new}) -> list[2]:\n    '''2'''" for new in ("(2 + 1)", "(2 - 1)", "(-2)")
        }),
        ("Row = dict[str, 2]", set()),
        ("Row = A | B", set()),
        ("assert x > 1", set()),
        ("@cache(maxsize=2)\ndef f(): return x", set()),
        ("if y:\n    raise E(1 + x)", {"if (not (y)):\n    raise E(1 + x)", "if y:\n    pass"}),
        ("x = zip(a, b, strict=True)", set()),
        ("if __name__ == '__main__':\n    main(2)", set()),
    ],
)  # fmt: skip
def test_changes_of_a_text(text: str, expected: set[str]) -> None:
    assert changes(text) == expected
    assert all(parses(one.encode()) for one in expected)


def test_a_change_knows_its_statement() -> None:
    source = b"x = 1\ndef f(y):\n    if (y and\n            z):\n        return g(\n            y + y)\n"
    found = {one.kind: (one.line, one.lines, one.at_import) for one in mutants("a.py", source)}
    assert found == {
        "constant": (1, (1, 1), True),
        "and/or": (3, (3, 4), False),
        "condition": (3, (3, 4), False),
        "arithmetic": (6, (5, 6), False),
    }


def at(line: int, *, at_import: bool = False) -> Mutant:
    return Mutant("a.py", line, "sign", 0, 1, "-x", "x", (line - 1, line + 1), at_import)


@pytest.mark.parametrize(
    ("mutant", "expected"),
    [
        (at(5), ["narrow", "wide"]),
        (at(8), ["narrow"]),  # by its statement, for want of its line
        (at(20), []),
        (at(1, at_import=True), ["importer", "narrow", "wide"]),
    ],
)
def test_tests_that_cover_a_change_the_narrowest_first(mutant: Mutant, expected: list[str]) -> None:
    tests = {
        "wide": {"passed": True, "seconds": 1.0, "lines": {"a.py": [5], "b.py": [1, 2]}},
        "failed": {"passed": False, "seconds": 0.1, "lines": {"a.py": [5]}},
        "narrow": {"passed": True, "seconds": 9.0, "lines": {"a.py": [5, 7]}},
        "importer": {"passed": True, "seconds": 0.5, "lines": {"c.py": [1]}},
        "other": {"passed": True, "seconds": 0.2, "lines": {"b.py": [1]}},
    }
    assert covering(mutant, tests, {"a.py": {"c.py"}}) == expected
