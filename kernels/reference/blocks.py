"""References of the building blocks: plain Python, one element after the other, exact where it can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def add(a: Array, b: Array) -> Array:
    """a + b, (n,), in their dtype."""
    return np.array([x + y for x, y in zip(a, b, strict=True)], a.dtype)


def reduce(x: Array, operation: str) -> float | int:
    """Sum, min or max of x, (n,): floats rounded once, integers exact; NaN if there is one."""
    values = x.tolist()
    if x.dtype.kind == "f" and any(map(math.isnan, values)):
        return math.nan
    if operation == "sum":
        return math.fsum(values) if x.dtype.kind == "f" else sum(values)
    found: float | int = {"min": min, "max": max}[operation](values)
    return found


def scan(x: Array, *, exclusive: bool = False) -> Array:
    """Prefix sums of x, (n,): finite floats rounded once, integers wrapped around to their dtype."""
    total: Any = Fraction(0) if x.dtype.kind == "f" else 0
    out = []
    for value in x.tolist():
        before = total
        total += Fraction(value) if x.dtype.kind == "f" else value
        out.append(before if exclusive else total)
    if x.dtype.kind == "f":
        return np.array([float(value) for value in out], x.dtype)
    span = 1 << (8 * x.dtype.itemsize)
    return np.array([(v + span // 2) % span - span // 2 for v in out], x.dtype)


def segmented_scan(keys: Array, x: Array) -> Array:
    """Prefix sums of x, (n,), that begin anew where a key differs from the one before."""
    return np.concatenate([scan(x[a:b]) for _, a, b in runs(keys)] or [x])


def segmented_sums(keys: Array, x: Array) -> tuple[list[int], list[int], list[float | int]]:
    """Key, count and sum of each run of equal keys."""
    found = runs(keys)
    return (
        [key for key, _, _ in found],
        [b - a for _, a, b in found],
        [reduce(x[a:b], "sum") for _, a, b in found],
    )


def runs(keys: Array) -> list[tuple[int, int, int]]:
    """Runs of equal keys: the key, where it begins, and where it has ended."""
    found: list[tuple[int, int, int]] = []
    for place, key in enumerate(keys.tolist()):
        if found and found[-1][0] == key:
            found[-1] = key, found[-1][1], place + 1
        else:
            found.append((key, place, place + 1))
    return found


def spmv(offsets: Array, columns: Array, values: Array, x: Array) -> Array:
    """A x, (rows,), of a matrix in compressed rows: each row's sum is rounded once."""
    return np.array(
        [
            math.fsum(float(values[k]) * float(x[columns[k]]) for k in range(a, b))
            for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        ],
        values.dtype,
    )


def all_reduce(buffers: Sequence[Array]) -> Array:
    """The sum of all, (n,): floats rounded once."""
    stacked = np.array(buffers)
    return np.array([reduce(column, "sum") for column in stacked.T], stacked.dtype)


def windows(
    times: Array, size: int, values: Array
) -> tuple[list[int], list[int], list[float | int]]:
    """Start, count and sum of each tumbling window of `size` that has an event, in their order."""
    inside: dict[int, list[Any]] = {}
    for time, value in zip(times.tolist(), values.tolist(), strict=True):
        inside.setdefault(time // size * size, []).append(value)
    starts = sorted(inside)
    sums = [reduce(np.array(inside[start], values.dtype), "sum") for start in starts]
    return starts, [len(inside[start]) for start in starts], sums
