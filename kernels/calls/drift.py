"""Histograms of columns and distances of histograms, on the right device.

NaN is missing: it lies in no bin. -inf and inf lie in the outer bins. Counts are integers and distances are
settled by the reference (see `kernels.cpu.distances`), so the device shows in no result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import arrays, dispatch
from kernels.cpu import columns as cpu_columns
from kernels.cpu import distances as cpu_distances
from kernels.cpu import histogram as cpu_histogram
from kernels.cpu.columns import Rows
from kernels.cpu.distances import Distances
from kernels.cpu.histogram import Counts, Floats, Slots
from kernels.cpu.moments import Ranges, Sums, add_moments, check_sizes
from kernels.gpu import distances as gpu_distances
from kernels.gpu import histogram as gpu_histogram
from kernels.gpu.runtime import Buffer, Runtime

_ROWS = 4096
"""Of a table that are turned round at once."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a batch, (n,), what it is compared with, and what it is added to, of s slots."""

    x: Floats
    edges: Floats
    center: float
    scale: float
    counts: Counts
    missing: Counts
    sums: Sums
    ranges: Ranges


def accumulate(columns: Sequence[Column], rows: Rows, sizes: Rows) -> None:
    """Add histogram and moments of each column to its slots, in place; a device counts all of them at once.

    rows: (m,), those of all slots, one slot after the other; sizes: (s,), how many each slot has. For the
    rest, and for errors, see `kernels.cpu.columns.accumulate`.
    """
    device = dispatch.in_use()
    if device is None or not device.wants("histogram", len(rows) * len(columns)):
        dispatch.count("histogram")
        for c in columns:
            about = c.center, c.scale, c.counts, c.missing, c.sums, c.ranges
            cpu_columns.accumulate(c.x, rows, sizes, c.edges, *about)
        return
    check_sizes(sizes, len(rows), len(sizes))
    slot = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    taken = [c.x.take(rows) for c in columns]
    more, absent = histograms(taken, [c.edges for c in columns], slot, len(sizes))
    for place, c in enumerate(columns):
        np.add(c.counts, more[:, place, : len(c.edges) + 1], out=c.counts)
        np.add(c.missing, absent[:, place], out=c.missing)
        add_moments(taken[place], sizes, c.center, c.scale, c.sums, c.ranges)


def histograms(
    x: Floats | Sequence[Floats], edges: Sequence[Floats], slot: Slots, slots: int
) -> tuple[Counts, Counts]:
    """Histograms of many columns at once: see `kernels.cpu.histogram.histograms`."""
    cpu_histogram.check_columns(x, edges)
    cpu_histogram.check_slots(slot, slots)

    def on_device(runtime: Runtime) -> tuple[Counts, Counts]:
        parts: list[tuple[Counts, Counts]] = []

        def part(i: int, j: int) -> None:
            rows = [column[i:j] for column in x]
            parts.append(gpu_histogram.histograms(runtime, rows, edges, slot[i:j], slots))

        dispatch.in_chunks(len(slot), part)
        return _added(parts)

    return dispatch.run(
        "histogram",
        len(slot) * len(x),
        on_device,
        lambda: cpu_histogram.histograms(x, edges, slot, slots),
    )


