"""Figures of arXiv 2406.06248: planted slopes are recovered and stand in them; families have one name."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.catalogue import FIGURES
from analysis.figures import cifar
from analysis.figures.lines import Slope, ends, family, slope
from structlin.structure import lookup

SLOPES = {"dense": 0.10, "btt": 0.13, "monarch-b4": 0.05, "mpo-c2-r8": 0.02}


def runs(tokenizers: tuple[str, ...] = ("labels",)) -> pd.DataFrame:
    """Two evaluations a run, two seeds, four widths; error = compute^-slope at the end."""
    rows = []
    for tokenizer in tokenizers:
        for model in ("mlp", "vit"):
            for name, falls in SLOPES.items():
                for width in (32, 64, 128, 256):
                    for seed in (0, 1):
                        flops = 1e6 * width**2
                        error = (flops / 1e12) ** -falls / 1e2
                        common = {
                            "run_id": f"{tokenizer}-{model}-{name}-{width}-{seed}", "model": model, "structure": name,
                            "variant": name, "d_model": width, "seed": seed, "status": "done", "data": "cifar10",
                            "tokenizer": tokenizer, "task": "classification", "num_layers": 2, "rate_rule": "structure",
                            "learning_rate": 1e-3, "train_tokens": 1e4, "tokens": 1e5, "paper_flops": flops,
                            "macs_per_token": width**2, "macs_head": 0.25 * width**2, "xi": float(width),
                            "weight_bytes": 4.0 * width**2, "activation_bytes": 8.0 * width,
                            "theta": str(lookup("dense")), "training_flops": 6e6 * width**2, "in_warmup": False,
                            "params_total": width**2, "config.model.weight_norm": ("none", "fixed")[seed],
                        }  # fmt: skip
                        for step, factor in ((1, 3.0), (2, 1.0)):
                            measured = {"val_error": factor * error, "train_error": factor * error,
                                        "val_loss": factor * error, "feature_update": 0.7}  # fmt: skip
                            rows.append({**common, "step": step, **measured})
    return pd.DataFrame(rows)


def test_the_end_of_a_run_counts_and_none_that_diverged() -> None:
    table = runs()
    table.loc[table["run_id"] == "labels-mlp-btt-32-0", "status"] = "diverged"
    last = ends(table)
    assert (last["step"] == 2).all()
    assert len(last) == table["run_id"].nunique() - 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dense", "dense"), ("btt-r4", "btt"), ("btt-r2-c3", "btt, 3 factors"), ("monarch-b4/paper", "monarch"),
     ("mpo-c2-r16/paper", "tt"), ("low_rank-d:10/paper", "low_rank"), ("kronecker", "kronecker")],
)  # fmt: skip
def test_ranks_and_blocks_are_of_one_family(name: str, expected: str) -> None:
    assert family(name) == expected


def test_a_planted_slope_is_recovered_with_its_interval() -> None:
    x = np.geomspace(1, 100, 12)
    exact = slope(x, 5 * x**-0.3)
    assert exact is not None
    assert (exact.value, exact.half) == (pytest.approx(-0.3), pytest.approx(0, abs=1e-9))
    inside = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(0, 0.1, 12)
        found = slope(x, 5 * x**-0.3 * np.exp(noise))
        assert found is not None
        inside += abs(found.value + 0.3) < found.half
    assert 0.83 < inside / 200 < 0.96
    assert slope(np.ones(3), x[:3]) is None
    assert math.isnan(slope(x[:2], x[:2]).half)  # type: ignore[union-attr]
    assert Slope(-0.1, 0.02, 1, 0).said == "-0.100 ± 0.020"


def test_the_slopes_here_and_the_published_ones_stand_in_the_figure() -> None:
    drawing = cifar.draw(runs())
    assert "btt -0.130" in drawing.caption
    assert [panel.title for panel in drawing.panels[:3]] == [
        "MLP: training error",
        "MLP: validation error",
        "MLP: slopes",
    ]
    slopes = {s.variant: (s.x[0], s.y[0]) for s in drawing.panels[2].series if s.style == "points"}
    assert slopes["btt"] == (0.119, pytest.approx(0.13))
    assert slopes["monarch"] == (0.095, pytest.approx(0.05))
    dashed = {s.variant: s for s in drawing.panels[0].series if s.style == "dashed"}
    assert set(dashed) == {"dense", "btt", "monarch", "tt"}
    assert slope(dashed["btt"].x, dashed["btt"].y).value == pytest.approx(-0.119)  # type: ignore[union-attr]
    assert cifar.published("cifar100")["btt"] == 0.157
    assert cifar.published("digits") == cifar.published("cifar10")


def test_the_training_loss_stands_for_errors_that_reach_zero() -> None:
    table = runs()
    table.loc[table["run_id"] == "labels-mlp-dense-256-0", "train_error"] = 0.0
    table["train_loss"] = 7.0 * table["train_error"] + 1e-3
    drawing = cifar.draw(table)
    assert [drawing.panels[0].title, drawing.panels[3].title] == ["MLP: training loss, nats", "ViT: training error"]
    assert not [s for s in drawing.panels[0].series if s.style == "dashed"]


@pytest.mark.parametrize("name", ["cifar", "xi", "feature-moves", "rate-landscape", "weight-norm", "head", "btt-gpt2"])
def test_a_figure_draws_from_runs_alone(name: str) -> None:
    figure = FIGURES[name]
    assert not figure.laws
    table = runs(("char96", "gpt2")) if name in ("head", "btt-gpt2") else runs()
    drawing = figure.draw(table[table["model"] == "mlp"] if name not in ("cifar", "rate-landscape") else table)
    assert drawing.name == name
    assert all(panel.series for panel in drawing.panels)


def test_a_width_looks_the_same_for_mlps_and_vits() -> None:
    table = runs()
    table.loc[table["model"] == "vit", "d_model"] //= 2
    looks: dict[str, set[tuple[str, str]]] = {}
    for panel in FIGURES["rate-landscape"].draw(table).panels:
        assert panel.title.startswith(("MLP: ", "ViT: "))
        for one in panel.series:
            looks.setdefault(one.label, set()).add((one.colour, one.marker))
    looks.pop("", None)
    assert {label for label in looks if label.startswith("width ")} == {f"width {16 * 2**k}" for k in range(5)}
    assert all(len(found) == 1 for found in looks.values())
    assert len(set.union(*(looks[f"width {16 * 2**k}"] for k in range(5)))) == 5


def test_memory_and_xi_are_axes() -> None:
    drawing = FIGURES["xi"].draw(runs()[lambda t: t["model"] == "mlp"])
    over_xi, memory = drawing.panels[0], drawing.panels[1]
    assert [s.x[0] for s in over_xi.series if s.variant == "dense"] == [32, 64, 128, 256]
    assert [s.y[0] for s in memory.series if s.variant == "dense"] == [16 * w**2 + 8 * w for w in (32, 64, 128, 256)]
