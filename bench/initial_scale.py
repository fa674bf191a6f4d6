"""How large are a layer's outputs, and its matrix, when training begins? Flat over the width, or a model drifts.

    python -m bench.initial_scale out=docs/figures/initial-scale

For square layers of growing width: the RMS of the outputs for inputs N(0, 1), and the spectral norm of the matrix over
sqrt(d_out / d_in), means over seeds. The initial scale of every factor is sqrt(min(fan_in, fan_out)) / fan_in
(arXiv 2406.06248, section 3; structlin/structure/plan.py), whatever the number of factors. Writes OUT.csv, OUT.png and
OUT.pdf and prints the table.
"""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import mean

import torch

from structlin.errors import asks_help, door, key_values
from structlin.nn.linear import LinearOptions, make_linear
from structlin.structure import Theta, theta_of
from structlin.structure.families import output_order_of
from structlin.structure.served import plan_served

WIDTHS = (64, 128, 256, 512, 1024)
SEEDS = (0, 1, 2)
ROWS = 512
STRUCTURES: dict[str, tuple[str, dict[str, object]]] = {
    "dense": ("dense", {}),
    "BTT, 3 factors, rank 2": ("btt", {"factors": 3, "rank": 2}),
    "BLAST, 4 blocks, rank d/4": ("blast", {"blocks": 4, "rank": "d/4"}),
    "BlockShuffle, 4 blocks": ("block_shuffle", {"blocks": 4}),
    "BlockDense, 2 blocks, rank d/2": ("block_dense", {"blocks": 2, "rank": "d/2"}),
    "MPO, 3 cores, bond 8": ("mpo", {"cores": 3, "bond": 8}),
}
"""What the legend says -> the name and arguments of a family."""
Row = tuple[str, int, int, float, float]


def theta_named(label: str) -> Theta:
    """The theta of a label."""
    name, arguments = STRUCTURES[label]
    return theta_of(name, arguments=arguments)


@torch.no_grad()
def scale_at_start(label: str, width: int, seed: int) -> tuple[float, float]:
    """(RMS of the outputs, spectral norm) of a new square layer."""
    torch.manual_seed(seed)
    plan = plan_served(theta_named(label), width, width, output_order=output_order_of(STRUCTURES[label][0]))
    layer = make_linear(plan, LinearOptions(width))
    outputs = layer(torch.randn(ROWS, width))
    return float(outputs.square().mean().sqrt()), float(torch.linalg.matrix_norm(layer.to_dense(), 2))


def main(arguments: list[str]) -> int:
    """Measure, write and print."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    out = Path(key_values(arguments, {"out": "initial-scale"})["out"])
    rows: list[Row] = [
        (label, width, seed, *scale_at_start(label, width, seed))
        for label in STRUCTURES
        for width in WIDTHS
        for seed in SEEDS
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([("structure", "width", "seed", "output_rms", "spectral_norm"), *rows])
    print(f"{'':32}{''.join(f'{width:>8}' for width in WIDTHS)}   RMS of outputs")
    for column, said in ((3, "RMS"), (4, "norm")):
        for label in STRUCTURES:
            print(f"{label + ', ' + said:<40}" + "".join(f"{value:8.3f}" for value in _means(rows, label, column)))
    _draw(rows, out)
    return 0


def _means(rows: list[Row], label: str, column: int) -> list[float]:
    """The mean over seeds at each width."""
    return [mean(float(row[column]) for row in rows if row[:2] == (label, width)) for width in WIDTHS]


def _draw(rows: list[Row], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.3), layout="constrained")
    colours = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")
    titles = {3: "RMS of the outputs", 4: "spectral norm of the matrix"}
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for label, colour, mark in zip(STRUCTURES, colours, "o^sDvP", strict=True):
            axis.plot(WIDTHS, _means(rows, label, column), color=colour, marker=mark, ms=5, lw=1.4, label=label)
        axis.set(xscale="log", title=title, xlabel="width d", ylim=(0, None))
        axis.set_xticks(WIDTHS, [str(width) for width in WIDTHS], minor=False)
        axis.minorticks_off()
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=7.5
    )
    for suffix in (".png", ".pdf"):
        figure.savefig(out.with_suffix(suffix), dpi=160, metadata={"CreationDate": None} if suffix == ".pdf" else None)


if __name__ == "__main__":
    door(main)
