"""Would the tests see a small mistake? A random sample of mutants, each against the tests that execute its line.

    python -m bench.mutants seed=0 count=300 rooms=structure,planning,laws,training/schedule out=mutants
    python -m bench.mutants ... map=mutants/map.json again=mutants/mutants.json     what survived, once more

A place in the source is drawn first and then one of its changes (bench.mutation), so that numbers, which have three,
do not crowd out the rest. ``tests`` are folders or files, "" for all. Left out are tests that take over ``slowest``
seconds, and those marked slurm or browser. A mutant meets at most ``most`` seconds of tests until one fails, those that
execute the fewest lines first: they are quick and know best. Seconds are CPU time; those of ``slowest`` are traced.

All happens in a temporary copy of the tree: the checkout is never changed. An interpreter that has imported pytest,
numpy, scipy, pandas and torch is forked for each mutant. Processes that a test starts are not traced: tests that do
nothing else cover no line and are not chosen. What is executed at import (constants, defaults) is covered by the tests
that call anything in the module, or in one that imports it. A mutant that takes five times the CPU time of its tests
without it has been noticed: a time-out. Hypothesis is derandomised, without deadlines.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ast
import gc
import importlib
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.coverage_map import OURS, Map, Tracer
from bench.mutation import Mutant, mutants, parses
from structlin.errors import UserError, door, key_values, whole_number

ROOT = Path(__file__).parents[1]
PACKAGE = "structlin"
_WARM = (
    "pytest", "_hypothesis_pytestplugin", "xdist.plugin", "hypothesis", "numpy", "pandas", "pyarrow", "scipy.optimize",
    "scipy.stats", "torch", "triton", "matplotlib.axes", "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf", "omegaconf", "hydra", "rich.console", "rich.table",
)  # fmt: skip
_MEMORY = 12 << 30
# CPU seconds that importing and collecting take at most, besides the tests.
_START = 60

Tests = Mapping[str, Mapping[str, Any]]
"""By test: passed, seconds, lines by file."""


@dataclass(frozen=True)
class Result:
    """What became of one mutant."""

    mutant: Mutant
    verdict: str
    """killed, timeout, survived or uncovered."""
    by: str
    """The test that failed."""
    tests: int
    """How many tests it met."""
    left_out: int
    """How many more cover it, met by a survivor no more: they are slow, or beyond the limit of seconds."""
    seconds: float
    """Wall-clock time."""


@dataclass(frozen=True)
class Limits:
    """How long a mutant is tried."""

    slowest: float
    """Seconds above which a test is left out."""
    most: float
    """Seconds of tests that a mutant meets."""


# --- choosing -----------------------------------------------------------------------------------------------------


def sources(rooms: Sequence[str]) -> list[str]:
    """Files of rooms such as laws (a folder) or training/schedule (a module), below the root. UserError for neither."""
    found: set[str] = set()
    for room in rooms:
        folder, module = ROOT / PACKAGE / room, (ROOT / PACKAGE / room).with_suffix(".py")
        files = list(folder.rglob("*.py")) if folder.is_dir() else [module] if module.is_file() else []
        if not files:
            raise UserError(f"rooms={room}: {PACKAGE}/{room} is neither a folder nor a module")
        found.update(str(file.relative_to(ROOT)) for file in files)
    return sorted(found)


def sample(files: Sequence[str], seed: int, count: int) -> list[Mutant]:
    """So many mutants of the files, each at another place, in random order."""
    places: dict[tuple[str, int, int], list[Mutant]] = defaultdict(list)
    for file in files:
        for one in mutants(file, (ROOT / file).read_bytes()):
            places[file, one.start, one.end].append(one)
    generator = random.Random(seed)
    order = sorted(places)
    generator.shuffle(order)
    chosen = (generator.choice(places[place]) for place in order)
    valid = [one for one, _ in zip(_parsing(chosen), range(count), strict=False)]
    print(f"{len(valid)} mutants of {sum(map(len, places.values()))} at {len(places)} places in {len(files)} files")
    return valid


def _parsing(found: Iterable[Mutant]) -> Iterator[Mutant]:
    return (one for one in found if parses(one.applied((ROOT / one.file).read_bytes())))


def covering(mutant: Mutant, tests: Tests, importers: Mapping[str, set[str]]) -> list[str]:
    """Tests that passed and execute the change, those of the fewest lines first."""
    if mutant.at_import:
        files = {mutant.file, *importers[mutant.file]}
        found = [name for name, test in tests.items() if files & test["lines"].keys()]
    else:
        change = range(mutant.line, mutant.line + mutant.old.count("\n") + 1)
        statement = range(mutant.lines[0], mutant.lines[1] + 1)
        found = _executing(mutant.file, change, tests) or _executing(mutant.file, statement, tests)
    lines = {name: sum(map(len, tests[name]["lines"].values())) for name in found if tests[name]["passed"]}
    return sorted(lines, key=lambda name: (lines[name], tests[name]["seconds"], name))


def _executing(file: str, lines: Iterable[int], tests: Tests) -> list[str]:
    wanted = set(lines)
    return [name for name, test in tests.items() if wanted.intersection(test["lines"].get(file, ()))]


def importers_of(files: Sequence[str]) -> dict[str, set[str]]:
    """By file: the files that name it in an import."""
    module_of = {file: file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in files}
    file_of = {module: file for file, module in module_of.items()}
    found: dict[str, set[str]] = defaultdict(set)
    for file in files:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    if name in file_of:
                        found[file_of[name]].add(file)
    return found


# --- running ------------------------------------------------------------------------------------------------------


@contextmanager
def copied_tree() -> Iterator[Path]:
    """A temporary copy of what git knows or would know of the checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder).resolve() / "tree"
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        yield root


