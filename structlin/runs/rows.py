"""How do runs become rows? Gathered one by one; what they have in common is repeated only at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from structlin.anatomy.compute import flops_until
from structlin.config.identity import science_from
from structlin.runs import measures
from structlin.runs.columns import Floats, Ints, Record, Shared
from structlin.runs.row_config import config_of


class Rows:
    """Gathers runs and repeats what they have in common only at the end.

    Hundreds of thousands of rows have a few values a column: each column is made of the values of groups of runs. Texts
    become categories, which take a byte or two a row, and whole numbers of the config the smallest type that holds
    them.
    """

    def __init__(
        self, speed: Callable[[Shared], float | None], decoding: Callable[[Shared], Mapping[str, float]]
    ) -> None:
        """``speed``: tokens a second of what runs share, None where it was not measured; ``decoding``: its columns."""
        self._speed, self._decoding = speed, decoding
        self._groups: dict[int, int] = {}
        """Number of each group by the identity of what it shares."""
        self._shared: list[Shared] = []
        self._group_of: list[int] = []
        self._ids: list[str] = []
        self._seeds: list[int] = []
        self._steps: list[Ints] = []
        self._losses: list[Floats] = []
        self._more: list[dict[str, list[float | None]]] = []

    def add(self, record: Record) -> None:
        """Add a run; one that was never evaluated has no rows."""
        if not len(record.steps):
            return
        group = self._groups.setdefault(id(record.shared), len(self._shared))
        if group == len(self._shared):
            self._shared.append(record.shared)
        self._group_of.append(group)
        self._ids.append(record.run_id)
        self._seeds.append(record.seed)
        self._steps.append(record.steps)
        self._losses.append(record.losses)
        self._more.append(json.loads(record.more) if record.more != "{}" else {})

    def table(self) -> pd.DataFrame:
        """A row per evaluation, sorted by run and step."""
        if not self._steps:
            return pd.DataFrame(columns=["run_id", "step", "val_loss"])
        order = sorted(range(len(self._ids)), key=self._ids.__getitem__)
        of_run = np.repeat(np.asarray(order), [len(self._steps[run]) for run in order])
        of_group = np.asarray(self._group_of)[of_run]
        own: dict[str, list[Any]] = {"run_id": self._ids, "seed": self._seeds, "config.seed": self._seeds}
        columns = {
            name: _Column(_series(name, own[name]), of_run) if name in own else _Column(_series(name, values), of_group)
            for name, values in self._gathered().items()
        }
        parts = [_texts(columns), *_numbers(columns, len(of_run)), self._of_evaluations(columns, order, of_group)]
        return pd.concat([part for part in parts if part.shape[1]], axis=1)

    def _gathered(self) -> dict[str, list[Any]]:
        """Every column with a value a group, NaN where a group has none."""
        columns: dict[str, list[Any]] = {}
        for number, shared in enumerate(self._shared):
            items = list(shared.columns.items())
            speed = self._speed(shared)
            decoding = self._decoding(shared)
            if shared.columns["rank_share"] != 1:
                # Measured of the whole rank.
                decoding = dict.fromkeys(decoding, float("nan"))
            speeds = {"tokens_per_second": float("nan") if speed is None else speed, **decoding}
            items[shared.num_own : shared.num_own] = speeds.items()
            for name, value in items:
                if name not in columns:
                    columns[name] = [float("nan")] * len(self._shared)
                columns[name][number] = value
        return columns

    def _of_evaluations(self, columns: Mapping[str, _Column], order: Sequence[int], of_group: Ints) -> pd.DataFrame:
        """What differs from row to row."""
        own = {
            name: np.asarray([getattr(shared, name) for shared in self._shared])[of_group]
            for name in ("batch_tokens", "warmup_steps", "guide_steps", "recomputed_macs", "inherited_flops")
        }
        costs = {
            name: columns[name].values.to_numpy(dtype=float)[of_group]
            for name in ("macs_per_token", "logged_macs_per_token", "train_tokens")
        }
        steps = np.concatenate([self._steps[run] for run in order])
        tokens = steps * own["batch_tokens"]
        beyond = np.concatenate([self._beyond(run) for run in order])
        return pd.DataFrame(
            {
                "step": steps,
                "tokens": tokens,
                "in_warmup": steps <= own["warmup_steps"],
                "val_loss": np.concatenate([self._losses[run] for run in order]),
                **self._besides(order),
                "in_guide": steps < own["guide_steps"],
                "training_flops": 6.0 * costs["macs_per_token"] * tokens + beyond,
                "inherited_flops": own["inherited_flops"].astype(float),
                "paper_flops": costs["macs_per_token"] * tokens + beyond / 6.0,
                "epochs": tokens / costs["train_tokens"],
                "logged_flops": costs["logged_macs_per_token"] * tokens + beyond / 6.0,
                "recomputed_flops": 2.0 * own["recomputed_macs"] * tokens,
            }
        )

    def _besides(self, order: Sequence[int]) -> dict[str, Floats]:
        """Columns of errors and further losses, NaN where a run has none; none where no run has any."""
        names = [name for name in measures.MORE if any(name in more for more in self._more)]
        return {
            name: np.concatenate(
                [np.array(self._more[run].get(name) or [None] * len(self._steps[run]), dtype=float) for run in order]
            )
            for name in names
        }

    def _beyond(self, run: int) -> Floats:
        """Training FLOPs of a run's rows beyond 6 N D; most runs have none."""
        shared, steps = self._shared[self._group_of[run]], self._steps[run]
        if shared.is_even:
            return np.zeros(len(steps))
        config = config_of(shared.columns) | {"seed": self._seeds[run]}
        science = science_from(config)
        a_step = 6 * int(shared.columns["macs_per_token"]) * shared.batch_tokens
        return np.array([flops_until(science, int(step)) - a_step * int(step) for step in steps], float)


@dataclass(frozen=True)
class _Column:
    """Values of runs or of groups of runs, and which of them each row has."""

    values: pd.Series[Any]
    of_row: Ints

    @property
    def is_number(self) -> bool:
        """Whether it is a number, and no yes or no."""
        return pd.api.types.is_numeric_dtype(self.values.dtype) and self.values.dtype != bool


def _series(name: str, values: list[Any]) -> pd.Series[Any]:
    found = pd.Series(values)
    if pd.api.types.is_string_dtype(found.dtype):
        return found.astype("category")
    if found.dtype == "int64" and name.startswith("config."):
        return pd.to_numeric(found, downcast="integer")
    return found


def _texts(columns: Mapping[str, _Column]) -> pd.DataFrame:
    """Everything that is no number, a row per evaluation."""
    found = {name: one.values.take(one.of_row).array for name, one in columns.items() if not one.is_number}
    return pd.DataFrame(found, copy=False)


def _numbers(columns: Mapping[str, _Column], num_rows: int) -> Iterator[pd.DataFrame]:
    """The numbers, a row per evaluation: one block a type."""
    kinds: dict[Any, dict[str, _Column]] = {}
    for name, one in columns.items():
        if one.is_number:
            kinds.setdefault(one.values.dtype, {})[name] = one
    for dtype, found in kinds.items():
        block = np.empty((len(found), num_rows), dtype=dtype)
        for row, one in zip(block, found.values(), strict=True):
            # Under mode="raise" numpy fills a buffer first.
            np.take(one.values.to_numpy(), one.of_row, out=row, mode="clip")
        yield pd.DataFrame(block.T, columns=list(found), copy=False)
