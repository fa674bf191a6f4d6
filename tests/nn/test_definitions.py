"""The families against their published definitions, written plainly: blocks, shuffles, trains, Kronecker products."""

import itertools

import pytest
import torch
from torch import Tensor

from structlin.nn.linear import Linear, LinearOptions, make_linear
from structlin.structure import plan_linear, theta_of
from structlin.structure.families import output_order_of
from structlin.structure.served import plan_served

CLOSE = {"rtol": 0.0, "atol": 1e-12}


def layer_of(name: str, d_in: int, d_out: int, **arguments: object) -> Linear:
    """A float64 layer of standard normal factors, scaled so that outputs are about 1."""
    theta = theta_of(name, arguments=arguments)
    plan = plan_served(theta, d_in, d_out, output_order=output_order_of(name))
    layer, generator = make_linear(plan, LinearOptions(64)).double(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for factor in plan.factors:
            weight = getattr(layer, factor.name)
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / factor.fan_in**0.5)
    return layer


def rows(d_in: int) -> Tensor:
    return torch.randn(5, d_in, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def factors_of(layer: Linear) -> list[Tensor]:
    return [factor.detach() for factor in layer.equation_factors()]


def block_diagonal(blocks: list[Tensor]) -> Tensor:
    return torch.block_diag(*blocks)


def shuffle(h: Tensor, blocks: int) -> Tensor:
    """(T, d) viewed as (blocks, d/blocks), transposed and flattened."""
    return h.view(h.shape[0], blocks, -1).transpose(1, 2).reshape(h.shape[0], -1)


SHAPES = [(32, 32), (32, 64), (64, 32), (48, 96)]


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize("b", [2, 4])
def test_block_shuffle_is_two_block_diagonals_and_two_shuffles(N: int, M: int, b: int) -> None:
    layer = layer_of("block_shuffle", N, M, blocks=b)
    K, s = min(N, M), layer.sizes
    A_fdrga, B_fergb = factors_of(layer)
    assert (s.g, s.a, s.f, s.e, s.r) == (b, N // b, b, M // b, K // b**2)
    # A block of the first gives (f, r) from its a; a block of the second gives e from what it gets, (r, g).
    V = block_diagonal([A_fdrga[:, 0, :, g].reshape(K // b, N // b) for g in range(b)])
    U = block_diagonal([B_fergb[f, :, :, :, 0].reshape(M // b, K // b) for f in range(b)])
    x = rows(N)
    wanted = shuffle(shuffle(x @ V.T, b) @ U.T, b)
    torch.testing.assert_close(layer(x), wanted, **CLOSE)
    # Monarch is the same without the last shuffle.
    monarch = layer_of("monarch", N, M, blocks=b)
    monarch.load_state_dict(layer.state_dict())
    torch.testing.assert_close(monarch(x), shuffle(x @ V.T, b) @ U.T, **CLOSE)


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize(("B", "R"), [(2, 8), (4, 16), (4, "d/2")])
def test_block_dense_is_dense_after_block_diagonal(N: int, M: int, B: int, R: int | str) -> None:
    layer = layer_of("block_dense", N, M, blocks=B, rank=R)
    A_fdrga, B_fergb = factors_of(layer)
    V = block_diagonal([A_fdrga[0, 0, :, g] for g in range(B)])
    U = B_fergb[0, :, :, :, 0].transpose(1, 2).reshape(M, -1)
    rank = R if isinstance(R, int) else min(N, M) // 2
    assert (V.shape, U.shape) == ((rank, N), (M, rank))
    x = rows(N)
    torch.testing.assert_close(layer(x), x @ V.T @ U.T, **CLOSE)


@pytest.mark.parametrize(("N", "M"), SHAPES)
def test_low_rank_is_u_after_v(N: int, M: int) -> None:
    layer = layer_of("low_rank", N, M, rank="d/4")
    A_fdrga, B_fergb = factors_of(layer)
    V, U = A_fdrga.reshape(-1, N), B_fergb.reshape(M, -1)
    assert V.shape[0] == min(N, M) // 4
    x = rows(N)
    torch.testing.assert_close(layer(x), x @ V.T @ U.T, **CLOSE)


@pytest.mark.parametrize("factors", [2, 3, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 3)])
def test_a_block_tensor_train_contracts_one_feature_index_a_core(
    factors: int, rank: int, shape: tuple[int, int]
) -> None:
    """Core t takes x_t and the rank before and gives y_t and the rank after, for all y before and all x to come."""
    # Of two factors a block has rank 2 at most at the smallest widths, and more is refused: three a core hold rank 3.
    least = 3 if factors == 2 else 2
    N, M = shape[0] * least**factors, shape[1] * least**factors
    layer = layer_of("btt", N, M, rank=rank, factors=factors)
    s = layer.sizes
    numbers = list(range(1, factors + 1))
    m = [s["x" + "".join(map(str, numbers[:t]))] for t in numbers]
    n = [s["y" + "".join(map(str, numbers[t - 1 :]))] for t in numbers]
    r = [1, *[rank] * (factors - 1), 1]
    # Stored as y_1..y_t, rank after, rank before, x_c..x_t, all other indices being of size 1.
    cores = [
        factor.reshape(*n[:t], r[t], r[t - 1], *reversed(m[t - 1 :]))
        for t, factor in enumerate(factors_of(layer), start=1)
    ]
    x = rows(N)
    z = x.reshape(-1, *reversed(m))
    # z: T, x_c..x_t; y_1..y_(t-1); rank. One explicit sum over x_t and the rank, for every choice of all the others.
    wanted = torch.zeros(x.shape[0], *n, dtype=torch.float64)
    for y in itertools.product(*(range(size) for size in n)):
        for xs in itertools.product(*(range(size) for size in reversed(m))):
            product = torch.eye(1, dtype=torch.float64)
            for t, core in enumerate(cores, start=1):
                product = core[(*y[:t], slice(None), slice(None), *xs[: factors - t + 1])] @ product
            wanted[(slice(None), *y)] += z[(slice(None), *xs)] * product.squeeze()
    torch.testing.assert_close(layer(x), wanted.reshape(-1, M), **CLOSE)


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize(("b", "R"), [(2, 4), (4, 8), (4, "d/4")])
def test_blast_is_blocks_u_diag_s_v(N: int, M: int, b: int, R: int | str) -> None:
    layer = layer_of("blast", N, M, blocks=b, rank=R)
    rank = R if isinstance(R, int) else min(N, M) // 4
    V_rjq, S_irj, U_ipr = factors_of(layer)
    V_rjq = V_rjq.reshape(rank, b, N // b)
    S_irj = S_irj.reshape(b, rank, b)
    U_ipr = U_ipr.reshape(b, M // b, rank)
    W = torch.cat(
        [torch.cat([U_ipr[i] @ torch.diag(S_irj[i, :, j]) @ V_rjq[:, j] for j in range(b)], dim=1) for i in range(b)]
    )
    x = rows(N)
    torch.testing.assert_close(layer(x), x @ W.T, **CLOSE)


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize("n", [2, 4])
def test_a_kronecker_sum_is_the_sum_of_n_kronecker_products(N: int, M: int, n: int) -> None:
    layer = layer_of("kronecker_sum", N, M, terms=n)
    A_fdrga, B_fergb = factors_of(layer)
    A, B = A_fdrga[0, :, :, 0], B_fergb[0, :, :, 0]  # (M/n, n terms, N/n) and (n, n terms, n)
    assert (A.shape, B.shape) == ((M // n, n, N // n), (n, n, n))
    W = sum(torch.kron(B[:, term].contiguous(), A[:, term].contiguous()) for term in range(n))
    x = rows(N)
    torch.testing.assert_close(layer(x), x @ W.T, **CLOSE)


@pytest.mark.parametrize("cores", [2, 3, 4])
@pytest.mark.parametrize("bond", [1, 2, 4])
def test_a_matrix_product_operator_is_the_product_of_its_cores(cores: int, bond: int) -> None:
    """W[y_1..y_c, x_1..x_c] = G_1[y_1, x_1] ... G_c[y_c, x_c], matrices over the bonds, as the elements say."""
    N, M = 2**cores, 3**cores
    layer = layer_of("mpo", N, M, cores=cores, bond=bond)
    bonds = [1, *[bond] * (cores - 1), 1]
    # Stored as y_t, bond after, bond before, x_t; the outermost axis of input and output is that of the last core.
    G = [factor.reshape(3, bonds[t + 1], bonds[t], 2) for t, factor in enumerate(factors_of(layer))]
    W = torch.zeros(*[3] * cores, *[2] * cores, dtype=torch.float64)
    for y in itertools.product(range(3), repeat=cores):
        for xs in itertools.product(range(2), repeat=cores):
            product = torch.eye(1, dtype=torch.float64)
            for t in range(cores):
                product = G[t][y[t], :, :, xs[t]] @ product
            W[(*reversed(y), *reversed(xs))] = product.squeeze()
    torch.testing.assert_close(layer.to_dense().detach(), W.reshape(M, N), **CLOSE)


def test_the_order_of_the_output_renames_features_and_nothing_else() -> None:
    layer = layer_of("btt", 24, 36)
    other = make_linear(plan_linear(layer.sizes, output_order="efd"), LinearOptions(64)).double()
    other.load_state_dict(layer.state_dict())
    s, x = layer.sizes, rows(24)
    renamed = layer(x).reshape(-1, s.f, s.e, s.d).transpose(1, 2).reshape(-1, 36)
    assert torch.equal(other(x), renamed)
    assert not torch.equal(other(x), layer(x))
