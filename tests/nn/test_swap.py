"""Swaps: what matches and nothing else becomes structured, keeps what it had, and the model learns."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from structlin import Linear, cost, param_groups, swap_linears
from tests.nn.test_layer import ALL, STRUCTURES

D = 32


class Vit(nn.Module):
    """A small vision transformer of torch's own modules: patches (N, T, 16) -> classes (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(16, D)
        self.position = nn.Parameter(torch.zeros(1, 4, D))
        layer = nn.TransformerEncoderLayer(D, 4, 4 * D, dropout=0.0, activation="gelu", batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(D, 10)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(self.blocks(self.patch(x) + self.position, src_key_padding_mask=mask).mean(1))


def vit() -> Vit:
    torch.manual_seed(0)
    return Vit()


def linears(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, Linear)}


FFN = {f"blocks.layers.{block}.linear{number}" for block in range(2) for number in (1, 2)}


# --- what is swapped --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "exclude", "names"),
    [
        ("blocks.*.linear*", (), FFN),
        ("*", (), {*FFN, "patch", "head"}),
        (("patch", "head"), (), {"patch", "head"}),
        ("*", ("head", "pat*"), FFN),
        ("blocks.layers.1.linear1", (), {"blocks.layers.1.linear1"}),
    ],
)
def test_names_choose(where: str | tuple[str, ...], exclude: tuple[str, ...], names: set[str]) -> None:
    model = vit()
    swaps = swap_linears(model, "btt", where, exclude=exclude)
    assert {row.name for row in swaps} == names == linears(model)
    assert set(swaps.left_out) == (
        {f"blocks.layers.{i}.self_attn.out_proj" for i in range(2)} if where == "*" else set()
    )
    assert model(torch.zeros(2, 4, 16)).shape == (2, 10)


def test_the_report_counts_what_the_model_has() -> None:
    model = vit()
    before = cost(model, torch.zeros(2, 4, 16))
    swaps = swap_linears(model, "btt", "blocks.*.linear*")
    after = cost(model, torch.zeros(2, 4, 16))
    assert sum(row.params - row.params_before for row in swaps) == after.params - before.params
    assert 8 * sum(row.macs - row.macs_before for row in swaps) == after.macs - before.macs
    assert len(swaps) == 4
    assert (swaps[0].d_in, swaps[0].d_out, swaps[0].residual) == (32, 128, None)
    total = str(swaps).splitlines()[-1]
    assert total.startswith("4 x btt")
    assert f"{sum(row.params for row in swaps):,}" in total


def test_a_layer_keeps_what_it_had() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 16, bias=False), nn.Linear(16, 16)).double()
    model[2].weight.requires_grad_(False)
    model[2].eval()
    biases = [model[0].bias.detach().clone(), model[2].bias.detach().clone()]
    swap_linears(model, "low_rank", rank=4)
    assert [layer.map.A.dtype for layer in model] == [torch.float64] * 3
    assert torch.equal(model[0].bias, biases[0])
    assert model[1].bias is None
    assert torch.equal(model[2].bias, biases[1])
    assert [layer.map.A.requires_grad for layer in model] == [True, True, False]
    assert model[2].bias.requires_grad
    assert [layer.training for layer in model] == [True, True, False]
    assert model(torch.zeros(3, 16, dtype=torch.float64)).shape == (3, 16)


def test_a_model_on_meta_stays_there() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(16, 16))
    swap_linears(model, "btt")
    assert model[0].map.A.is_meta


def test_a_projection_of_the_same_structure_changes_nothing() -> None:
    model = vit()
    with torch.no_grad():
        model.blocks.layers[0].linear1.weight.copy_(Linear(D, 4 * D, "low_rank", rank=8).to_dense())
    x = torch.randn(2, 4, 16)
    wanted = model(x)
    swaps = swap_linears(model, "low_rank", "*.0.linear1", rank=8, init="project")
    assert swaps[0].residual < 1e-5
    torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
    assert f"{swaps[0].residual:.4f}" in str(swaps)


def test_a_module_at_two_places_stays_one() -> None:
    shared = nn.Linear(16, 16)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    swaps = swap_linears(model, "btt")
    assert model["a"] is model["b"][0]
    assert [row.name for row in swaps] == ["a"]
    with pytest.raises(ValueError, match=r"a is one module with b\.0, which where does not match"):
        swap_linears(nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)}), "btt", "a")


