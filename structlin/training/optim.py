"""How are the parameters updated? AdamW, fused, with one group per learning-rate multiplier."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

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
        groups[specs[name].rate, specs[name].decay, parameter.dim() == 0].append(parameter)
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


def set_rates(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its multiple of the rate of this step."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["rate"]
