"""Do features move as much at every width? The coordinate check of the learning-rate rule.

    python -m bench.coordinate_check out=analysis/data/coordinate-check

Trains small GPT-2s for a few steps at growing width and measures how far the features have moved: for every linear
but the head the RMS over tokens and features of h_after - h_before on one fixed batch, and of these the geometric mean.
Under the structure-aware rule (arXiv 2406.06248, section 3) it stays flat; under the naive rule, which gives every
factor the dense layer's multiplier, it falls with width. Writes OUT.csv, OUT.png and OUT.pdf, and prints the slopes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from structlin.config.model import Gpt2Config
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe, prepare
from structlin.errors import asks_help, door, key_values
from structlin.nn.linear import Linear
from structlin.structure import lookup, theta_of
from structlin.tasks.language import LanguageTask
from structlin.training.optim import make_optimizer, set_rates

STRUCTURES = {
    **{name: str(lookup(name)) for name in ("dense", "btt", "low_rank", "kronecker")},
    "btt, 3 factors": str(theta_of("btt", arguments={"factors": 3, "rank": 2})),
}
"""Name -> theta."""
WIDTHS = (64, 128, 256, 512, 1024)
SEEDS = (0, 1, 2)
STEPS = 16
LR = 5e-4


def coordinate_science(structure: str, width: int, rule: str, seed: int) -> Science:
    """A two-layer model at base width 64; batches of 512 tokens, no warm-up."""
    return Science(
        structure=StructureConfig(STRUCTURES[structure]),
        model=Gpt2Config(d_model=width, num_layers=2, d_head=64, context=64, base_width=64, dtype="float32"),
        data=DataRecipe("sotu"),
        optim=OptimConfig(lr=LR, rate_rule=rule, batch_tokens=512, clip=0.0),
        schedule=ScheduleConfig(warmup_steps=0),
        seed=seed,
    )


def feature_update(science: Science, data_root: Path, steps: int = STEPS) -> float:
    """Geometric mean, over the linears, of the RMS change of their outputs after ``steps`` updates."""
    task = LanguageTask(science, data_root)
    model = task.build_model()
    optimizer = make_optimizer(model, science.optim)
    set_rates(optimizer, science.optim.lr)
    probe, _ = task.train_batch(10_000)
    before = _features(model, probe)
    for step in range(steps):
        task.loss(model, task.train_batch(step)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    after = _features(model, probe)
    changes = [float((after[name] - before[name]).square().mean().sqrt()) for name in before]
    return math.exp(mean(map(math.log, changes)))


def slope(widths: Iterable[int], updates: Iterable[float]) -> float:
    """Exponent of width: least squares of log update on log width."""
    x, y = [math.log(width) for width in widths], [math.log(update) for update in updates]
    x_mean, y_mean = mean(x), mean(y)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum((a - x_mean) ** 2 for a in x)


@torch.no_grad()
def _features(model: torch.nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """Output of every linear but the head, by name."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[object, object, Tensor], None]:
        return lambda module, inputs, output: found.__setitem__(name, output.clone())

    linears = {name: module for name, module in model.named_modules() if isinstance(module, Linear) and name != "head"}
    hooks = [module.register_forward_hook(keep(name)) for name, module in linears.items()]
    model(tokens)
    for hook in hooks:
        hook.remove()
    return found


def main(arguments: list[str]) -> int:
    """Measure, write and print."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    options = key_values(arguments, {"out": "coordinate-check", "data": "data"})
    out, data_root = Path(options["out"]), Path(options["data"])
    prepare(DataRecipe("sotu"), data_root)
    rows = []
    for structure in STRUCTURES:
        for rule in ("structure", "naive"):
            updates = []
            for width in WIDTHS:
                values = [feature_update(coordinate_science(structure, width, rule, seed), data_root) for seed in SEEDS]
                rows += [(structure, rule, width, seed, value) for seed, value in zip(SEEDS, values, strict=True)]
                updates.append(mean(values))
            exponent = slope(WIDTHS, updates)
            print(
                f"{structure:<14} {rule:<10} {' '.join(f'{u:.4f}' for u in updates)}  slope {exponent:+.3f}", flush=True
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".csv").open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("structure", "rule", "width", "seed", "update_rms"), *rows])
    _draw(rows, out)
    return 0


def _draw(rows: list[tuple[str, str, int, int, float]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.1), sharey=True, layout="constrained")
    colours, marks = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7"), "o^sDv"
    for axis, rule, title in zip(axes, ("structure", "naive"), ("structure-aware rates", "naive rates"), strict=True):
        for structure, colour, mark in zip(STRUCTURES, colours, marks, strict=True):
            means = [mean(r[4] for r in rows if r[:3] == (structure, rule, width)) for width in WIDTHS]
            axis.plot(WIDTHS, means, color=colour, marker=mark, markersize=5, linewidth=1.4, label=structure)
        axis.set(xscale="log", yscale="log", title=title, xlabel="width d_model")
        axis.set_xticks(WIDTHS, [str(width) for width in WIDTHS], minor=False)
        axis.set_yticks([0.02, 0.05, 0.1, 0.2, 0.4], ["0.02", "0.05", "0.1", "0.2", "0.4"], minor=False)
        axis.minorticks_off()
    axes[0].set_ylabel(f"RMS feature update after {STEPS} steps")
    legend = axes[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=len(STRUCTURES), frameon=False, fontsize=8)
    for suffix in (".png", ".pdf"):
        figure.savefig(out.with_suffix(suffix), dpi=160, metadata={"CreationDate": None} if suffix == ".pdf" else None)


if __name__ == "__main__":
    door(main)