def histogram(x: Any, edges: Any) -> Counts:
    """Counts per bin: bin i of k + 1 holds `edges[i - 1] <= value < edges[i]`; NaN is in none.

    x: (n,) and edges (k,) give (k + 1,). x: (n, d), a table of features by rows, and d arrays of edges give
    (d, B), B being the most bins that a column has. Edges ascend and are no NaN. Values are float32 or
    float64 (integers become float64), in this processor's memory or a GPU's. Raises TypeError or ValueError
    for what does not fit.
    """
    there = arrays.resident(x=x)
    x = arrays.array(x)
    ndim = len(arrays.shape_of(x))
    if not there and x.dtype.kind in "iub":
        x = x.astype(np.float64)
    x = arrays.taken(x, "x", arrays.FLOATS, max(1, ndim))
    if ndim > 2:
        raise ValueError(f"x: {ndim} dimensions; 1 or 2 expected")
    shape = arrays.shape_of(x)
    columns = [_checked_edges(e) for e in (edges if ndim == 2 else [edges])]
    if ndim == 2 and len(columns) != shape[1]:
        raise ValueError(f"{shape[1]} columns and the edges of {len(columns)}")

    d, most = len(columns), max((len(e) + 1 for e in columns), default=1)

    def on_device(runtime: Runtime) -> Counts:
        if there:
            return _of_buffer(runtime, runtime.borrow(x), columns)
        parts: list[Counts] = []

        def part(i: int, j: int) -> None:
            parts.append(_of_buffer(runtime, runtime.send(x[i:j]), columns))

        dispatch.in_chunks(len(x), part)
        total: Counts = sum(parts[1:], start=parts[0])
        return total

    def on_cpu() -> Counts:
        if x.ndim == 1:
            return cpu_histogram.histograms([x], columns, np.zeros(len(x), np.int32), 1)[0][:, 0]
        parts = [(np.zeros((1, d, most), np.int64), np.zeros((1, d), np.int64))]
        for i in range(0, len(x), _ROWS):  # turned round in the cache
            part = np.ascontiguousarray(x[i : i + _ROWS].T, np.float64)
            slot = np.zeros(part.shape[1], np.int32)
            parts.append(cpu_histogram.histograms(part, columns, slot, 1))
        counts, _ = _added(parts)
        return counts.reshape(counts.shape[1:])

    counts: Counts = dispatch.run("histogram", math.prod(shape), on_device, on_cpu, resident=there)
    return counts.reshape(-1) if ndim == 1 else counts


def _of_buffer(runtime: Runtime, x: Buffer, edges: list[Floats]) -> Counts:
    """(d, B) of x, (n,) or (n, d)."""
    if len(x.shape) == 1:
        counts, _ = gpu_histogram.histograms(runtime, x, edges)
        return counts.reshape(counts.shape[1:])
    return gpu_histogram.histograms_of_rows(runtime, x, edges)[0]


def _checked_edges(edges: Any) -> Floats:
    found = np.asarray(edges, np.float64)
    if found.ndim != 1 or not np.all(found[1:] >= found[:-1]) or np.isnan(found).any():
        raise ValueError("edges: (k,) ascending numbers expected")
    return found


def _added(parts: Sequence[tuple[Counts, Counts]]) -> tuple[Counts, Counts]:
    counts, missing = parts[0]
    for more, absent in parts[1:]:
        counts, missing = counts + more, missing + absent
    return counts, missing


def distances(p: Counts, q: Counts, sizes: Counts) -> Distances:
    """PSI, KS and JS of each pair of rows: see `kernels.cpu.distances.distances`."""
    cpu_distances.check_shapes(p, q, sizes)

    def on_device(runtime: Runtime) -> Distances:
        raw = np.empty((3, len(p)))

        def part(i: int, j: int) -> None:
            raw[:, i:j] = gpu_distances.distances(runtime, p[i:j], q[i:j], sizes[i:j])

        dispatch.in_chunks(len(p), part)
        return cpu_distances.settled(raw, p, q, sizes)

    return dispatch.run(
        "distances", p.size, on_device, lambda: cpu_distances.distances(p, q, sizes)
    )


def load() -> None:
    """Load what `distances` runs (a second, once a process): for services, before they have to answer."""
    pair = np.ones((1, 2), np.int64)
    cpu_distances.distances(pair, pair, np.array([2]))


def psi_rows(p: Counts, q: Counts, sizes: Counts) -> Floats:
    """Population stability index of each pair of rows, shape (m,): see `distances`."""
    return distances(p, q, sizes).psi


def ks_rows(p: Counts, q: Counts, sizes: Counts) -> Floats:
    """Kolmogorov-Smirnov distance of each pair of rows, shape (m,): see `distances`."""
    return distances(p, q, sizes).ks


def js_rows(p: Counts, q: Counts, sizes: Counts) -> Floats:
    """Jensen-Shannon distance of each pair of rows, shape (m,): see `distances`."""
    return distances(p, q, sizes).js
