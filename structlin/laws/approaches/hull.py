"""Which evaluations form the frontier? The lower convex hull of (log C, log L), and all points near it.

``members`` serves one table; ``hulls`` serves a batch of tables that share their computes (bootstrap replicates), all
at once and equal to ``members`` replicate by replicate. The smoothed variant takes, in a proportional window around
each compute, the evaluation furthest below the trend.

Shapes: n rows, b replicates.
"""

from __future__ import annotations

import numpy as np

from structlin.laws.minimum.objective import Array

# Computes are compared to this many digits: different sums reach the same compute.
_DIGITS = 9
# A hull starts at the lowest compute, whatever is there. Of models that are first evaluated at nearly one compute
# (tokens are whole numbers of batches) that is one by chance, seldom the best: corners from which the loss falls faster
# than this power of compute are none of a frontier.
_STEEPEST = 2.0


def lower_hull(x: Array, y: Array) -> np.ndarray:
    """Positions of the lower convex hull of points (n,), by growing x, cut where it stops falling.

    Ties in x keep the lowest point; x is compared to nine digits, since different sums reach the same compute. The
    result starts where the hull falls no faster than x^-_STEEPEST, mostly at the lowest x, and ends at the lowest y.
    """
    x = np.round(x, _DIGITS)
    order = np.lexsort((y, x))
    hull: list[int] = []
    last = -np.inf
    xs, ys = x.tolist(), y.tolist()
    for i in order.tolist():
        if xs[i] == last:
            continue
        last = xs[i]
        while len(hull) > 1:
            j, k = hull[-1], hull[-2]
            # Slopes are compared crosswise, without a division. A corner on the line between its neighbours goes too.
            if (xs[j] - xs[k]) * (ys[i] - ys[k]) > (ys[j] - ys[k]) * (xs[i] - xs[k]):
                break
            hull.pop()
        hull.append(i)
    # Beyond the lowest loss more compute would buy a higher one: no frontier.
    bottom = int(np.argmin(y[hull]))
    found = np.array(hull[: bottom + 1])
    # Slopes of a convex chain only flatten: what is too steep is its beginning.
    flat = np.append(-np.diff(y[found]) <= _STEEPEST * np.diff(x[found]), True)
    return np.asarray(found[flat])


def near_hull(x: Array, y: Array, tolerance: float) -> np.ndarray:
    """Positions of points at most ``tolerance`` above the lower hull, hull included, by growing x."""
    hull = lower_hull(x, y)
    height = np.interp(np.round(x, _DIGITS), np.round(x[hull], _DIGITS), y[hull], right=-np.inf)
    return _by_compute(x, np.flatnonzero(y - height <= tolerance + 1e-12))


def in_window(x: Array, y: Array, half_width: float) -> np.ndarray:
    """The point furthest below the trend in each window of log10 C, windows half overlapping; positions."""
    hull = lower_hull(x, y)
    slope = np.polyfit(x[hull], y[hull], 1)[0] if len(hull) > 1 else 0.0
    # Loss falls with compute: without the slope taken off, the lowest of a window would nearly always be its last.
    flat = y - slope * x
    width = half_width * np.log(10.0)
    chosen = set()
    # One half width a step: what lies at the edge of one window is in the middle of the next.
    for centre in np.arange(x.min(), x[hull[-1]] + width, width):
        inside = np.flatnonzero((np.abs(x - centre) <= width) & (x <= x[hull[-1]]))
        if len(inside):
            chosen.add(int(inside[np.argmin(flat[inside])]))
    return _by_compute(x, np.array(sorted(chosen), dtype=int))


def _by_compute(x: Array, positions: np.ndarray) -> np.ndarray:
    return positions[np.argsort(x[positions], kind="stable")]


def members(
    flops: Array,
    loss: Array,
    *,
    kind: str = "hull",
    tolerance: float = 0.002,
    window: float = 0.25,
    offset: float = 0.0,
) -> np.ndarray:
    """Rows of the frontier by growing compute, L0 = ``offset`` (below every loss) taken off the loss."""
    x, y = np.log(flops), np.log(np.maximum(loss - offset, 1e-12))
    return near_hull(x, y, tolerance) if kind == "hull" else in_window(x, y, window)