def warm() -> None:
    """Import what every child needs and no mutant changes."""
    for name in _WARM:
        with suppress(ImportError):
            importlib.import_module(name)
    hypothesis = sys.modules["hypothesis"]
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    gc.freeze()


class Selection:
    """A plugin of pytest: these tests in this order, for so many seconds; a file says how many, and which failed."""

    def __init__(self, names: Sequence[str], verdict: Path, most: float) -> None:
        self._place, self._verdict = {name: place for place, name in enumerate(names)}, verdict
        self._most, self._began, self._met = most, 0.0, 0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Tests whose names a mutant changes (cases made of constants) are not met."""
        items[:] = sorted((i for i in items if i.nodeid in self._place), key=lambda i: self._place[i.nodeid])
        self._began = time.process_time()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Beyond the limit tests are skipped."""
        if time.process_time() - self._began <= self._most:
            self._met += 1
            self._verdict.write_text(str(self._met))

    def pytest_runtest_setup(self, item: Any) -> None:
        """Skip what was not counted."""
        import pytest

        if time.process_time() - self._began > self._most:
            pytest.skip("beyond the limit of seconds")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember the failure."""
        if report.failed:
            self._verdict.write_text(f"{self._met} {report.nodeid}")


def in_child(tree: Path, arguments: Sequence[str], plugin: object, cpu_seconds: float) -> int | None:
    """pytest's exit code in a fork of this interpreter that sees the tree; None where it took too long or crashed."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _child(tree, arguments, plugin, int(cpu_seconds))
        finally:
            os._exit(code)
    # The machine may be busy: only CPU time is counted closely.
    deadline = time.monotonic() + 20 * cpu_seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _child(tree: Path, arguments: Sequence[str], plugin: object, cpu_seconds: int) -> int:
    import pytest

    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with (tree.parent / "output.txt").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(tree)
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    importlib.invalidate_caches()
    common = ["-n", "0", "-p", "no:cacheprovider", f"--rootdir={tree}", f"--basetemp={tree.parent / 'temporary'}"]
    return int(pytest.main([*common, *arguments], plugins=[plugin]))


def trace(tree: Path, files: Sequence[str], tests: Sequence[str], out: Path) -> None:
    """Run the tests once, traced, and keep which lines each of them executes."""
    began = time.monotonic()
    code = in_child(tree, tests, Map(Tracer(tree, tuple(files)), out), 3 * 3600)
    if code not in (0, 1):
        lines = (tree.parent / "output.txt").read_text().splitlines()
        raise UserError(f"the tests cannot be traced (exit code {code}): {' '.join(lines[-3:])}")
    print(f"traced in {time.monotonic() - began:.0f} s")


