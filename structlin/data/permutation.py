"""Which window comes next? A pseudo-random permutation of 0..size-1, computed at any point, stored nowhere.

A Feistel network over pairs (left, right) of mixed radix: with a = ceil(sqrt(size)) and b = ceil(size / a) an
index is left + a * right, and each round adds a hash of one half to the other, modulo its radix. That
permutes a * b >= size indices; one that lands outside walks on until it is inside (cycle walking), which
happens to fewer than one in sqrt(size).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]

_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUND_KEYS = np.arange(1, _ROUNDS + 1, dtype=np.uint64) * _GOLDEN


def mix(values: UInt64) -> UInt64:
    """splitmix64's finaliser: a bijection of 64-bit words; every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keys(seed: int, stream: npt.NDArray[np.int64]) -> UInt64:
    """A 64-bit key for each number of a stream (here: epochs) under a seed, uint64 of the stream's shape."""
    seeded = mix(np.array([seed & (2**64 - 1)], dtype=np.uint64) + _GOLDEN)
    return mix(seeded + (stream.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def permute(indices: npt.NDArray[np.int64], size: int, key: UInt64) -> npt.NDArray[np.int64]:
    """Where each index goes under the permutation of its key; int64, all in 0..size-1.

    Args:
        indices: (n,), each in 0..size-1.
        size: number of permuted items, at least 1.
        key: (n,), the permutation each index is meant under.
    """
    values = _round_trip(indices.astype(np.uint64), size, key)
    walking = np.flatnonzero(values >= size)
    while walking.size:
        values[walking] = _round_trip(values[walking], size, key[walking])
        walking = walking[values[walking] >= size]
    return values.astype(np.int64)


def _round_trip(values: UInt64, size: int, key: UInt64) -> UInt64:
    """All rounds once: a bijection of 0..a*b-1."""
    # ceil(sqrt(size)) in whole numbers: a float would be off by one for some large sizes.
    a = np.uint64(math.isqrt(size - 1) + 1)
    b = np.uint64(-(-size // int(a)))
    right, left = np.divmod(values, a)
    # A round changes one half by a function of the other, which stays: it can be undone, whatever the hash.
    for number, round_key in enumerate(_ROUND_KEYS):
        if number % 2 == 0:
            left = (left + mix(right + (key ^ round_key)) % a) % a
        else:
            right = (right + mix(left + (key ^ round_key)) % b) % b
    return left + a * right
