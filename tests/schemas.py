"""How was a Science stored by older versions of this project? Its mapping without the fields that came later."""

import copy
import hashlib
import json
from typing import Any

from structlin.config.identity import to_mapping
from structlin.config.science import SCHEMA, Science

_WAS: dict[int, dict[str, Any]] = {5: {"guide": "none", "start": "none"}}
"""Schema -> the groups that it brought in place of a text, and that text."""
_NEW: dict[int, tuple[str, ...]] = {
    5: (
        *(f"model.{name}" for name in ("init", "init_std", "positions", "tied", "kv_heads", "attention_width")),
        *(f"model.{name}" for name in ("qk_norm", "branch_scale", "logit_scale", "input_rate")),
        "optim.decayed",
        "augment",
    ),
    4: ("moe.router_start", "model.biases", "model.zero_start", "model.weight_norm_experts"),
    3: ("guide", "start", "nested", "structure.output_order", "structure.contraction", "structure.ranks"),
    2: ("moe", "structure.head_layout", "model.num_heads"),
}
"""Schema -> the fields that it brought."""


def stored_by(schema: int, science: Science) -> dict[str, Any]:
    """The mapping that a version of this schema wrote; the fields it did not know are at their historical values."""
    stored = copy.deepcopy(to_mapping(science))
    for version in range(SCHEMA, schema, -1):
        stored |= _WAS.get(version, {})
        for path in _NEW.get(version, ()):
            *groups, name = path.split(".")
            group = stored
            for step in groups:
                group = group[step]
            group.pop(name, None)  # not every model has it
    return {**stored, "schema": schema}


def id_of(stored: dict[str, Any]) -> str:
    """The id that its version gave it: 16 digits of the hash of its canonical JSON."""
    return hashlib.sha256(json.dumps(stored, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
