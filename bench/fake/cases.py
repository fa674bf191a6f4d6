"""What a case of the tables is: a structure, a width and words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from structlin.config.model import Gpt2Config
from structlin.config.moe import MoeConfig
from structlin.config.optim import OptimConfig
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe
from structlin.kernels.products import face
from structlin.models.gpt2 import GPT2
from structlin.nn.blocks import recompute
from structlin.structure import theta_of
from structlin.training.optim import make_optimizer


@dataclass(frozen=True)
class Case:
    """A run's model and how it is placed."""

    name: str
    science: Science
    placement: Placement


def case(text: str) -> Case:
    """Of a text such as btt1:1024:recompute:micro=16384."""
    structure, width, *words = text.split(":")
    given = dict(word.partition("=")[::2] for word in words)
    moe = MoeConfig()
    if "moe" in given:
        kind = given["moe"]
        layers = "ffn" if kind == "ffn" else "all"
        moe = MoeConfig(kind, int(given.get("experts", 8)), 2, layers=layers, auxiliary_weight=0.01, z_weight=0.1)
    rounding = "paper" if "paper" in given else "exact"
    tokenizer = given.get("data", "char96")
    science = Science(
        structure=StructureConfig(str(theta_of(structure, rounding=rounding)), rounding),
        moe=moe,
        model=Gpt2Config(
            d_model=int(width),
            num_layers=int(given.get("layers", 3)),
            d_head=64,
            context=int(given.get("context", 512 if tokenizer == "gpt2" else 128)),
            dtype=given.get("dtype", "bfloat16"),
            weight_norm=given.get("norm", "none"),
        ),
        data=DataRecipe("sotu", tokenizer=tokenizer),
        optim=OptimConfig(batch_tokens=int(given.get("tokens", 245_760 if tokenizer == "gpt2" else 65_536))),
    )
    micro = given.get("micro", "auto")
    compiles = next((value for word, value in (("combine", "combine"), ("compile", "true")) if word in given), "false")
    return Case(text, science, Placement(recompute="recompute" in given, micro_tokens=micro, compile=compiles))


@contextmanager
def all_fused() -> Iterator[None]:
    """Within it every layer of two factors takes the fused kernels."""
    rule = vars(face)["gpu_form"]
    setattr(face, "gpu_form", lambda sizes: "fused")  # noqa: B010 (what that room sees)
    try:
        yield
    finally:
        setattr(face, "gpu_form", rule)  # noqa: B010


@contextmanager
def placed(one: Case) -> Iterator[tuple[GPT2, torch.optim.AdamW, tuple[Tensor, Tensor]]]:
    """Model, optimizer with its moments, and a batch, on the GPU that is not there."""
    with torch.device("cuda"):
        model = GPT2(one.science)
    if one.placement.recompute:
        recompute(model)
    optimizer = make_optimizer(model, one.science.optim)
    for parameter in model.parameters():
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros((), device="cuda"), **moments}
    inputs = torch.zeros(one.science.rows, one.science.model.context, dtype=torch.int64, device="cuda")
    yield model, optimizer, (inputs, torch.zeros_like(inputs))
