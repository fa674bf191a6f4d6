"""The public layer: equal to its matrix everywhere, in every way that torch handles a module, and never dead."""

import copy
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin import Linear, param_groups, plan
from structlin.nn.reference import reference_matrix

ROOT = Path(__file__).parents[2]
STRUCTURES = {
    "dense": ("dense", {}),
    "btt": ("btt", {}),
    "btt-c3": ("btt", {"factors": 3}),
    "monarch-b4": ("monarch", {"blocks": 4}),
    "low_rank-d:4": ("low_rank", {"rank": "d/4"}),
    "blast-b2-r4": ("blast", {"blocks": 2, "rank": 4}),
    "kronecker": ("kronecker", {}),
    "block_shuffle-b4": ("block_shuffle", {"blocks": 4}),
}
ALL = sorted(STRUCTURES)


def layer_of(name: str, d_in: int = 32, d_out: int = 64, **options: object) -> Linear:
    structure, arguments = STRUCTURES[name]
    torch.manual_seed(0)
    layer = Linear(d_in, d_out, structure, bias=True, **arguments, **options)
    with torch.no_grad():
        layer.bias.normal_()
    return layer


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 64), (96, 48), (16, 16)])
@pytest.mark.parametrize("name", ALL)
def test_a_layer_is_its_matrix_and_its_bias(name: str, shape: tuple[int, int]) -> None:
    layer = layer_of(name, *shape, dtype=torch.float64)
    x, W = randn(5, shape[0]), reference_matrix(layer.map).detach()
    torch.testing.assert_close(layer(x), x @ W.T + layer.bias, rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.to_dense(), W, rtol=0, atol=1e-10)


