"""The search for the lowest law: losses of any size, faces of its own, and descents counted together."""

import numpy as np
import pytest

from structlin.laws.minimum import anchored, solver
from structlin.laws.minimum.anchored import Axes
from structlin.laws.minimum.objective import Objective
from structlin.laws.minimum.solver import Solution

SIZE = np.repeat(np.geomspace(1e6, 1e9, 6), 6)
TOKENS = np.tile(np.geomspace(1e8, 1e11, 6), 6)


def losses(E: float, A: float, B: float) -> np.ndarray:
    return E + A * SIZE**-0.35 + B * TOKENS**-0.3


@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e3])
def test_a_law_is_found_in_any_unit_of_loss(unit: float) -> None:
    """A loss of 1e-4 (a squared error) has a law like one of two nats."""
    loss = unit * losses(1.7, 300.0, 800.0)
    found = anchored.search(Axes.of(SIZE, TOKENS), loss, Objective(), np.ones(len(loss)))
    best = found.theta[np.argmin(found.value)]
    assert best[0] == pytest.approx(1.7 * unit, rel=1e-3)
    assert best[3:5] == pytest.approx([0.35, 0.3], rel=1e-3)


def test_the_face_without_a_floor_is_searched_whenever_a_descent_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[float | None] = []
    starts, solve = anchored.starts, anchored.solve

    def counted(axes, loss, objective, weights, at=None, **options):
        pinned.append(at)
        return starts(axes, loss, objective, weights, at, **options)

    def one_at_zero(*args, **options):
        found = solve(*args, **options)
        found.theta[0, 0] = 0.0
        found.value[0] = found.value.max() + 1
        return found

    monkeypatch.setattr(anchored, "starts", counted)
    axes, loss = Axes.of(SIZE, TOKENS), losses(1.7, 300.0, 800.0)
    anchored.search(axes, loss, Objective(), np.ones(len(loss)))
    assert pinned == [None]
    monkeypatch.setattr(anchored, "solve", one_at_zero)
    anchored.search(axes, loss, Objective(), np.ones(len(loss)))
    assert pinned[1:3] == [None, 0.0]


def test_descents_together_took_the_iterations_of_the_slowest() -> None:
    one, other = (Solution(np.ones((2, 3)), np.ones(2), np.ones(2), np.ones(2, dtype=bool), n) for n in (4, 9))
    for first, second in ((one, other), (other, one)):
        both = anchored._together(first, second)
        assert (both.iterations, both.theta.shape) == (9, (4, 3))


def test_a_step_through_a_singular_matrix_is_the_shortest_that_fits() -> None:
    """Two terms of one variable (D = k N) may cancel to the last digit; other problems keep their step."""
    matrix = np.stack([np.where(np.eye(2) > 0, 1.0, -(1.0 + 1e-13)), np.diag([2.0, 4.0])])
    gradient = np.array([[1.0, -1.0], [2.0, 4.0]])
    step = solver._step(gradient, matrix, np.ones((2, 2), bool))
    assert step[0] == pytest.approx([-0.5, 0.5])
    assert step[1] == pytest.approx([-1.0, -1.0])
