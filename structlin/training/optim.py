"""How are the parameters updated? AdamW, fused, with one group per learning-rate multiplier."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from structlin.config.optim import OptimConfig
from structlin.nn.spec import collect_specs


def make_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the groups of a model; each group remembers its multiplier as ``rate``.

    Scalars have groups of their own: a fused update takes sharded parameters or whole ones, and a scalar stays whole.
    Asserts that every parameter stands in exactly one group.
    """
    specs = collect_specs(model)
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        spec = specs[name]
        groups[spec.rate, spec.role in optim.decayed, parameter.dim() == 0].append(parameter)
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    return torch.optim.AdamW(
        [
            {"params": parameters, "rate": rate, "weight_decay": optim.weight_decay if decay else 0.0}
            for (rate, decay, _), parameters in groups.items()
        ],
        lr=optim.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        fused=True,
    )


def names_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the parameters in the optimizer's order, by which its state dict numbers them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def set_rates(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its multiple of the rate of this step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * group["rate"])
        else:
            group["lr"] = lr * group["rate"]


def rates_on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Hold the rates in a GPU's memory (in float32), where a recorded step reads them anew each time."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)
        group["capturable"] = True


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state dict as every device reads it: rates are numbers."""
    groups = [{**group, "lr": float(group["lr"]), "capturable": False} for group in state["param_groups"]]
    return {**state, "param_groups": groups}
