"""Rates: every parameter in one group, structured layers by their plan, dense ones by muP where a width is given."""

import pytest
import torch
from torch import nn

from structlin import Linear, param_groups, swap_linears
from tests.nn.test_swap import Vit, vit


def rates(model: nn.Module, lr: float = 1.0, base_width: float | None = None, **options: object) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups(model, lr, base_width, **options)
    found = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert found.keys() == set(names.values())
    return found


def mixed() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "tokens": nn.Embedding(10, 64),
            "conv": nn.Conv1d(64, 64, 3),
            "dense": nn.Linear(64, 128),
            "btt": Linear(64, 64, "btt", bias=True),
            "low_rank": Linear(64, 256, "low_rank", rank=4, weight_norm="learned"),
            "three": Linear(64, 64, "btt", factors=3),
            "own_dense": Linear(64, 32, "dense"),
            "attention": nn.MultiheadAttention(64, 2),
            "norm": nn.LayerNorm(64),
        }
    )


# sqrt(64) = 8 terms a sum of a block tensor train, 64 and 4 of a low rank one, 4 of three factors.
FACTORS = {
    "btt.map.A": 64 / (2 * 8), "btt.map.B": 64 / (2 * 8), "low_rank.map.A": 64 / (2 * 64),
    "low_rank.map.B": 64 / (2 * 4),
    "three.map.G1": 64 / (3 * 4), "three.map.G2": 64 / (3 * 4), "three.map.G3": 64 / (3 * 4), "own_dense.map.weight": 1,
}  # fmt: skip
MATRICES = {"dense.weight", "own_dense.map.weight", "attention.in_proj_weight", "attention.out_proj.weight"}


def test_a_dense_layer_of_the_same_fan_in_gets_lr() -> None:
    found = rates(mixed(), 0.5)
    assert found == pytest.approx({name: 0.5 * FACTORS.get(name, 1.0) for name in found})


def test_with_a_width_the_rates_are_mups() -> None:
    found = rates(mixed(), 1.0, base_width=16)
    wanted = {name: 16 / 64 * FACTORS.get(name, 1.0) for name in {*FACTORS, *MATRICES}}
    assert found == pytest.approx({name: wanted.get(name, 1.0) for name in found})


def test_fixed_names_keep_lr() -> None:
    found = rates(mixed(), 1.0, base_width=16, fixed=("dense.*", "btt.map.A"))
    assert (found["dense.weight"], found["btt.map.A"], found["btt.map.B"]) == (1.0, 1.0, 1.0)
    assert rates(mixed(), 1.0, 16, fixed="dense.*")["attention.in_proj_weight"] == 0.25


def test_decay_is_for_what_has_two_dimensions() -> None:
    model = mixed()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {
        names[id(parameter)]
        for group in param_groups(model, 1.0, weight_decay=0.1)
        for parameter in group["params"]
        if group["weight_decay"] == 0.1
    }
    assert decayed == {*FACTORS, *MATRICES, "tokens.weight", "conv.weight"}


def test_a_tied_head_keeps_the_rate_of_its_embedding() -> None:
    model = nn.ModuleDict({"head": nn.Linear(64, 10, bias=False), "tokens": nn.Embedding(10, 64)})
    model["head"].weight = model["tokens"].weight
    assert rates(model, 1.0, base_width=16) == {"head.weight": 1.0}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_any_optimizer_takes_them(optimizer: type[torch.optim.Optimizer]) -> None:
    model = vit()
    swap_linears(model, "btt", "blocks.*.linear*")
    made = optimizer(param_groups(model, 1e-3, base_width=16, weight_decay=0.1))
    schedule = torch.optim.lr_scheduler.LambdaLR(made, lambda step: 0.5)
    model(torch.randn(2, 4, 16)).sum().backward()
    made.step()
    schedule.step()
    assert all(group["lr"] == 0.5e-3 * group["rate"] for group in made.param_groups)


def test_the_rates_are_those_of_our_own_models() -> None:
    """base_width = base_d_in gives a layer's factors what its own specs say."""
    layer = Linear(64, 128, "btt11")
    found = rates(layer, 1.0, base_width=64)
    assert found == {f"map.{name}": spec.rate for name, spec in layer.map.param_specs().items()}


MISTAKES = [
    ((-1.0,), {}, "lr = -1.0: write a number"),
    (("fast",), {}, "lr = 'fast'"),
    ((1e-3, 0), {}, "base_width = 0: write the width at which lr was tuned"),
    ((1e-3, "wide"), {}, "base_width = 'wide'"),
    ((1e-3,), {"fixed": "input.*"}, "fixed = 'input.\\*' matches no parameter; there are position, patch.weight"),
    ((1e-3,), {"weight_decay": float("nan")}, "weight_decay = nan"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), MISTAKES)
def test_a_mistake_is_one_line(arguments: tuple[object, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        param_groups(Vit(), *arguments, **options)
    assert "\n" not in str(error.value)


def test_a_lazy_layer_is_named() -> None:
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet"):
        param_groups(nn.Sequential(nn.LazyLinear(8)), 1e-3)
