"""Parameters and MACs of every published width of MLPs and ViTs on images: the ledger, the model and the formula."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from structlin.anatomy.ledger import ledger
from structlin.config.science import Science
from structlin.models.mlp import MLP
from structlin.models.vit import ViT
from tests.golden.test_published import planned

ROWS = 2


def sciences(study: str) -> list[Science]:
    """Every model of a study at its published size, once."""
    return list({(cell.science.variant, cell.science.model): cell.science for cell in planned(study, "paper")}.values())


@pytest.mark.parametrize("study", ["cifar", pytest.param("imagenet", marks=pytest.mark.long)])
def test_the_ledger_counts_every_published_model(study: str) -> None:
    """Against the model itself, on the meta device, where a weight takes no memory and a product no time."""
    for science in sciences(study):
        with torch.device("meta"):
            model = MLP(science) if science.model.name == "mlp" else ViT(science)
            images = torch.zeros(ROWS, *science.data.shape)
        costs, name = ledger(science), f"{science.model.name} {science.variant} {science.model.d_model}"
        assert costs.params_total == sum(parameter.numel() for parameter in model.parameters()), name
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(images.flatten(1) if science.model.name == "mlp" else images)
        assert counter.get_total_flops() == 2 * ROWS * costs.macs_per_token, name


def dense(study: str, model: str) -> dict[int, Science]:
    """Width -> dense model."""
    found = [one for one in sciences(study) if one.structure.name == "dense" and one.model.name == model]
    return {one.model.d_model: one for one in found}


def test_dense_mlps_by_hand() -> None:
    found = dense("cifar", "mlp")
    assert list(found) == [32, 64, 128, 256, 512, 1024, 2048, 4096]
    for d, science in found.items():
        macs = 3072 * d + 3 * 8 * d**2 + 10 * d
        # Biases of the input, of up and down and the norm before them, and of the head.
        assert ledger(science).params_total == macs + d + 3 * (4 * d + d + 2 * d) + 10
        assert ledger(science).macs_per_token == macs


@pytest.mark.parametrize(
    ("study", "layers", "patches", "values", "classes"), [("cifar", 3, 16, 192, 10), ("imagenet", 12, 49, 3072, 1000)]
)
def test_dense_vits_by_hand(study: str, layers: int, patches: int, values: int, classes: int) -> None:
    for d, science in dense(study, "vit").items():
        seen, head = patches + 1, d // science.model.num_heads
        linear, attention = 12 * d**2, 2 * seen * d
        assert (
            ledger(science).macs_per_token == patches * values * d + seen * layers * (linear + attention) + classes * d
        )
        # Biases of o, up and down; norms before both branches, and of q and k over a head.
        block = linear + d + 4 * d + d + 2 * 2 * d + 2 * 2 * head
        outside = values * d + d + 2 * values + 2 * d + d + seen * d + 2 * d + classes * (d + 1)
        assert ledger(science).params_total == layers * block + outside


def test_the_largest_dense_vit_on_imagenet_is_vit_s() -> None:
    """22.9 million parameters and 1.14 billion MACs, as ViT-S/32 is known for; the structured ones are as large."""
    costs = ledger(dense("imagenet", "vit")[384])
    assert costs.params_total == pytest.approx(22.9e6, rel=0.005)
    largest = {
        one.variant: ledger(one).macs_per_token for one in sciences("imagenet") if ledger(one).params_total > 2e7
    }
    assert len(largest) == 5
    assert all(macs == pytest.approx(costs.macs_per_token, rel=0.1) for macs in largest.values())
