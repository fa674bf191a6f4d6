"""Normal, Student and chi-squared numbers that intervals need, without importing a statistics library.

scipy.special would do, but its import takes longer than a fit. Tested against it to 1e-9.
"""

from __future__ import annotations

from functools import lru_cache
from math import atan, cos, erfc, exp, pi, sin, sqrt
from statistics import NormalDist


def normal_quantile(probability: float) -> float:
    """x with P(Z <= x) = probability."""
    return NormalDist().inv_cdf(probability)


def student_cdf(t: float, degrees: int) -> float:
    """P(T <= t) for whole degrees of freedom >= 1 (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = atan(t / sqrt(degrees))
    total, term = 0.0, 1.0
    if degrees % 2:
        term = cos(theta)
        for k in range(1, (degrees - 1) // 2 + 1):
            total += term
            term *= cos(theta) ** 2 * 2 * k / (2 * k + 1)
        inside = 2 / pi * (theta + sin(theta) * total)
    else:
        for k in range(1, degrees // 2 + 1):
            total += term
            term *= cos(theta) ** 2 * (2 * k - 1) / (2 * k)
        inside = sin(theta) * total
    return 0.5 + 0.5 * inside


@lru_cache(maxsize=256)
def student_quantile(degrees: int, probability: float) -> float:
    """t with P(T <= t) = probability in (0.5, 1), by bisection; the normal one above 2,000 degrees (1e-3 of it)."""
    if degrees > 2000:
        return normal_quantile(probability)
    low, high = 0.0, 1.0
    while student_cdf(high, degrees) < probability:
        low, high = high, 2 * high
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if student_cdf(middle, degrees) < probability else (low, middle)
    return 0.5 * (low + high)


def chi2_tail(value: float, degrees: int) -> float:
    """P(chi2 > value) for whole degrees of freedom >= 1: a finite sum (Abramowitz and Stegun 26.4.4 and 26.4.5)."""
    half = value / 2
    if degrees % 2:
        total, term = erfc(sqrt(half)), sqrt(half) * exp(-half) * 2 / sqrt(pi)
        start = 3
    else:
        total, term = exp(-half), exp(-half) * half
        start = 4
    for k in range(start, degrees + 1, 2):
        total += term
        term *= 2 * half / k
    return min(total, 1.0)


def f_tail(value: float, upper: int, lower: int) -> float:
    """P(F > value) for 1 or an even number of degrees of freedom above (Abramowitz and Stegun 26.6.4)."""
    if value <= 0:
        return 1.0
    if upper == 1:
        return 2.0 * (1.0 - student_cdf(sqrt(value), lower))
    if upper % 2:
        raise ValueError(f"{upper} degrees of freedom above: 1 or an even number are known")
    share = lower / (lower + upper * value)
    total = term = 1.0
    for k in range(1, upper // 2):
        term *= (lower + 2 * (k - 1)) / (2 * k) * (1.0 - share)
        total += term
    return float(min(share ** (lower / 2.0) * total, 1.0))
