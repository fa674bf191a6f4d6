"""What should a mixture compute? A plain Python loop over tokens and their experts, each expert a layer of its own."""

import torch
from torch import Tensor
from torch.nn import functional

from structlin.nn.experts import Experts
from structlin.nn.linear import LinearOptions, make_linear
from structlin.nn.moe import MoeFfn, MoeLinear
from structlin.nn.reference import reference_forward


def expert_rows(experts: Experts, expert: int, rows: Tensor) -> Tensor:
    """Rows through one expert: a layer whose factors are the expert's slices, by one einsum."""
    layer = make_linear(experts.plan, LinearOptions(8, weight_norm=experts.weight_norm))
    for name, stacked in experts.named_parameters():
        del layer._parameters[name]
        setattr(layer, name, stacked[expert])
    return rows @ layer.weight.T if experts.sizes.dense else reference_forward(layer, rows)


def loop_forward(layer: MoeLinear | MoeFfn, x: Tensor, top_k: int) -> Tensor:
    """y of x (T, d) token by token."""
    outputs = []
    for row in x:
        logits = layer.router.weight @ row
        chosen = logits.topk(top_k).indices
        weights = logits[chosen].softmax(0)
        terms = [w * _one(layer, int(e), row[None])[0] for w, e in zip(weights, chosen, strict=True)]
        outputs.append(torch.stack(terms).sum(0))
    return torch.stack(outputs)


def _one(layer: MoeLinear | MoeFfn, expert: int, row: Tensor) -> Tensor:
    if isinstance(layer, MoeLinear):
        return expert_rows(layer.experts, expert, row)
    return expert_rows(layer.down, expert, functional.gelu(expert_rows(layer.up, expert, row)))
