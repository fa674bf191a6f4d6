"""The published models: equal to plain ones over eight steps in float64, and with the parameters one counts by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from structlin.anatomy.kinds import anatomy
from structlin.anatomy.ledger import ledger
from structlin.config.doors import sweep_request
from structlin.config.science import Science
from structlin.data.batches import NO_TARGET
from structlin.tasks.catalogue import open_learner
from tests.golden.losses import _trainer, batch
from tests.models.plain import Plain, next_token_loss

STEPS = 8
HORIZON = 12
WARMUP = 6
STRUCTURES = ("dense", "btt1", "btt2", "tt2", "g2", "l2")
SMALLER = {
    "language": ["scale=paper", "model.num_layers=6", "model.context=16", "optim.batch_tokens=64"],
    "pixels": ["task=pixels", "data=digits", "model.context=65", "model.num_heads=4", "optim.batch_tokens=130"],
    "regression": ["task=regression", "optim.batch_tokens=32"],
}
"""Sizes that take a second; everything else is the scale's."""


WIDTHS = {"language": 128, "pixels": 48, "regression": 48}
"""At a sixteenth of the base width GPT-2's rates are so large that rounding grows beyond 1e-12 within the steps."""


def science_of(task: str, structure: str, width: int = 0) -> Science:
    words = [*SMALLER[task], f"structure={structure}", "structure.rounding=paper", "structure.contraction=first"]
    words += ["model.dtype=float64", "budget=1e12"]
    words += [f"schedule.warmup_steps={WARMUP}"] if task == "language" else []
    science = sweep_request(words).templates[0].science.at_width(width or WIDTHS[task])
    return science if task == "language" else science.scheduled("cosine", HORIZON)


def plain_of(task: str, science: Science, model: torch.nn.Module) -> Plain:
    """The plain model with copies of the first weights; every number but the sizes is the table's."""
    sizes = {}
    for shape in anatomy(science).linears:
        if not shape.plan.dense:
            s = shape.sizes
            sizes[shape.name] = {"a": s.a, "b": s.b, "g": s.g, "d": s.d, "e": s.e, "f": s.f, "r": s.r, "out": s.d_out}
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    table: dict[str, dict[str, Any]] = {
        "language": {
            "layers": 6, "base_width": 768, "base_expansion": 1, "lr0": 3e-3, "betas": (0.9, 0.95), "clip": 1.0,
            "capped": True, "rate": lambda step: min(1.0, (step + 1) / WARMUP), "heads": 2,
        },
        "pixels": {
            "layers": 3, "base_width": 64, "base_expansion": 4, "lr0": 3e-3, "betas": (0.9, 0.999), "clip": 0.0,
            "capped": True, "rate": lambda step: 0.5 * (1 + math.cos(math.pi * step / HORIZON)), "heads": 4,
        },
        "regression": {
            "layers": 3, "base_width": 64, "base_expansion": 4, "lr0": 1e-3, "betas": (0.9, 0.999), "clip": 0.0,
            "capped": False, "rate": lambda step: 0.5 * (1 + math.cos(math.pi * step / HORIZON)),
        },
    }  # fmt: skip
    return Plain(weights, sizes, **table[task])


def plain_loss(task: str, plain: Plain, inputs: Tensor, targets: Tensor) -> Tensor:
    if task == "regression":
        return ((plain.student(inputs) - targets) ** 2).mean()
    return next_token_loss(plain.gpt2(inputs), targets)


CASES = [(task, name) for task in SMALLER for name in STRUCTURES if (task, name) != ("language", "l2")]
"""GPT-2's base shape gives a low-rank layer of a small width thirty times lr0: rounding then grows as well."""


@pytest.mark.parametrize(("task", "structure"), CASES)
def test_eight_steps_are_those_of_a_plain_model(task: str, structure: str) -> None:
    science = science_of(task, structure)
    trainer = _trainer(science)
    plain = plain_of(task, science, trainer.model)
    losses = []
    for step in range(STEPS):
        inputs, targets = batch(science, step)
        expected = plain_loss(task, plain, inputs, targets)
        plain.update(expected)
        found, _ = trainer._update((inputs, targets))
        trainer.step += 1
        assert float(found) == pytest.approx(float(expected.detach()), rel=1e-12, abs=0), step
        losses.append(float(found))
    assert losses[-1] != pytest.approx(losses[0], rel=1e-3), "nothing was learned, so little was compared"
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter, plain.weights[name], rtol=1e-9, atol=1e-10, msg=name)