@pytest.mark.parametrize("leading", [(), (0,), (0, 3), (1,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("name", ALL)
def test_any_leading_shape(name: str, leading: tuple[int, ...]) -> None:
    layer = layer_of(name, dtype=torch.float64)
    x = randn(*leading, 32)
    y = layer(x)
    assert y.shape == (*leading, 64)
    torch.testing.assert_close(y, x @ layer.to_dense().T + layer.bias, rtol=0, atol=1e-10)
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_strides_do_not_matter(name: str, dtype: torch.dtype) -> None:
    layer = layer_of(name, 64, 96, dtype=dtype)
    x = randn(64, 7, dtype=dtype).T
    assert not x.is_contiguous()
    torch.testing.assert_close(layer(x), layer(x.contiguous()))


@pytest.mark.parametrize("name", ALL)
def test_the_smallest_widths(name: str) -> None:
    structure, arguments = STRUCTURES[name]
    arguments = {**arguments, **({"blocks": 2} if "blocks" in arguments else {})}
    for shape in ((4, 4), (4, 6), (6, 4)):
        layer = Linear(*shape, structure, dtype=torch.float64, **arguments)
        x = randn(3, shape[0])
        torch.testing.assert_close(layer(x), x @ reference_matrix(layer.map).T, rtol=0, atol=1e-12)


def test_one_feature_on_either_side() -> None:
    for shape in ((1, 1), (1, 5), (5, 1), (7, 3)):
        assert Linear(*shape, "btt")(torch.ones(2, shape[0])).shape == (2, shape[1])


# --- how torch handles it ---------------------------------------------------------------------------------------------


def test_it_is_a_module_with_the_names_of_torch() -> None:
    layer = layer_of("btt")
    assert isinstance(layer, nn.Module)
    assert (layer.in_features, layer.out_features, layer.plan) == (32, 64, plan("btt", 32, 64))
    assert Linear(32, 64, "btt").bias is None


def test_the_repr_says_what_it_is() -> None:
    assert repr(Linear(768, 3072, "btt", bias=True)) == (
        "Linear(768 -> 3072, btt, bias=True: tga,fga,feg->tfe, rank at most 768, 110,592 weights = 4.69% of dense)"
    )
    assert "weight_norm=fixed" in repr(Linear(16, 16, "low_rank", weight_norm="fixed"))


@pytest.mark.parametrize("name", ALL)
def test_copies_files_and_state(name: str) -> None:
    layer, x = layer_of(name), randn(3, 32, dtype=torch.float32)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    other = layer_of(name)
    other.reset_parameters()
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(layer.state_dict())
    for same in (copy.deepcopy(layer), torch.load(file, weights_only=False), other):
        assert torch.equal(same(x), layer(x))
        assert repr(same) == repr(layer)


def test_made_on_meta_and_filled_later() -> None:
    with torch.device("meta"):
        layer = Linear(64, 64, "btt", bias=True)
    assert all(parameter.is_meta for parameter in layer.parameters())
    layer.to_empty(device="cpu")
    torch.manual_seed(0)
    layer.reset_parameters()
    torch.manual_seed(0)
    assert torch.equal(layer.to_dense(), Linear(64, 64, "btt", bias=True).to_dense())
    assert Linear(64, 64, "btt", device="meta", dtype=torch.float64).map.A.dtype == torch.float64


@pytest.mark.parametrize("name", ALL)
def test_every_output_starts_at_unit_scale_or_below(name: str) -> None:
    """The spectral start: what enters with unit variance leaves with at most about that."""
    layer = layer_of(name, 256, 256)
    y = layer(randn(400, 256, dtype=torch.float32)) - layer.bias
    assert 0.1 < float(y.detach().std()) < 1.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL)
def test_the_dtype_of_the_layer_is_that_of_its_output(name: str, dtype: torch.dtype) -> None:
    layer = layer_of(name, dtype=dtype)
    x = randn(4, 32).to(dtype).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    exact = x.detach().double() @ layer.to_dense().detach().double().T + layer.bias.detach().double()
    tolerance = 60 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.detach().double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("d", [32, 64])
@pytest.mark.parametrize("name", ALL)
def test_autocast_gives_its_dtype(name: str, d: int) -> None:
    layer, x = layer_of(name, d, d), randn(4, d, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.1)
    y.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


def second_derivatives(layer: Linear, x: Tensor) -> list[Tensor]:
    """Of a penalty on the first ones, by x and every parameter."""
    inputs = [x.clone().requires_grad_(), *layer.parameters()]
    first = torch.autograd.grad(layer(inputs[0]).pow(3).sum(), inputs, create_graph=True)
    return list(torch.autograd.grad(sum(one.square().sum() for one in first), inputs))


@pytest.mark.parametrize("d", [16, 64])
@pytest.mark.parametrize("name", ALL)
def test_second_derivatives(name: str, d: int) -> None:
    """The fused kernels leave no graph of their gradients; float64 runs without them."""
    layer, x = layer_of(name, d, d), randn(3, d)
    found = second_derivatives(layer, x.float())
    for one, exact in zip(found, second_derivatives(copy.deepcopy(layer).double(), x), strict=True):
        torch.testing.assert_close(one.double() / exact.abs().max(), exact / exact.abs().max(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["btt", "kronecker"])
def test_transforms_of_functions(name: str) -> None:
    """torch.func: the gradients of every row by vmap are those row by row."""
    layer, x = layer_of(name, 64, 64), randn(3, 64, dtype=torch.float32)
    parameters = dict(layer.named_parameters())

    def loss(given: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(layer, given, (row,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for place, row in enumerate(x):
        wanted = torch.autograd.grad(loss(parameters, row), list(parameters.values()))
        for name_of, exact in zip(parameters, wanted, strict=True):
            torch.testing.assert_close(found[name_of][place], exact, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["btt", "btt-c3", "block_shuffle-b4"])
def test_compiled_without_a_break(name: str) -> None:
    layer = layer_of(name, 64, 96)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = randn(4, 64, dtype=torch.float32)
    torch.testing.assert_close(compiled(x), layer(x))
    compiled(x).square().sum().backward()
    found = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    layer(x).square().sum().backward()
    for compiled_grad, parameter in zip(found, layer.parameters(), strict=True):
        torch.testing.assert_close(compiled_grad, parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "d"), [("btt", 64), ("btt", 16), ("btt-c3", 64), ("kronecker", 64)])
def test_exported(name: str, d: int) -> None:
    if torch.__version__.startswith("2.11.") and (name, d) in (("btt", 16), ("btt-c3", 64)):
        pytest.skip("torch 2.11 cannot tell that rows are fewer than 4 rows, and refuses what 2.12 exports")
    layer = nn.Sequential(layer_of(name, d, d), nn.GELU())
    x = randn(4, d, dtype=torch.float32)
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: rows},))
    more = randn(9, d, dtype=torch.float32, seed=3)
    torch.testing.assert_close(program.module()(more), layer(more))


DATA_PARALLEL = """
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from structlin import Linear
rank = int(__import__("sys").argv[1])
dist.init_process_group("gloo", init_method="file://" + __import__("sys").argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
x = torch.randn(8, 32)
alone = torch.nn.Sequential(Linear(32, 64, "btt", bias=True), Linear(64, 32, "btt", factors=3))
alone(x).square().mean().backward()
wanted = [parameter.grad.clone() for parameter in alone.parameters()]
alone.zero_grad()
shared = DistributedDataParallel(alone)
shared(x[rank::2]).square().mean().backward()
for parameter, grad in zip(alone.parameters(), wanted):
    torch.testing.assert_close(parameter.grad, grad)
dist.destroy_process_group()
__import__("os")._exit(0)  # as structlin.training.rank.leave does, and for its reason
"""


def test_two_ranks_have_the_gradients_of_one(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", DATA_PARALLEL, str(rank), str(tmp_path / "meet")],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said


# --- from a matrix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(ALL) - {"btt-c3", "blast-b2-r4"}))
def test_the_nearest_layer_and_its_residual(name: str) -> None:
    structure, arguments = STRUCTURES[name]
    W = randn(48, 32)
    layer = Linear.from_dense(W, structure, bias=randn(48), **arguments)
    left = (W - layer.to_dense().detach()).norm() / W.norm()
    assert layer.residual == pytest.approx(float(left), abs=1e-9)
    assert (layer.residual < 1e-12) == (name == "dense")
    assert torch.equal(layer.bias, randn(48))
    again = Linear.from_dense(layer.to_dense().detach(), structure, **arguments)
    assert again.residual < 1e-7
    assert again.bias is None


def test_a_low_rank_projection_leaves_the_last_singular_values() -> None:
    W = randn(48, 32)
    values = torch.linalg.svdvals(W)
    layer = Linear.from_dense(W, "low_rank", rank=8)
    assert layer.residual == pytest.approx(float(values[8:].norm() / values.norm()), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_projection_keeps_the_dtype(dtype: torch.dtype) -> None:
    W = randn(48, 32).to(dtype)
    layer = Linear.from_dense(W, "monarch", blocks=4)
    assert layer.map.A.dtype == dtype
    assert layer.residual == pytest.approx(Linear.from_dense(W.double(), "monarch", blocks=4).residual, rel=1e-2)


def test_a_new_start_has_no_residual() -> None:
    layer = Linear.from_dense(randn(48, 32), "btt")
    layer.reset_parameters()
    assert layer.residual is None
    assert Linear.from_dense(torch.zeros(8, 8), "btt").residual == 0.0


# --- mistakes ---------------------------------------------------------------------------------------------------------

MADE_WRONG = [
    (("bt",), {}, "unknown structure 'bt'; did you mean 'btt'"),
    (("monarch",), {"blocs": 4}, "unknown argument blocs; did you mean 'blocks'"),
    (("monarch",), {"blocks": 400}, "layer of 32 x 64.*the nearest that works there: blocks="),
    (("btt",), {"weight_norm": "fix"}, "unknown weight_norm 'fix'; did you mean 'fixed'"),
]


@pytest.mark.parametrize(("structure", "options", "message"), MADE_WRONG)
def test_a_layer_that_cannot_be_made(structure: tuple[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Linear(32, 64, *structure, **options)


GIVEN_WRONG = [
    (torch.zeros(3, 31), "32 -> 64 takes 32 features in the last dimension, .* shape \\(3, 31\\) has 31"),
    (torch.tensor(1.0), "has none"),
    (torch.zeros(3, 32).half(), "the input is of torch.float16, but the layer of torch.float32"),
    (torch.zeros(3, 32, dtype=torch.long), "the input is of torch.int64"),
]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("x", "message"), GIVEN_WRONG)
def test_an_input_that_cannot_be_taken(name: str, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        layer_of(name)(x)
    assert "\n" not in str(error.value)


PROJECTED_WRONG = [
    (torch.zeros(4, 4, 4), {}, "takes a \\(d_out, d_in\\) matrix"),
    (torch.zeros(4, 4, dtype=torch.long), {}, "torch.int64"),
    (torch.zeros(4, 4, device="meta"), {}, "meta device and has no values"),
    (torch.zeros(4, 8), {"bias": torch.zeros(8)}, "bias is \\(8,\\), but the weight has 4 rows"),
    (torch.zeros(16, 16), {"structure": "btt", "factors": 3}, "3 factors has no closed form"),
]


@pytest.mark.parametrize(("weight", "options", "message"), PROJECTED_WRONG)
def test_a_matrix_that_cannot_be_projected(weight: Tensor, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Linear.from_dense(weight, **options)


# --- it learns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_regression_on_a_layer_of_its_structure_is_learned(name: str) -> None:
    """50 steps of Adam take most of the loss, and every factor has moved."""
    teacher = layer_of(name)
    layer = layer_of(name)
    torch.manual_seed(5)
    layer.reset_parameters()
    start = [parameter.detach().clone() for parameter in layer.parameters()]
    optimizer = torch.optim.Adam(param_groups(layer, 1e-2))
    losses = []
    for step in range(50):
        x = randn(128, 32, dtype=torch.float32, seed=step)
        loss = functional.mse_loss(layer(x), teacher(x).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert not any(torch.equal(old, new) for old, new in zip(start, layer.parameters(), strict=True))
