"""A step as one piece of C++ is torch's step: in float64 to its last digits, in float32 over several steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from structlin.config.model import MlpConfig
from structlin.config.moe import MoeConfig
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe
from structlin.kernels.steps.gradients import WholeLoss
from structlin.models.whole import whole_gradients
from structlin.nn.linear import Linear
from structlin.tasks.catalogue import open_learner
from structlin.tasks.protocol import Batch
from structlin.training.optim import make_optimizer
from structlin.training.update import Update, make_update
from structlin.training.whole import WholeUpdate
from structlin.training.world import ONE_PROCESS
from tests.tiny import tiny

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def of(structure: str = "btt", d_model: int = 24, **model: object) -> Science:
    """Two blocks with caps; 2 sequences of a length that is no whole vector."""
    changes = {"num_layers": 2, "weight_norm": "fixed", "context": 20, **model}
    optim = replace(tiny().optim, batch_tokens=2 * changes["context"])
    return tiny(structure, model=replace(tiny().model, d_model=d_model, **changes), optim=optim)


CHAIN = "x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3 r12=2*0 r23=2*0"
BLAST = "x1=1/4*1 x12=4*0 y3=1/4*1 y23=4*0 r123=1/4*1"
RANK_8 = "(1/2|0|1/2|0|1/2|1/2|1/2)"
CASES = {
    "dense": of("dense"),
    "btt": of(),
    "learned caps": of(weight_norm="learned"),
    "no caps": of(weight_norm="none"),
    "a factor shared": of("g1"),
    "both shared": of("g2", 32),
    "low rank": of("low_rank"),
    "kronecker": of("kronecker", 32),
    "of rank 2": replace(of("btt", 32), structure=StructureConfig("(1/2|0|1/2|0|1/2|1/2|1/4)")),
    "in chunks of tokens": replace(
        of("btt", 64, num_layers=1, d_head=64, context=80), structure=StructureConfig(RANK_8)
    ),
    "three factors": replace(of("btt", 64, context=70), structure=StructureConfig(CHAIN)),
    "blast": replace(of("btt", 32, weight_norm="learned", biases=("*",)), structure=StructureConfig(BLAST)),
    "structured head": of(structured=("blocks.*", "head")),
    "biases": of(biases=("*",)),
    "odd width": of("dense", 40, d_head=10),
    "head of 16": of(d_model=32, d_head=16, context=70),
}


def student(structure: str, outer_norm: str, **model: object) -> Science:
    """An MLP that regresses; the last of its samples fill no vector."""
    mlp = MlpConfig(d_model=24, num_layers=2, dtype="float32", outer_norm=outer_norm, **model)
    optim = replace(tiny().optim, batch_tokens=70)
    return tiny(structure, model=mlp, optim=optim, task="regression", data=DataRecipe("teacher"))


CASES |= {
    "student": student("btt", "input", biases=("*",)),
    "dense student": student("dense", "output"),
    "student of three factors": replace(student("btt", "input"), structure=StructureConfig(CHAIN)),
    "capped student": student("low_rank", "none", weight_norm="learned"),
}


def moved(science: Science) -> torch.nn.Module:
    """The model, with no weight at zero."""
    model, generator = open_learner(science).build_model(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def batch_of(science: Science, seed: int = 0) -> Batch:
    """Random, with a target that is asked nothing."""
    inputs, targets = open_learner(science).random_batch(science.rows, torch.Generator().manual_seed(seed))
    if science.task != "regression":
        targets[0, 3] = -100
    return inputs, targets


def in_float64(science: Science) -> Science:
    return replace(science, model=replace(science.model, dtype="float64"))


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_torchs_in_float64(name: str) -> None:
    science = in_float64(CASES[name])
    model, batch = moved(science), batch_of(science)
    loss = open_learner(science).loss(model, batch)
    loss.backward()
    gradients = whole_gradients(model, science.task)
    assert gradients is not None
    assert float(open_learner(science).loss(WholeLoss(gradients), batch)) == pytest.approx(loss.item(), rel=1e-13)
    assert not gradients.row.gradients.any()
    assert float(gradients(*batch)) == pytest.approx(float(loss.detach()), rel=1e-13)
    for (parameter, found), expected in zip(model.named_parameters(), gradients.row.own_parts(), strict=True):
        torch.testing.assert_close(
            expected, found.grad, rtol=1e-10, atol=1e-13, msg=lambda text, name=parameter: f"{name}: {text}"
        )


def updates(science: Science, *, by_torch: bool) -> tuple[list[float], list[torch.Tensor]]:
    """Losses and norms of twelve steps, and the weights after them."""
    learner, model = open_learner(science), moved(science)
    optimizer = make_optimizer(model, science.optim)
    if by_torch:
        update: Update | WholeUpdate = Update(science, learner, model, model, optimizer, 1, ONE_PROCESS)
    else:
        found = make_update(science, learner, model, model, optimizer, Placement(), CPU, 1, ONE_PROCESS)
        assert isinstance(found, WholeUpdate)
        update = found
    numbers = [float(one) for step in range(12) for one in update(batch_of(science, step), 3e-3)]
    return numbers, [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("name", ["dense", "learned caps", "low rank", "student"])
@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_steps_in_float32_are_torchs(name: str, clip: float) -> None:
    science = CASES[name]
    science = replace(science, optim=replace(science.optim, clip=clip, weight_decay=0.1))
    (mine, weights), (expected, of_torch) = (updates(science, by_torch=way) for way in (False, True))
    assert mine == pytest.approx(expected, rel=2e-4)
    for one, other in zip(weights, of_torch, strict=True):
        # A weight whose gradient is rounding alone moves by its whole rate.
        assert float((one - other).square().mean().sqrt()) < 3e-4


def test_threads_share_the_sequences_of_a_batch() -> None:
    science = replace(of(context=64), optim=replace(tiny().optim, batch_tokens=1024))
    model, batch = moved(science), batch_of(science)
    gradients = whole_gradients(model, science.task)
    assert gradients is not None
    alone = float(gradients(*batch)), gradients.row.gradients.clone()
    torch.set_num_threads(2)
    shared = float(gradients(*batch)), gradients.row.gradients.clone()
    again = gradients(*batch), gradients.row.gradients.clone()
    assert shared[0] == pytest.approx(alone[0], rel=1e-6)
    torch.testing.assert_close(shared[1], alone[1], rtol=1e-3, atol=1e-6)
    assert torch.equal(shared[1], again[1])


@pytest.mark.parametrize(
    "science",
    [
        of(positions="rope"),
        of(qk_norm=False),
        of(tied=True),
        of(kv_heads=1),
        tiny("dense", moe=MoeConfig("ffn", 4, layers="ffn")),
        of(dtype="float64"),
    ],
    ids=["rope", "raw", "tied", "grouped", "mixture", "float64"],
)
def test_torch_computes_what_the_code_does_not(science: Science) -> None:
    learner = open_learner(science)
    model = learner.build_model()
    optimizer = make_optimizer(model, science.optim)
    assert isinstance(make_update(science, learner, model, model, optimizer, Placement(), CPU, 1, ONE_PROCESS), Update)


@pytest.mark.parametrize(
    ("structure", "d_model", "pays"),
    [
        ("dense", 160, True),
        ("dense", 192, False),
        ("btt", 256, True),
        ("g2", 128, True),
        ("g2", 256, False),
        ("low_rank", 512, True),
        ("low_rank", 768, False),
    ],
)
def test_wide_layers_have_what_is_faster(structure: str, d_model: int, pays: bool) -> None:
    model = open_learner(of(structure, d_model, num_layers=1)).build_model()
    assert (whole_gradients(model, "language") is not None) == pays


def test_a_guided_linear_is_torchs() -> None:
    science = of()
    model = open_learner(science).build_model()
    next(one for one in model.modules() if isinstance(one, Linear)).take_guide()
    assert whole_gradients(model, science.task) is None


def test_a_token_of_another_vocabulary_is_refused() -> None:
    science = of()
    model, (inputs, targets) = moved(science), batch_of(science)
    inputs[1, 2] = 96
    gradients = whole_gradients(model, science.task)
    assert gradients is not None
    with pytest.raises(IndexError, match="none of the model's"):
        gradients(inputs, targets)
