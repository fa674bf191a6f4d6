"""What do the laws say about each other? The results of the checks, one field a check, under its name in laws.json."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

Entry = dict[str, Any]
"""Numbers by name, as they stand in laws.json."""


@dataclass(frozen=True)
class Checked:
    """What each check found; None where it was not made. The fields stand in the order of laws.json."""

    joint: Entry | None = None
    """Nested laws over all structures (checks/joint.py); empty with fewer than two."""
    resources: dict[str, Entry] | None = None
    """Multipliers by variant and resource (checks/resources.py)."""
    backtest: Entry | None = None
    """``variants``: variant -> one entry a cut, and ``rank`` (checks/backtest.py)."""
    agreement: dict[str, list[Entry]] | None = None
    """Rows of what the approaches say, by variant (checks/agreement.py)."""
    sensitivity: dict[str, list[Entry]] | None = None
    """Rows of the same fit under other choices, by variant, and of the ``multipliers`` (checks/sensitivity.py)."""
    rates: dict[str, dict[str, Entry]] | None = None
    """Optimal learning rate and batch by variant, where a sweep varies them (checks/rates.py)."""
    mixtures: Entry | None = None
    """A joint law over active and total size of each family of mixtures (checks/mixtures.py)."""
    design: dict[str, Entry] | None = None
    """The pilot of each variant (checks/next_runs.py)."""

    def record(self) -> dict[str, Any]:
        """The checks that were made, by name."""
        return {one.name: found for one in fields(self) if (found := getattr(self, one.name)) is not None}
