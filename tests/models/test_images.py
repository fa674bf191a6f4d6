"""The MLP and the ViT of images: over eight steps those of plain torch, counted exactly, saying nothing at first."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from structlin.anatomy.ledger import ledger
from structlin.config.model import MlpConfig, ModelConfig, VitConfig
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe
from structlin.data.recipe import LABELS, UNKNOWN
from structlin.errors import UserError
from structlin.models.build import build_model
from structlin.nn.spec import collect_specs
from structlin.structure import CATALOG, theta_of
from structlin.tasks.catalogue import open_learner
from structlin.training.optim import make_optimizer
from structlin.training.update import make_update
from structlin.training.world import ONE_PROCESS
from tests.models import plain_images as plain

WIDTH, BATCH, LR = 32, 12, 3e-3
MODELS: dict[str, ModelConfig] = {
    "mlp": MlpConfig(d_model=WIDTH, num_layers=2, structured=("blocks.*", "input"), biases=("*",), outer_norm="none",
                     input_rate=0.1, base_width=16, base_ffn_expansion=4, dtype="float64"),
    "vit": VitConfig(d_model=WIDTH, num_layers=2, patch=4, num_heads=4, structured=("blocks.*", "input"), base_width=16,
                     dtype="float64"),
}  # fmt: skip


def science_of(model: str, structure: str = "dense", data: str = "cifar10", **changes: object) -> Science:
    recipe = DataRecipe("digits", LABELS) if data == "digits" else DataRecipe(data, content=UNKNOWN)
    return Science(
        structure=StructureConfig(str(theta_of(structure))),
        model=replace(MODELS[model], **changes),
        data=recipe,
        optim=OptimConfig(lr=LR, beta2=0.999, clip=0.0, batch_tokens=BATCH),
        schedule=ScheduleConfig(warmup_steps=0),
        task="classification",
    )


def batches(science: Science) -> list[tuple[torch.Tensor, torch.Tensor]]:
    learner, generator = open_learner(science), torch.Generator().manual_seed(0)
    return [learner.random_batch(BATCH, generator) for _ in range(8)]


# What the rules say of a dense layer: lr0 times base fan-in over fan-in.
RATES = {
    "mlp": {"input.weight": 0.1, "input.bias": 0.1, "up.weight": 0.5, "down.weight": 0.5, "head.weight": 0.5},
    "vit": {"q.weight": 0.5, "k.weight": 0.5, "v.weight": 0.5, "o.weight": 0.5, "up.weight": 0.5, "down.weight": 0.5,
            "head.weight": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_eight_steps_equal_those_of_a_plain_model(name: str) -> None:
    science = science_of(name)
    learner, model = open_learner(science), build_model(science)
    weights = {key: value.detach().clone().requires_grad_() for key, value in model.named_parameters()}
    rates = {key: next((r for end, r in RATES[name].items() if key.endswith(end)), 1.0) for key in weights}
    placement = Placement(device="cpu", tracking="journal")
    optimizer = make_optimizer(model, science.optim)
    update = make_update(science, learner, model, model, optimizer, placement, torch.device("cpu"), 1, ONE_PROCESS)
    state: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for step, (inputs, targets) in enumerate(batches(science), start=1):
        logits = plain.mlp(weights, inputs, 2) if name == "mlp" else plain.vit(weights, inputs, 2, 4, 4)
        expected = plain.cross_entropy(logits, targets)
        expected.backward()
        plain.adam(weights, rates, LR, state, step)
        loss, _ = update((inputs, targets), LR)
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-10), step
    for key, value in model.named_parameters():
        # A bias of k's norm moves all scores of a query alike: its gradient is rounding, which Adam makes large.
        if not key.endswith("k_norm.bias"):
            assert torch.allclose(value, weights[key], rtol=1e-7, atol=1e-9), key


@pytest.mark.parametrize("data", ["digits", "cifar10"])
@pytest.mark.parametrize("structure", sorted(CATALOG))
@pytest.mark.parametrize("name", MODELS)
def test_the_ledger_counts_the_model(name: str, structure: str, data: str) -> None:
    science = science_of(name, structure, data, dtype="float32", weight_norm="learned")
    model, costs = build_model(science), ledger(science)
    assert costs.params_total == sum(parameter.numel() for parameter in model.parameters())
    inputs, _ = open_learner(science).random_batch(BATCH, torch.Generator())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta")(inputs.to("meta"))
    assert counter.get_total_flops() == 2 * costs.macs_per_token * BATCH


def test_costs_of_dense_models_by_hand() -> None:
    d = WIDTH
    assert ledger(science_of("mlp")).macs_per_token == 3072 * d + 2 * 8 * d * d + 10 * d
    patches, positions = 64, 65
    by_hand = patches * 48 * d + positions * 2 * 12 * d * d + 2 * 2 * positions**2 * d + 10 * d
    assert ledger(science_of("vit")).macs_per_token == by_hand
    mean = ledger(science_of("vit", pool="mean"))
    assert mean.macs["attention"] == 2 * 2 * patches**2 * d
    assert mean.params["embedding"] == patches * d


@pytest.mark.parametrize("pool", ["class", "mean"])
@pytest.mark.parametrize("structure", ["dense", "btt", "l2", "tt1"])
@pytest.mark.parametrize("name", MODELS)
def test_it_first_says_nothing_and_every_weight_soon_learns(name: str, structure: str, pool: str) -> None:
    science = science_of(name, structure, **({"pool": pool} if name == "vit" else {}))
    learner, model = open_learner(science), build_model(science)
    inputs, targets = batches(science)[0]
    assert float(learner.loss(model, (inputs, targets)).detach()) == pytest.approx(math.log(10))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3, generator=generator)
    learner.loss(model, (inputs, targets)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


def test_a_patch_hears_of_every_other() -> None:
    """And no order of patches is favoured but by their positions: they are exchanged with them."""
    model = build_model(science_of("vit"))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    images = batches(science_of("vit"))[0][0].requires_grad_()
    model(images)[0, 0].backward()
    assert bool((images.grad[0].abs().amax((1, 2)) > 0).all())
    assert not images.grad[1:].any()


def test_the_input_has_a_rate_of_its_own() -> None:
    for name in MODELS:
        plain_rate, slow = (
            {
                key: spec.rate
                for key, spec in collect_specs(build_model(science_of(name, "btt", input_rate=rate))).items()
            }
            for rate in (1.0, 0.1)
        )
        for key, rate in plain_rate.items():
            assert slow[key] == pytest.approx(rate * (0.1 if key.startswith("input.") else 1.0)), key


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch": 5}, r"model.patch = 5 does not divide images of 32 x 32 pixels; those that do: 1, 2, 4, 8, 16, 32"),
        ({"d_model": 30}, r"model.d_model = 30 is no multiple of model.num_heads = 4; nearest widths: 28, 32"),
        ({"pool": "max"}, r"model.pool = 'max' is unknown"),
        ({"input_rate": 0.0}, r"model.input_rate = 0.0 must be a number above 0"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        science_of("vit", **changes)
