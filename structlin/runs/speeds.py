"""How fast does this machine train a run? Probes are made once per machine and shape and kept in the run store."""

from __future__ import annotations

from pathlib import Path

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


class Throughputs:
    """Measured training tokens a second, by machine and shape."""

    def __init__(self, runs: Path, machine: str = "") -> None:
        self.path = runs / "throughput.json"
        self._name = machine
        self._known: dict[str, dict[str, float]] | None = None

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
        known = self._known = self._read()
        known.setdefault(self._name or machine_key(placement), {})[shape_key(science)] = tokens_per_second
        write_json(self.path, known)

    def _machine(self, key: str) -> dict[str, float]:
        if self._known is None:
            self._known = self._read()
        found = self._known.get(key, {})
        return found if isinstance(found, dict) else {}

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            known = read_json(self.path)
        except UserError:  # absent or cut short: measured again
            return {}
        return known if isinstance(known, dict) else {}