def judge(mutant: Mutant, order: int, names: Sequence[str], tests: Tests, tree: Path, limits: Limits) -> Result:
    """Run the tests on the mutated copy, which is as before afterwards."""
    quick = [name for name in names if tests[name]["seconds"] <= limits.slowest]
    if not quick:
        return Result(mutant, "uncovered", "", 0, len(names), 0.0)
    began = time.monotonic()
    place, verdict = tree / mutant.file, tree.parent / "verdict"
    source, stat = place.read_bytes(), place.stat()
    verdict.unlink(missing_ok=True)
    seconds = min(sum(tests[name]["seconds"] for name in quick), limits.most + limits.slowest)
    try:
        place.write_bytes(mutant.applied(source))
        # A time of its own: compiled code of another mutant never passes for this one's.
        os.utime(place, (10_000 * (order + 1),) * 2)
        files = sorted({name.split("::")[0] for name in quick})
        code = in_child(tree, ["-x", *files], Selection(quick, verdict, limits.most), _START + 5 * seconds)
    finally:
        place.write_bytes(source)
        os.utime(place, (stat.st_atime, stat.st_mtime))
    # 0: all passed, 5: no test is left under its name, which the whole suite would not notice either.
    found = "timeout" if code is None else "survived" if code in (0, 5) else "killed"
    met, _, by = (verdict.read_text() if verdict.exists() else "0").partition(" ")
    by = by or (f"exit code {code}" if found == "killed" else "")
    return Result(mutant, found, by, int(met), len(names) - int(met), time.monotonic() - began)


# --- telling ------------------------------------------------------------------------------------------------------


def report(results: Sequence[Result], command: str) -> str:
    """Counts and survivors as markdown."""
    lines = [
        f"`{command}`",
        "",
        "| | mutants | killed | time-outs | survived | no covering test |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[Result]] = {"all": list(results)}
    for one in results:
        parts = one.mutant.file.removesuffix(".py").split("/")
        groups.setdefault("/".join(parts[1:2] if parts[1] != "training" else parts[1:3]), []).append(one)
    for kind in sorted({one.mutant.kind for one in results}):
        groups[kind] = [one for one in results if one.mutant.kind == kind]
    for name, members in groups.items():
        count = Counter(one.verdict for one in members)
        cells = (len(members), count["killed"], count["timeout"], count["survived"], count["uncovered"])
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| survivor | change | tests | left out |", "|---|---|---|---|"]
    for one in sorted(results, key=lambda one: (one.mutant.file, one.mutant.line)):
        if one.verdict in ("survived", "uncovered"):
            old, new = (" ".join(text.split()).replace("|", "\\|")[:60] for text in (one.mutant.old, one.mutant.new))
            where = f"{one.mutant.file}:{one.mutant.line}"
            lines.append(f"| {where} | `{old}` -> `{new}` | {one.tests} | {one.left_out} |")
    return "\n".join(lines) + "\n"


def _again(chosen: Sequence[Mutant], path: str) -> list[Mutant]:
    kept = json.loads(Path(path).read_text())
    names = {
        (one["mutant"]["file"], one["mutant"]["start"], one["mutant"]["new"])
        for one in kept
        if one["verdict"] in ("survived", "uncovered")
    }
    return [one for one in chosen if (one.file, one.start, one.new) in names]


def main(arguments: list[str]) -> None:
    """Sample, trace, run, tell."""
    defaults = {
        "seed": "0", "count": "300", "rooms": "structure,planning,laws,training/schedule", "tests": "",
        "out": "mutants", "map": "", "again": "", "slowest": "20", "most": "20",
    }  # fmt: skip
    options = key_values(arguments, defaults)
    seed, count, slowest, most = (whole_number(k, options[k]) for k in ("seed", "count", "slowest", "most"))
    files, out = sources(options["rooms"].split(",")), Path(options["out"]).resolve()
    chosen = sample(files, seed, count)
    if options["again"]:
        chosen = _again(chosen, options["again"])
    out.mkdir(parents=True, exist_ok=True)
    warm()
    results: list[Result] = []
    with copied_tree() as tree:
        kept = Path(options["map"]).resolve() if options["map"] else out / "map.json"
        if not options["map"]:
            trace(tree, files, list(filter(None, options["tests"].split(","))), kept)
        tests, importers = json.loads(kept.read_text()), importers_of(files)
        for order, mutant in enumerate(chosen):
            result = judge(mutant, order, covering(mutant, tests, importers), tests, tree, Limits(slowest, most))
            results.append(result)
            print(f"{order + 1}/{len(chosen)} {result.verdict} {mutant.file}:{mutant.line} {mutant.kind}", flush=True)
            print(f"    {mutant.old[:60]!r} -> {mutant.new[:60]!r}  {result.by}  {result.seconds:.1f} s", flush=True)
            (out / "mutants.json").write_text(json.dumps([asdict(one) for one in results], indent=1))
    (out / "mutants.md").write_text(report(results, " ".join(["python -m bench.mutants", *arguments])))
    print((out / "mutants.md").read_text())


if __name__ == "__main__":
    door(main)