def test_the_cap_is_at_work() -> None:
    """Some factor outgrows its first scale within the steps, so the plain model's cap is compared too."""
    science = science_of("language", "btt1")
    trainer = _trainer(science)
    plain = plain_of("language", science, trainer.model)
    free = replace(plain, weights={k: v.detach().clone().requires_grad_() for k, v in plain.weights.items()})
    free.capped = False
    inputs, targets = batch(science, 0)
    for _ in range(3):
        free.update(plain_loss("language", free, inputs, targets))
        plain.update(plain_loss("language", plain, inputs, targets))
    assert float(plain_loss("language", plain, inputs, targets).detach()) != pytest.approx(
        float(plain_loss("language", free, inputs, targets).detach()), rel=1e-6
    )


# ---- parameters by hand ----------------------------------------------------------------------------------------------


def counted(science: Science) -> int:
    """Weights of the model that is built."""
    return sum(parameter.numel() for parameter in open_learner(science).build_model().parameters())


@pytest.mark.parametrize("width", [64, 512])
def test_parameters_of_the_student(width: int) -> None:
    """Input 8 d + d, norm 2 d; three blocks of norm 2 d, up 4 d^2 + 4 d, down 4 d^2 + d; head d + 1."""
    science = science_of("regression", "dense", width)
    by_hand = 9 * width + 2 * width + 3 * (2 * width + 8 * width**2 + 5 * width) + width + 1
    assert ledger(science).params_total == by_hand
    assert width != 512 or by_hand == 6_308_353
    assert counted(science) == by_hand


def test_parameters_of_the_pixels_model() -> None:
    """d = 64, 8 heads of 8: table of 256 values and the start token, 193 positions, three blocks, final norm, head."""
    words = ["study=pixels", "study.size=paper", "structure=dense", "grid.widths=[64]", "dry_run=true"]
    science = sweep_request(words).templates[0].science.at_width(64)
    d, k = 64, 8
    attention = 4 * d * d + d + 2 * (2 * k)  # q, k, v, o; the bias of o; norms of q and k with biases
    ffn = 4 * d * d + 4 * d + 4 * d * d + d
    block = 2 * d + attention + 2 * d + ffn
    by_hand = (256 + 1 + 193) * d + 3 * block + 2 * d + 256 * d + 256
    assert by_hand == 195_040
    assert ledger(science).params_total == by_hand
    assert counted(science) == by_hand
    # 193 positions: scores and mixing over all of them, and a head at each.
    macs = 3 * (12 * d * d + 2 * 193 * d) + 256 * d
    assert ledger(science).macs_per_token == macs


def test_parameters_of_gpt2() -> None:
    """d = 256, 3 layers, no biases: 96 symbols, 128 positions, gains of two norms a block, of q, k and the last."""
    words = ["study=fig4", "study.size=paper", "structure=dense", "grid.widths=[256]", "dry_run=true"]
    science = sweep_request(words).templates[0].science.at_width(256)
    d = 256
    by_hand = (96 + 128) * d + 3 * (2 * d + 2 * 64 + 12 * d * d) + d + 96 * d
    assert by_hand == 2_443_392
    assert ledger(science).params_total == by_hand
    assert counted(science) == by_hand


def test_a_btt_at_256_has_the_factors_one_counts_by_hand() -> None:
    words = ["study=fig4", "study.size=paper", "structure=btt1", "grid.widths=[256]", "dry_run=true"]
    science = sweep_request(words).templates[0].science.at_width(256)
    # 256 = 16 x 16, 1024 = 32 x 32: a square layer has 16^3 weights a factor, up 16 16 32 and 16 32 32, down mirrored.
    square, up = 2 * 16**3, 16 * 16 * 32 + 16 * 32 * 32
    assert ledger(science).params["linear"] == 3 * (4 * square + 2 * up)


# ---- what the last input is asked ------------------------------------------------------------------------------------


def test_the_last_pixel_is_read_and_asked_nothing() -> None:
    science = science_of("pixels", "btt1")
    learner = open_learner(science)
    model = learner.build_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    inputs, targets = batch(science, 0)
    assert inputs.shape == targets.shape == (2, 65)
    assert bool((targets[:, -1] == NO_TARGET).all())
    other = inputs.clone()
    other[:, -1] = (inputs[:, -1] + 7) % 256
    with torch.no_grad():
        whole, changed = (float(learner.loss(model, (ids, targets))) for ids in (inputs, other))
        logits = model(inputs[:, :-1])
    assert changed == whole
    shorter = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, :-1].flatten())
    assert whole == pytest.approx(float(shorter), rel=1e-13)
