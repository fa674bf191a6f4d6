"""At which share of its rank does a layer compute in which step, and what does all of it cost? Both of the Science.

In every step a share is drawn from the menu, all of them alike likely, and every linear of two factors computes with
that leading part of its ranks: so what is trained are the models that are evaluated. Under nested.draw=layer every
linear draws its own. A draw is a hash of seed and step, and of the layer then. A layer's MACs go with its rank.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np

from structlin.anatomy.draws import drawn
from structlin.anatomy.kinds import anatomy
from structlin.anatomy.shapes import LinearShape
from structlin.config.nested import is_by_layer, menu_of
from structlin.config.science import Science

_ALL = ""
"""The name under which all layers draw as one."""
_BLOCK = 4096
"""Steps that are added up together, so that the cost of long runs needs little memory."""


@lru_cache(maxsize=1024)
def nested_linears(science: Science) -> tuple[LinearShape, ...]:
    """The linears whose ranks are nested, in forward order; none where no menu is."""
    if science.nested == "none":
        return ()
    return tuple(shape for shape in anatomy(science).linears if not shape.plan.dense)


def shares_at(science: Science, step: int) -> dict[str, Fraction]:
    """Linear -> the share of its rank that the update after ``step`` computes with."""
    menu, by_layer = menu_of(science.nested), is_by_layer(science.nested)
    at = np.array([step], dtype=np.uint64)
    places = {name: int(_places(science.seed, name, at, len(menu))[0]) for name in _drawers(science)}
    return {shape.name: menu[places[shape.name if by_layer else _ALL]] for shape in nested_linears(science)}


def _drawers(science: Science) -> tuple[str, ...]:
    """What draws a share: every linear, or all of them as one."""
    return tuple(shape.name for shape in nested_linears(science)) if is_by_layer(science.nested) else (_ALL,)


def idle_macs_until(science: Science, step: int) -> int:
    """Forward MACs per token that the first ``step`` updates leave out of those of the whole rank, over all updates."""
    menu, shapes = menu_of(science.nested), nested_linears(science)
    left_out = [_left_out(shape, menu) for shape in shapes]
    if not is_by_layer(science.nested):
        left_out = [tuple(map(sum, zip(*left_out, strict=True)))]
    idle = _idle(science.seed, tuple(zip(_drawers(science), left_out, strict=True)), len(menu))
    blocks, rest = divmod(step, _BLOCK)
    return idle.of_blocks(blocks) + idle.between(blocks * _BLOCK, blocks * _BLOCK + rest)


def most_idle_macs(science: Science) -> int:
    """Forward MACs per token that an update leaves out at most: where all layers draw the least share."""
    return sum(_left_out(shape, menu_of(science.nested))[0] for shape in nested_linears(science))


def _left_out(shape: LinearShape, menu: tuple[Fraction, ...]) -> tuple[int, ...]:
    """Of every share of the menu, the MACs of a layer per token that it does not take."""
    macs = shape.uses * shape.plan.macs
    return tuple(int(macs * (1 - share)) for share in menu)


class _Idle:
    """What the steps of a run leave out, added up as far as was ever asked."""

    def __init__(self, seed: int, costs: tuple[tuple[str, tuple[int, ...]], ...], shares: int) -> None:
        self._seed, self._costs, self._shares = seed, costs, shares
        self._until = [0]

    def of_blocks(self, count: int) -> int:
        """Of the first so many blocks of steps."""
        while len(self._until) <= count:
            first = (len(self._until) - 1) * _BLOCK
            self._until.append(self._until[-1] + self.between(first, first + _BLOCK))
        return self._until[count]

    def between(self, first: int, last: int) -> int:
        """Of the steps from ``first`` up to ``last``."""
        steps = np.arange(first, last, dtype=np.uint64)
        return sum(
            int(np.asarray(left_out)[_places(self._seed, name, steps, self._shares)].sum())
            for name, left_out in self._costs
        )


@lru_cache(maxsize=256)
def _idle(seed: int, costs: tuple[tuple[str, tuple[int, ...]], ...], shares: int) -> _Idle:
    return _Idle(seed, costs, shares)


def _places(seed: int, name: str, steps: np.ndarray, shares: int) -> np.ndarray:
    """Places in the menu, one a step."""
    return (drawn("nested", seed, name, steps) * shares).astype(np.int64)
