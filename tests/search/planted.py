"""Arms whose losses follow a planted law, for tests of what a search makes of them."""

import numpy as np

from structlin.search.measurements import Measured


def measured(
    log_a: np.ndarray,
    log_b: np.ndarray,
    alpha: np.ndarray,
    beta: np.ndarray,
    *,
    gamma: float = 1.0,
    floor: float = 1.8,
    flops: float = 1e17,
    luck: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    widths: int = 6,
) -> Measured:
    """Trunks of every arm to one compute, two decades of each."""
    generator = np.random.default_rng(seed)
    rows = []
    for arm in range(len(log_a)):
        for k, size in enumerate(np.sqrt(flops / 6 / 200) * 6.3 ** (np.arange(widths) / max(widths - 1, 1))):
            tokens = flops / 6 / size * np.geomspace(0.01, 1, 15)
            loss = law(log_a[arm], log_b[arm], alpha[arm], beta[arm], size, tokens, gamma, floor)
            loss *= np.exp(luck * generator.standard_normal() + noise * generator.standard_normal(15))
            rows += [(arm, arm * 100 + k, size, d, 6 * size * d, x) for d, x in zip(tokens, loss, strict=True)]
    table = np.array(rows)
    return Measured(table[:, 0].astype(int), table[:, 1].astype(int), *table[:, 2:].T)


def law(log_a, log_b, alpha, beta, size, tokens, gamma=1.0, floor=1.8):
    """E + (A / N^alpha + B / D^beta)^gamma."""
    return floor + (np.exp(log_a - alpha * np.log(size)) + np.exp(log_b - beta * np.log(tokens))) ** gamma


def best(log_a, log_b, alpha, beta, flops, gamma=1.0, floor=1.8) -> np.ndarray:
    """log of the lowest loss of each arm over sizes, by trying them."""
    sizes = np.geomspace(1e2, 1e15, 6001)
    return np.log(
        [law(*one, sizes, flops / 6 / sizes, gamma, floor).min() for one in zip(log_a, log_b, alpha, beta, strict=True)]
    )


def pooled(arms: int, spread: float = 0.1, wide: float = 0.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """log A, log B, alpha and beta of arms that differ in coefficients, and by ``wide`` in exponents."""
    draw = np.random.default_rng(seed).standard_normal((4, arms))
    alpha, beta = 0.35 * np.exp(wide * draw[2]), 0.37 * np.exp(wide * draw[3])
    # Exponents turn about the middle of what is measured, so that coefficients there stay what they are.
    log_a = np.log(482.0) + spread * draw[0] + (alpha - 0.35) * np.log(1e7)
    log_b = np.log(2085.0) + spread * draw[1] + (beta - 0.37) * np.log(1e9)
    return log_a, log_b, alpha, beta
