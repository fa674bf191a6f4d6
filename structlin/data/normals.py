"""Where do fresh random numbers come from? Standard normals as a pure function of (seed, stream, position).

Number i of a stream is computed from i alone: splitmix64 of a counter gives two uniforms, Box and Muller's formula
makes two normals of them. So any batch can be had without those before it, in any order, on any machine, and no
release of numpy can change the stream.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from structlin.data.permutation import keys, mix

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53


def normals(seed: int, stream: int, first: int, count: int) -> npt.NDArray[np.float32]:
    """Numbers first..first+count-1 of a stream, float32 (count,), independent N(0, 1)."""
    # Normals come in pairs: where a stretch begins or ends within a pair, the other half is cut off below.
    pair = np.arange(first // 2, (first + count + 1) // 2, dtype=np.uint64)
    key = keys(seed, np.array([stream], dtype=np.int64))
    two = np.uint64(2)
    # Two words of the counter a pair, shared with no other. The unit on top makes it (0, 1]: log 0 is infinite.
    radius = np.sqrt(-2.0 * np.log(_uniform(mix(key + (two * pair + np.uint64(1)) * _GOLDEN)) + _UNIT))
    angle = 2 * np.pi * _uniform(mix(key + (two * pair + two) * _GOLDEN))
    numbers = np.empty(2 * pair.size, dtype=np.float32)
    numbers[0::2] = radius * np.cos(angle)
    numbers[1::2] = radius * np.sin(angle)
    return numbers[first % 2 : first % 2 + count]


def _uniform(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """The upper 53 bits as a number in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * _UNIT
