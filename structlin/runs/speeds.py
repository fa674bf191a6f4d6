"""How fast does this machine train a run, or decode with it? Measured once per machine and shape, kept in the store.

runs/throughput.json    training tokens a second, by machine and shape: by a probe before runs are trained
runs/decoding.json      milliseconds a token where 1 and 16 texts are read side by side: by ``structlin speeds``
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.host.files import read_json, write_json
from structlin.runs.machine import machine_key


def shape_key(science: Science) -> str:
    """What the speed of a run depends on besides the machine: its shapes and its arithmetic."""
    model, optim = science.model, science.optim
    return (
        f"{science.variant} d{model.d_model} l{model.num_layers} s{model.width_step} x{model.ffn_expansion} "
        f"t{model.context} b{optim.batch_tokens} {model.dtype} {science.data.tokenizer} "
        f"{model.weight_norm} {'+'.join(model.structured)}"
    )


DECODED_ROWS = (1, 16)
"""Texts read side by side for which the time of a token is kept."""
DECODE_COLUMNS = tuple(f"decode_ms_{rows}" for rows in DECODED_ROWS)
"""Of the table: milliseconds a token."""


class _Measurements:
    """Values by machine and shape in a file of a store."""

    def __init__(self, path: Path, machine: str = "") -> None:
        self.path = path
        self._name = machine
        self._known: dict[str, dict[str, Any]] | None = None

    def _keep(self, science: Science, placement: Placement, value: Any) -> None:
        known = self._known = self._read()
        known.setdefault(self._name or machine_key(placement), {})[shape_key(science)] = value
        write_json(self.path, known)

    def _machine(self, key: str) -> dict[str, Any]:
        if self._known is None:
            self._known = self._read()
        found = self._known.get(key, {})
        return found if isinstance(found, dict) else {}

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            known = read_json(self.path)
        except UserError:  # absent or cut short: measured again
            return {}
        return known if isinstance(known, dict) else {}


class Decodings(_Measurements):
    """Measured milliseconds a token of decoding, by machine and shape."""

    def __init__(self, runs: Path, machine: str = "") -> None:
        super().__init__(runs / "decoding.json", machine)

    def has(self, science: Science, placement: Placement) -> bool:
        """Whether a shape was measured on this machine."""
        return shape_key(science) in self._machine(self._name or machine_key(placement))

    def of_machine(self, machine: str, science: Science) -> dict[str, float]:
        """Milliseconds a token by column of the table, NaN where not measured."""
        return self.of_shape(machine, shape_key(science))

    def of_shape(self, machine: str, shape: str) -> dict[str, float]:
        """The same by a ``shape_key``."""
        found = self._machine(machine).get(shape)
        known = found if isinstance(found, dict) else {}
        return {f"decode_ms_{rows}": float(known.get(str(rows), math.nan)) for rows in DECODED_ROWS}

    def keep(self, science: Science, placement: Placement, milliseconds: dict[int, float]) -> None:
        """Add one measurement, by the number of texts."""
        self._keep(science, placement, {str(rows): value for rows, value in milliseconds.items()})


class Throughputs(_Measurements):
    """Measured training tokens a second, by machine and shape."""

    def __init__(self, runs: Path, machine: str = "") -> None:
        super().__init__(runs / "throughput.json", machine)

    def find(self, science: Science, placement: Placement) -> float | None:
        """Tokens a second of a run on this machine (or the one named), or None where it was never measured."""
        return self._machine(self._name or machine_key(placement)).get(shape_key(science))

    def of_machine(self, machine: str, science: Science) -> float | None:
        """The same for a machine by the name that provenance records."""
        return self.of_shape(machine, shape_key(science))

    def of_shape(self, machine: str, shape: str) -> float | None:
        """The same by a ``shape_key``."""
        return self._machine(machine).get(shape)

    def keep(self, science: Science, placement: Placement, tokens_per_second: float) -> None:
        """Add one measurement."""
        self._keep(science, placement, tokens_per_second)