@torch.no_grad()
def test_the_fused_path_of_an_encoder_is_left() -> None:
    """Without gradients torch's encoder reads the weights of its linears, which a structured layer has not."""
    model = vit().eval()
    swap_linears(model, "btt", "blocks.*.linear*")
    x = torch.randn(3, 4, 16)
    mask = torch.tensor([[False] * 4, [False, False, True, True], [False] * 4])
    with torch.enable_grad():
        wanted = model(x), model(x, mask)
    torch.testing.assert_close((model(x), model(x, mask)), wanted, rtol=1e-4, atol=1e-5)


# --- what is refused --------------------------------------------------------------------------------------------------


class Doubled(nn.Linear):
    """A linear with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Plain(nn.Linear):
    """A subclass that computes what nn.Linear does."""


def tied() -> nn.Module:
    model = nn.ModuleDict({"tokens": nn.Embedding(20, 16), "body": nn.Linear(16, 16), "head": nn.Linear(16, 20)})
    model["head"].weight = model["tokens"].weight
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].register_forward_hook(lambda *_: None)
    return model


REFUSED = {
    "no match": (vit, {"where": "mlp.*"}, "where = 'mlp.\\*' matches no nn.Linear; there are patch, blocks.layers.0"),
    "one pattern of two": (vit, {"where": ["head", "hat"]}, "where = 'hat' matches no nn.Linear"),
    "all excluded": (vit, {"where": "head", "exclude": "h*"}, "leaves nothing to swap"),
    "attention": (vit, {"where": "*.out_proj"}, "out_proj: nn.MultiheadAttention multiplies with its weight directly"),
    "unserved": (
        vit,
        {"structure": "monarch", "blocks": 20},
        "patch \\(16 -> 32\\) cannot be swapped: .*16 x 32.*the nearest that works there: blocks=4",
    ),
    "unknown structure": (vit, {"structure": "bt"}, "did you mean 'btt'"),
    "unknown argument": (vit, {"blok": 4}, "unknown argument blok"),
    "unknown init": (vit, {"init": "frsh"}, "unknown init 'frsh'; did you mean 'fresh'"),
    "three factors projected": (
        vit,
        {"factors": 3, "init": "project"},
        "patch .*cannot be projected: .*no closed form",
    ),
    "normed projection": (vit, {"init": "project", "weight_norm": "fixed"}, "init=project keeps a matrix"),
    "tied": (tied, {}, "head shares its weight with tokens, .*exclude='head'"),
    "hooks": (hooked, {}, "1 has hooks or parametrizations"),
    "parametrized": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8))),
        {},
        "0 has hooks or parametrizations",
    ),
    "own forward": (lambda: nn.Sequential(Doubled(8, 8)), {}, "0 is a Doubled, whose forward is not nn.Linear's"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(8)), {}, "0 has no shape yet; run the model once"),
    "itself": (lambda: nn.Linear(8, 8), {}, "the model is itself a linear"),
    "none": (lambda: nn.Sequential(nn.ReLU()), {}, "the model has no nn.Linear"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_refused_leaves_the_model_as_it_was(case: str) -> None:
    make, options, message = REFUSED[case]
    model = make()
    before = {name: id(module) for name, module in model.named_modules()}
    with pytest.raises(ValueError, match=message) as error:
        swap_linears(model, **{"structure": "btt", **options})
    assert "\n" not in str(error.value)
    assert {name: id(module) for name, module in model.named_modules()} == before


def test_what_may_be_swapped_all_the_same() -> None:
    assert linears_after(nn.Sequential(Doubled(8, 8)), where="0") == {"0"}
    assert linears_after(nn.Sequential(Plain(8, 8))) == {"0"}
    assert linears_after(tied(), exclude="head") == {"body"}


def linears_after(model: nn.Module, **options: object) -> set[str]:
    swap_linears(model, "btt", **options)
    return linears(model)


# --- it learns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_swapped_model_learns(name: str) -> None:
    """50 steps of AdamW on a task of two directions; every parameter of a structured layer has a gradient and moves."""
    structure, arguments = STRUCTURES[name]
    model = vit()
    swap_linears(model, structure, "blocks.*.linear*", **arguments)
    start = copy.deepcopy(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(10, 4, 16, generator=generator)
    optimizer = torch.optim.AdamW(param_groups(model, 2e-3))
    losses = []
    for _ in range(50):
        label = torch.randint(10, (64,), generator=generator)
        x = means[label] + 0.5 * torch.randn(64, 4, 16, generator=generator)
        loss = functional.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    structured = [key for key in start if ".map." in key]
    assert structured
    assert not any(torch.equal(start[key], model.state_dict()[key]) for key in structured)
