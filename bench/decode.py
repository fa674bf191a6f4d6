"""How fast is one layer where few rows meet it, as in decoding? Factors by every path against one dense matrix.

    python -m bench.decode [repeats=5] [only=low_rank] [out=bench/results]

dense: one matrix of the shape; the merged layer is the same product. last, first: two plain products with the rows
last, or first; kernel: the fused operator; layer: what the layer itself does under inference mode. As many copies of
the weights as fill 64 MB take turns, so that they come from memory, as those of a model of many layers do. Microseconds
a call of CPU time, one thread, medians; merge below: the most rows up to which the matrix is quicker than the layer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench import tables, workers
from structlin.errors import door, key_values, whole_number
from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.products.op import products
from structlin.kernels.products.plain import two_products
from structlin.kernels.products.torch_path import tokens_last
from structlin.nn.linear import EinsumLinear, Linear, LinearOptions, make_linear
from structlin.nn.merged import ROWS
from structlin.structure.words import plan

STRUCTURES: dict[str, dict[str, Any]] = {
    "low_rank": {"rank": "d/4"},
    "btt": {},
    "btt-r4": {"rank": 4},
    "monarch": {"blocks": 4},
    "block_dense": {"blocks": 2, "rank": "d/2"},
    "kronecker": {},
    "btt-c3": {"rank": 4, "factors": 3},
    "blast": {"blocks": 4, "rank": "d/4"},
}
SHAPES = ((256, 1024), (1024, 4096))
CASES: list[workers.Case] = [
    {"structure": name, "d_in": d_in, "d_out": d_out, "rows": rows}
    for name in STRUCTURES
    for d_in, d_out in SHAPES
    for rows in ROWS
]
VARIANTS = ("dense", "last", "first", "kernel", "layer")
FILL = 64e6
"""Bytes of weights that take turns."""


def main(arguments: list[str]) -> None:
    """Print the table; write it as text and JSON where ``out`` is given."""
    options = key_values(arguments, {"repeats": "5", "only": "", "out": ""})
    repeats = whole_number("repeats", options["repeats"], 1)
    chosen = [case for case in CASES if options["only"] in case["structure"]]
    description = workers.machine()
    lines, rows = [tables.heading(description), HEADER], []
    print("\n".join(lines), flush=True)
    for case, medians in workers.measure("bench.decode", chosen, repeats):
        times = {name: 1e6 * seconds / loops_of(case) for name, seconds in medians[workers.PLAIN].items()}
        rows.append({**case, "microseconds": times})
        lines.append(_line(case, times))
        print(lines[-1], flush=True)
    found = list(_crossovers(rows))
    print("\n".join(found))
    lines += found
    tables.keep(options["out"], "decode", description, lines, rows=rows)


def layer_of(case: workers.Case) -> Linear:
    """A layer of the case, at its first scale."""
    name = str(case["structure"]).partition("-")[0]
    found = plan(name, int(case["d_in"]), int(case["d_out"]), **STRUCTURES[case["structure"]])
    return make_linear(found, LinearOptions(float(case["d_in"])))


def loops_of(case: workers.Case) -> int:
    """Calls a measurement: of a millisecond or more."""
    macs = int(case["rows"]) * int(case["d_in"]) * int(case["d_out"])
    return max(4, min(100, int(2e8 / macs)))


def variants_of(case: workers.Case) -> workers.Variants:
    """The case in every formulation that it has."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    first = layer_of(case)
    copies = max(2, int(FILL / (4 * sum(one.numel() for one in first.parameters()))))
    layers = [first, *(layer_of(case) for _ in range(min(copies, 64) - 1))]
    matrices = [torch.randn(first.d_out, first.d_in) for _ in range(max(2, int(FILL / (4 * first.d_in * first.d_out))))]
    x, loops = torch.randn(int(case["rows"]), first.d_in), loops_of(case)
    variants = {"dense": _repeated(loops, [partial(functional.linear, x, matrix) for matrix in matrices])}
    if isinstance(first, EinsumLinear):
        is_first = first.plan.a_first
        factors = [(layer.factor(one), layer.factor(other)) for layer in layers for one, other in [_order(layer)]]
        sizes = ProductSizes.of(factors[0][0].shape, factors[0][1].shape, is_first)
        variants["last"] = _repeated(loops, [partial(tokens_last, x, one, other, is_first) for one, other in factors])
        variants["first"] = _repeated(loops, [partial(two_products, x, one, other, sizes) for one, other in factors])
        variants["kernel"] = _repeated(loops, [partial(products, x, one, other, is_first) for one, other in factors])
    variants["layer"] = _repeated(loops, [partial(layer, x) for layer in layers])
    return variants


def _order(layer: Linear) -> tuple[str, str]:
    """The names of its factors, the one contracted first before the other."""
    one, other = layer.plan.factors
    return one.name, other.name


def _repeated(loops: int, calls: list[Callable[[], Tensor]]) -> Callable[[], object]:
    turns = cycle(calls)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(loops):
                next(turns)()

    return run


HEADER = (
    f"{'structure':12s}{'d_in':>6s}{'d_out':>6s}{'rows':>6s} |"
    + "".join(f"{name:>10s}" for name in VARIANTS)
    + (f" | {'layer/dense':>11s}{'best':>8s}")
)


def _line(case: workers.Case, found: dict[str, float]) -> str:
    times = "".join(f"{found[name]:10.1f}" if name in found else f"{'-':>10s}" for name in VARIANTS)
    best = min(found, key=lambda name: found[name])
    return (
        f"{case['structure']:12s}{case['d_in']:6d}{case['d_out']:6d}{case['rows']:6d} |{times} | "
        f"{found['layer'] / found['dense']:11.2f}{best:>8s}"
    )


def _crossovers(rows: list[tables.Row]) -> Iterator[str]:
    """A line a layer: up to how many rows its matrix is quicker than the layer."""
    keys = list(dict.fromkeys((row["structure"], row["d_in"], row["d_out"]) for row in rows))
    for key in keys:
        own = [row for row in rows if (row["structure"], row["d_in"], row["d_out"]) == key]
        found = 0
        for row in own:
            if row["microseconds"]["dense"] >= row["microseconds"]["layer"]:
                break
            found = row["rows"]
        yield (
            f"{key[0]:12s}{key[1]:6d}{key[2]:6d}   merge below {found} rows"
            if found
            else (f"{key[0]:12s}{key[1]:6d}{key[2]:6d}   never merge")
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        workers.serve(variants_of)
    else:
        door(main)
