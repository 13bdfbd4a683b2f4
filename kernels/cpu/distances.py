"""Distances of many pairs of histograms at once, compiled, and equal to `kernels.reference` after rounding.

What guarantees the equality: a row is computed with the reference's operations in the reference's order;
only logarithms (a last bit per library) and the sum (compensated here, exact there) may differ, and by less
than a known bound. A result that lies further than that from where rounding to DECIMALS tips over rounds to
the same number, and the few others are settled by the reference itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from kernels import reference
from kernels.reference import DECIMALS

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

PSI_TOLERANCE = 1e-13
"""Largest difference of a PSI from the reference's.

Each of the two logarithms of a term, up to ln(1e12), errs by less than 4 units in the last place (1.5e-14),
and they are weighted with |p - q|, which adds up to 2 at most; the compensated sum adds 1e-15.
"""
JS_TOLERANCE = 1e-14
"""Largest difference of a Jensen-Shannon divergence, in bits: its terms add up to 2 at most."""
_STATISTICS = reference.psi, reference.ks, reference.js


@dataclass(frozen=True, slots=True)
class Distances:
    """Of m pairs of histograms, each (m,), rounded to DECIMALS: see `kernels.reference`."""

    psi: Floats
    ks: Floats
    js: Floats


def distances(p: Counts, q: Counts, sizes: Counts) -> Distances:
    """PSI, Kolmogorov-Smirnov and Jensen-Shannon distance of each pair of rows, in one pass.

    p, q: (m, B) counts; row i has `sizes[i]` <= B bins, what lies beyond them is not looked at. Raises
    ValueError if the shapes do not fit.
    """
    check_shapes(p, q, sizes)
    raw = np.empty((3, len(p)))
    _rows(p, q, sizes, raw)
    return settled(raw, p, q, sizes)


def check_shapes(p: Counts, q: Counts, sizes: Counts) -> None:
    """Raises ValueError for histograms that `distances` cannot compare."""
    if p.shape != q.shape or p.ndim != 2 or sizes.shape != (len(p),):
        raise ValueError(
            f"histograms of the shapes {p.shape} and {q.shape}, and sizes of {sizes.shape}"
        )
    if len(p) and not 0 < sizes.min() <= sizes.max() <= p.shape[1]:
        raise ValueError(f"sizes from {sizes.min()} to {sizes.max()} of {p.shape[1]} bins")


def settled(raw: Floats, p: Counts, q: Counts, sizes: Counts) -> Distances:
    """What the reference, rounded, would say, given `raw` (3, m) within the tolerances; rounds `raw`."""
    doubtful = np.empty(raw.shape, np.bool_)
    if _round(raw, doubtful):
        for statistic, row in np.argwhere(doubtful).tolist():
            size = sizes[row]
            exact = _STATISTICS[statistic](p[row, :size], q[row, :size])
            raw[statistic, row] = round(exact, DECIMALS)
    return Distances(*raw)


@compiled
def _round(raw: Any, doubtful: Any) -> int:
    """Round in place; how many results are so close to a tie that the reference may round otherwise.

    The root moves by d / (x + x') when the divergence moves by d, which is at most d / x. Equal shares
    leave no doubt: every logarithm is that of 1, in any library.
    """
    found = 0
    for statistic in range(3):
        for row in range(raw.shape[1]):
            value = raw[statistic, row]
            tolerance = 0.0
            if statistic == 0:
                tolerance = PSI_TOLERANCE
            elif statistic == 2 and value > 0:
                tolerance = JS_TOLERANCE / value
            scaled = value * 10.0**DECIMALS
            gap = abs(scaled - math.floor(scaled) - 0.5)
            doubt = gap <= tolerance * 10.0**DECIMALS + scaled * 1e-15
            doubtful[statistic, row] = doubt
            found += doubt
            raw[statistic, row] = np.rint(scaled) / 10.0**DECIMALS
    return found


@compiled
def _rows(p: Any, q: Any, sizes: Any, out: Any) -> None:
    for row in range(len(p)):
        size = sizes[row]
        a, b = p[row, :size], q[row, :size]
        n = m = bins = 0
        for i in range(size):
            n += a[i]
            m += b[i]
            bins += a[i] + b[i] > 0
        if n == 0 or m == 0:
            out[0, row] = out[1, row] = out[2, row] = 0.0
        else:
            out[0, row] = _psi(a, b, float(n), float(m), bins)
            out[1, row] = _ks(a, b, float(n), float(m))
            out[2, row] = _js(a, b, float(n), float(m))


@compiled
def _psi(a: Any, b: Any, n: Any, m: Any, bins: Any) -> Any:
    w = bins / 2 / (min(n, m) + bins / 2)
    total = rest = 0.0
    for i in range(len(a)):
        if a[i] + b[i] > 0:
            p = (1 - w) * a[i] / n + w / bins
            q = (1 - w) * b[i] / m + w / bins
            total, rest = _add(total, rest, (p - q) * math.log(p / q))
    return max(0.0, total + rest)


@compiled
def _ks(a: Any, b: Any, n: Any, m: Any) -> Any:
    below_a = below_b = 0
    widest = 0.0
    for i in range(len(a)):
        below_a += a[i]
        below_b += b[i]
        widest = max(widest, abs(below_a / n - below_b / m))
    return widest


@compiled
def _js(a: Any, b: Any, n: Any, m: Any) -> Any:
    """0 for equal shares alone: whatever else is lost in rounding is left to the reference."""
    total = rest = 0.0
    equal = True
    for i in range(len(a)):
        p, q = a[i] / n, b[i] / m
        middle = (p + q) / 2
        equal &= p == q
        if p > 0:
            total, rest = _add(total, rest, p * math.log2(p / middle))
        if q > 0:
            total, rest = _add(total, rest, q * math.log2(q / middle))
    return 0.0 if equal else math.sqrt(min(1.0, max(1e-300, (total + rest) / 2)))


@compiled
def _add(total: Any, rest: Any, term: Any) -> Any:
    """Neumaier's sum: `rest` collects what each addition rounds away."""
    after = total + term
    if abs(total) >= abs(term):
        return after, rest + ((total - after) + term)
    return after, rest + ((term - after) + total)
