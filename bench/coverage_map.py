"""Which tests execute a line? A plugin of pytest that traces chosen files, test by test, and keeps the map as JSON.

A test has the lines that its fixtures executed, too, also where another test set them up. Caches are emptied before
each test, or only the first that computes a value would count. Processes that a test starts are not traced.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

Line = tuple[str, int]

OURS = ("structlin", "tests", "bench", "analysis")


class Tracer:
    """Lines executed since it was last told to begin."""

    def __init__(self, root: Path, prefixes: tuple[str, ...]) -> None:
        self.lines: set[Line] = set()
        self._root, self._prefixes = f"{root}/", prefixes
        self._names: dict[str, str | None] = {}

    def _name(self, file: str) -> str | None:
        """Path below the root of a traced file, None for others."""
        if file not in self._names:
            name = file.removeprefix(self._root)
            self._names[file] = name if name != file and name.startswith(self._prefixes) else None
        return self._names[file]

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = self._name(frame.f_code.co_filename)
        if name is None:
            return None
        # Nested functions run in frames of their own; each gets a tracer that knows its file.
        add = self.lines.add

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line":
                add((name, frame.f_lineno))
            return line

        return line

    def begin(self) -> set[Line]:
        """A new, empty set that lines go to from now on."""
        self.lines = set()
        sys.settrace(self)
        threading.settrace(self)
        return self.lines


class Map:
    """Collects lines, outcome and seconds (CPU) of every test."""

    def __init__(self, tracer: Tracer, out: Path) -> None:
        self.tracer, self.out = tracer, out
        self.tests: dict[str, dict[str, Any]] = {}
        self._fixtures: dict[Any, set[Line]] = defaultdict(set)
        self._seconds: dict[Any, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """A fixture's lines count for all tests that use it."""
        began, lines = time.process_time(), self.tracer.begin()
        try:
            return (yield)
        finally:
            self._fixtures[fixturedef] |= lines
            self._seconds[fixturedef] = max(self._seconds[fixturedef], time.process_time() - began)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """The test itself."""
        began, lines = time.process_time(), self.tracer.begin()
        passed = False
        try:
            result = yield
            passed = True
            return result
        finally:
            sys.settrace(None)
            used = [one for every in item._fixtureinfo.name2fixturedefs.values() for one in every]  # type: ignore[attr-defined]
            seconds = time.process_time() - began + sum(self._seconds[one] for one in used)
            lines = lines.union(*(self._fixtures[one] for one in used))
            self.tests[item.nodeid] = {"passed": passed, "seconds": seconds, "lines": lines}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Before the fixtures of a test."""
        for module in [module for name, module in sys.modules.items() if name.split(".")[0] in OURS]:
            _empty_caches(module)

    def pytest_sessionfinish(self) -> None:
        """Write {test: {passed, seconds, lines: {file: [lines]}}}."""
        sys.settrace(None)
        for test in self.tests.values():
            by_file: dict[str, list[int]] = defaultdict(list)
            for file, line in sorted(test["lines"]):
                by_file[file].append(line)
            test["lines"] = by_file
        self.out.write_text(json.dumps(self.tests))


def _empty_caches(module: ModuleType) -> None:
    for value in list(vars(module).values()):
        members = list(vars(value).values()) if isinstance(value, type) else []
        for one in (value, *(getattr(member, "__func__", member) for member in members)):
            clear = getattr(one, "cache_clear", None)
            if callable(clear):
                clear()
