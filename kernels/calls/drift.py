"""Histograms of columns and distances of histograms, on the right device.

Counts are integers and distances are settled by the reference (see `kernels.cpu.distances`), so the device
shows in no result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels import dispatch
from kernels.cpu import distances as cpu_distances
from kernels.cpu import histogram as cpu_histogram
from kernels.cpu.distances import Distances
from kernels.cpu.histogram import Counts, Floats, Slots
from kernels.gpu import distances as gpu_distances
from kernels.gpu import histogram as gpu_histogram


def accumulate(x: Floats, edges: Floats, slot: Slots, counts: Counts, missing: Counts) -> None:
    """Add a column's histogram to `counts`, in place: see `kernels.cpu.histogram.accumulate`."""
    device = dispatch.in_use()
    if device is None or not device.wants("histogram", len(x)):
        dispatch.count("histogram")
        cpu_histogram.accumulate(x, edges, slot, counts, missing)
        return
    cpu_histogram.check_shapes("edges", len(edges) + 1, len(x), slot, counts, missing)
    more, absent = histograms([x], [edges], slot, len(missing))
    counts += more[:, 0]
    missing += absent[:, 0]


def histograms(
    x: Floats | Sequence[Floats], edges: Sequence[Floats], slot: Slots, slots: int
) -> tuple[Counts, Counts]:
    """Histograms of many columns at once: see `kernels.cpu.histogram.histograms`."""
    cpu_histogram.check_columns(x, edges)
    cpu_histogram.check_slots(slot, slots)
    return dispatch.run(
        "histogram",
        len(slot) * len(x),
        lambda runtime: gpu_histogram.histograms(runtime, x, edges, slot, slots),
        lambda: cpu_histogram.histograms(x, edges, slot, slots),
    )


def distances(p: Counts, q: Counts, sizes: Counts) -> Distances:
    """PSI, KS and JS of each pair of rows: see `kernels.cpu.distances.distances`."""
    cpu_distances.check_shapes(p, q, sizes)
    return dispatch.run(
        "distances",
        p.size,
        lambda runtime: cpu_distances.settled(
            gpu_distances.distances(runtime, p, q, sizes), p, q, sizes
        ),
        lambda: cpu_distances.distances(p, q, sizes),
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
