"""What does the student of the regression learn? A wide random ReLU network, in numpy.

    x ~ N(0, I_8);  h_0 = x;  h_k = sqrt(2) relu(W_k h_{k-1}), k = 1..depth;  y = (w h_depth - mean) / std

with W ~ N(0, 1/fan_in), no biases, depth 6 and width 1024 [arXiv 2410.02117, MLP regression]. Mean and std are
estimated once from ``STANDARD_SAMPLES`` samples of a stream of their own and stand in the manifest.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from structlin.data.normals import normals

INPUT_FEATURES = 8
WIDTH = 1024
DEPTH = 6
STANDARD_SAMPLES = 1 << 16

STREAMS = {"train": 0, "validation": 1, "standard": 2}
"""Streams of the inputs; those of the weights follow."""

_ROWS = 2_048
"""Samples a product: large enough for BLAS, small enough for its cache."""

Floats = npt.NDArray[np.float32]


def inputs(seed: int, split: str, first: int, count: int) -> Floats:
    """Samples first..first+count-1 of a stream, float32 (count, 8)."""
    numbers = normals(seed, STREAMS[split], first * INPUT_FEATURES, count * INPUT_FEATURES)
    return numbers.reshape(count, INPUT_FEATURES)


class Teacher:
    """The network of one data seed, not yet standardised."""

    def __init__(self, seed: int, width: int = WIDTH, depth: int = DEPTH) -> None:
        self.seed = seed
        features = [INPUT_FEATURES, *[width] * depth, 1]
        self.weights = [self._weight(layer, *shape) for layer, shape in enumerate(itertools.pairwise(features))]

    def _weight(self, layer: int, fan_in: int, fan_out: int) -> Floats:
        numbers = normals(self.seed, len(STREAMS) + layer, 0, fan_in * fan_out).reshape(fan_in, fan_out)
        return numbers * np.float32(1 / math.sqrt(fan_in))

    def outputs(self, split: str, first: int, count: int) -> Floats:
        """What the network says about samples of a stream, float32 (count,)."""
        parts = [
            self(inputs(self.seed, split, start, min(_ROWS, first + count - start)))
            for start in range(first, first + count, _ROWS)
        ]
        return np.concatenate(parts)

    def __call__(self, x: Floats) -> Floats:
        """x (n, 8) -> (n,)."""
        *hidden, last = self.weights
        h = x
        for weight in hidden:
            h = h @ weight
            np.maximum(h, 0, out=h)
            h *= np.float32(math.sqrt(2))
        return (h @ last)[:, 0]

    def standard(self) -> tuple[float, float]:
        """Mean and standard deviation of the outputs over a fixed sample, in double precision."""
        sample = self.outputs("standard", 0, STANDARD_SAMPLES).astype(np.float64)
        return float(sample.mean()), float(sample.std())