def hulls(flops: Array, loss: Array, *, tolerance: float, offset: float = 0.0) -> np.ndarray:
    """``members(kind="hull")`` of every row of ``loss`` (b, n) over shared computes (n,): a mask (b, n)."""
    distinct, group = np.unique(np.round(np.log(flops), _DIGITS), return_inverse=True)
    x = np.asarray(distinct, dtype=np.float64)
    y = np.log(np.maximum(loss - offset, 1e-12))
    order = np.argsort(group, kind="stable")
    lowest = np.minimum.reduceat(y[:, order], np.searchsorted(group[order], np.arange(len(x))), axis=1)
    height = _heights(x, lowest)
    return np.asarray(y - height[:, group] <= tolerance + 1e-12)


def _heights(x: Array, y: Array) -> Array:
    """Height of the lower hull of (x, y[b]) at every x, y (b, n): (b, n), minus infinity right of its lowest point."""
    on = _corners(x, y)
    b, n = y.shape
    place = np.broadcast_to(np.arange(n), (b, n))
    # Running extremes of the corners' places find the corner on either side of every x for all replicates at once:
    # a search would be one call for each.
    before = np.maximum.accumulate(np.where(on, place, -1), axis=1)
    after = np.minimum.accumulate(np.where(on, place, n)[:, ::-1], axis=1)[:, ::-1]
    # Right of the last corner there is no second one; the answer is set below, and the place only has to exist.
    inside = after < n
    after = np.where(inside, after, before)
    before = np.where(before < 0, after, before)
    row = np.arange(b)[:, None]
    low, high = y[row, before], y[row, after]
    # At a corner both sides are the corner itself: 1 in place of the length keeps 0 / 0 away.
    share = (x - x[before]) / np.where(after > before, x[after] - x[before], 1.0)
    return np.where(inside, low + (high - low) * share, -np.inf)


def _corners(x: Array, y: Array) -> np.ndarray:
    """Mask (b, n) of the corners of the lower hulls of (x, y[b]), cut at the lowest point: Andrew's chain, batched.

    x grows strictly. Each replicate has its own stack; a step pops only in replicates whose last corner is no corner.
    """
    b, n = y.shape
    stack, depth = np.zeros((b, n), dtype=np.intp), np.zeros(b, dtype=np.intp)
    for i in range(n):
        open_ = np.flatnonzero(depth > 1)
        while len(open_):
            j, k = stack[open_, depth[open_] - 1], stack[open_, depth[open_] - 2]
            base, here = y[open_, k], y[open_, i]
            # The same test as in ``lower_hull``, multiplied out crosswise; the two must agree on points in a line.
            drop = (x[j] - x[k]) * (here - base) <= (y[open_, j] - base) * (x[i] - x[k])
            open_ = open_[drop]
            depth[open_] -= 1
            # Only where a corner has just gone may the one before it have to go too.
            open_ = open_[depth[open_] > 1]
        stack[np.arange(b), depth] = i
        depth += 1
    on = np.zeros((b, n), dtype=bool)
    # What lies above the depth of a stack is left over from corners that were popped.
    row, level = np.nonzero(np.arange(n) < depth[:, None])
    on[row, stack[row, level]] = True
    bottom = np.argmin(np.where(on, y, np.inf), axis=1)
    on &= np.arange(n) <= bottom[:, None]
    later = np.minimum.accumulate(np.where(on, np.arange(n), n)[:, ::-1], axis=1)[:, ::-1]
    following = np.minimum(np.append(later[:, 1:], np.full((b, 1), n), axis=1), n - 1)
    fall, step = y - np.take_along_axis(y, following, axis=1), x[following] - x
    # The last corner has none that follows it; a fall of nothing over nothing is not steep.
    last = np.arange(n) == bottom[:, None]
    return np.asarray(on & (last | (fall <= _STEEPEST * step)))
