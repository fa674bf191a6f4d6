"""What does a layer draw in a step? A number in [0, 1) that follows from purpose, seed, layer and step alone.

So a bill counts what a run executes, a run goes on as it would have, and all ranks of a run draw alike.
"""

from __future__ import annotations

import hashlib

import numpy as np


def drawn(purpose: str, seed: int, name: str, steps: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), one a step (uint64): SplitMix64 (Steele et al. 2014) from a start of the others."""
    start = int.from_bytes(hashlib.sha256(f"{purpose} {seed} {name}".encode()).digest()[:8], "big")
    with np.errstate(over="ignore"):
        z = np.uint64(start) + (steps + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53
