"""How much faster is a step of this tree than of another checkout? The loop's own step of both, in turn, in one run.

    python -m bench.step small=true against=PATH out=DIR [repeats=7] [only=btt] [widths=16,32]

Models of scale=small (3 layers, context 64, 1,024 tokens, float32, RMS caps as published), mixtures of four kinds,
steps at d = 256 and 512 (context 128, heads of 64, 4,096 tokens), the regression and the pixels; one thread a process,
both under the allocator settings of training processes. DIR/step.json is a list of rows
{structure, width, seconds, seconds_before, ratio, wall, wall_before}: medians of the process's CPU seconds a step, and
of the clock's; the ratio is the median over pairs of repeats.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.workers import ALLOCATORS, OURS
from structlin.errors import UserError, key_values, whole_number

ROOT = Path(__file__).parents[1]
DRIVER = Path(__file__).with_name("tree_steps.py")
SECONDS = 0.25
"""Of the slower tree's steps in one repeat, about."""

_SMALL = ("scale=small", "model.weight_norm=fixed")
_MIDDLE = (
    "scale=paper",
    "data=sotu",
    "model.num_layers=3",
    "model.dtype=float32",
    "model.weight_norm=none",
    "optim.batch_tokens=4096",
)
_BTT_MOE = ("structure=btt", "moe=btt", "moe.num_experts=8")
CASES: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "dense": ((16, 32, 64, 96, 128), (*_SMALL, "structure=dense")),
    "btt": ((16, 32, 64, 96, 128), (*_SMALL, "structure=btt")),
    "low_rank": ((16, 32, 64, 96, 128), (*_SMALL, "structure=low_rank")),
    "kronecker": ((16, 32, 64, 96, 128), (*_SMALL, "structure=kronecker")),
    "standard mixture": ((32, 64), (*_SMALL, "structure=dense", "moe=ffn", "moe.num_experts=8")),
    "btt-moe, small": ((16, 32, 64), (*_SMALL, *_BTT_MOE)),
    "dense-moe": ((16, 32, 64), (*_SMALL, "structure=dense", "moe=dense", "moe.num_experts=8")),
    "low-rank-moe": ((16, 32, 64), (*_SMALL, "structure=dense", "moe=low_rank", "moe.num_experts=8")),
    "btt, middle": ((256, 512), (*_MIDDLE, "structure=btt")),
    "rank 4": ((256, 512), (*_MIDDLE, "structure=einsum", "structure.theta=(1/2|0|1/2|0|1/2|1/2|2/9)")),
    "g2": ((256, 512), (*_MIDDLE, "structure=g2")),
    "btt-moe": ((256, 512), (*_MIDDLE, *_BTT_MOE)),
    "regression dense": ((32, 64), ("task=regression", "scale=regression_small", "structure=dense")),
    "regression btt": ((32, 64), ("task=regression", "scale=regression_small", "structure=btt")),
    "pixels dense": ((32, 64), ("task=pixels", "scale=pixels_small", "structure=dense")),
    "pixels btt": ((32, 64), ("task=pixels", "scale=pixels_small", "structure=btt")),
}
"""Structure -> widths, and the words of train.py."""

Row = dict[str, Any]


class Tree:
    """A process that trains steps of one checkout."""

    def __init__(self, root: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), **ALLOCATORS[OURS]}
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, float]:
        """Its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise UserError(
                f"the steps of {request} ended with exit code {self._process.wait()}; the lines above say why"
            )
        answer: dict[str, float] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(arguments: list[str]) -> None:
    """Print a line a row; write them all to DIR/step.json."""
    known = {"small": "true", "against": "", "out": "", "repeats": "7", "only": "", "widths": ""}
    options = key_values(arguments, known)
    other = Path(options["against"]).resolve()
    if not options["against"] or not (other / "structlin").is_dir():
        raise UserError(f"against = '{options['against']}' is no checkout of this project; give the folder of one")
    repeats = whole_number("repeats", options["repeats"], 1)
    widths = [whole_number("widths", width, 1) for width in filter(None, options["widths"].split(","))]
    rows = []
    print(f"{'structure':20s}{'width':>6s}{'ms':>9s}{'before':>9s}{'ratio':>7s} | clock, ms{'before':>9s}", flush=True)
    for row in measured(other, repeats, options["only"], widths):
        rows.append(row)
        print(_line(row), flush=True)
        if options["out"]:
            folder = Path(options["out"])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "step.json").write_text(json.dumps(rows, indent=1))


def measured(other: Path, repeats: int, only: str, widths: list[int]) -> Iterator[Row]:
    """A row a case."""
    trees = [Tree(ROOT), Tree(other)]
    try:
        for structure, (all_widths, words) in CASES.items():
            for width in all_widths:
                if only in structure and (not widths or width in widths):
                    yield _row(trees, structure, width, [*words, f"model.d_model={width}", "tokens=1e9"], repeats)
    finally:
        for tree in trees:
            tree.close()


def _row(trees: list[Tree], structure: str, width: int, words: list[str], repeats: int) -> Row:
    for tree in trees:
        tree.ask(words=words)
    slowest = max(tree.ask(steps=3)["cpu"] for tree in trees)
    steps = max(1, round(SECONDS / slowest))
    pairs = [[tree.ask(steps=steps) for tree in trees] for _ in range(repeats)]
    medians = {kind: [statistics.median(pair[i][kind] for pair in pairs) for i in range(2)] for kind in ("cpu", "wall")}
    return {
        "structure": structure,
        "width": width,
        "seconds": medians["cpu"][0],
        "seconds_before": medians["cpu"][1],
        "ratio": statistics.median(before["cpu"] / now["cpu"] for now, before in pairs),
        "wall": medians["wall"][0],
        "wall_before": medians["wall"][1],
    }


def _line(row: Row) -> str:
    milliseconds = {name: 1e3 * row[name] for name in ("seconds", "seconds_before", "wall", "wall_before")}
    return (
        f"{row['structure']:20s}{row['width']:6d}{milliseconds['seconds']:9.2f}{milliseconds['seconds_before']:9.2f}"
        f"{row['ratio']:7.2f} | {milliseconds['wall']:9.2f}{milliseconds['wall_before']:9.2f}"
    )
