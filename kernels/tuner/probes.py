"""From which size on a device is faster than the processor, found out by trying.

A probe gives, for a size, a call of the device (with the copies there and back) and the processor's same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.cpu import blocks as cpu_blocks
from kernels.cpu import distances as cpu_distances
from kernels.cpu import histogram as cpu_histogram
from kernels.gpu import distances, elementwise, histogram, reduction, scan, segments, sparse
from kernels.gpu.runtime import Runtime
from kernels.tuner import model_probes

Work = Callable[[], object]
Probe = Callable[[Runtime, int], tuple[Work, Work]]
SIZES = tuple(1 << power for power in range(14, 23, 2))
"""Values of the batches that are tried."""


def faster_from(runtime: Runtime, kernel: str) -> float | None:
    """The first size at which the device beats the processor, in values; inf: none; None: no probe."""
    probe = PROBES.get(kernel)
    if probe is None:
        return None
    return float(next((n for n in SIZES if is_faster(probe, runtime, n)), float("inf")))


def is_faster(probe: Probe, runtime: Runtime, size: int) -> bool:
    """Whether the device was, just now."""
    device, processor = probe(runtime, size)
    return _seconds(device) < _seconds(processor)


def _seconds(work: Work) -> float:
    """The shortest of three runs, after one that compiles and warms up."""
    work()
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _histogram(runtime: Runtime, values: int) -> tuple[Work, Work]:
    x = list(np.linspace(-1.0, 1.0, values).reshape(8, -1))
    edges = [np.linspace(-0.9, 0.9, 19)] * len(x)
    slot = np.zeros(len(x[0]), np.int32)
    return (
        lambda: histogram.histograms(runtime, x, edges, slot, 1),
        lambda: cpu_histogram.histograms(x, edges, slot, 1),
    )


def _distances(runtime: Runtime, values: int) -> tuple[Work, Work]:
    p = np.tile(np.arange(1, 22), (-(-values // 21), 1))
    arguments = p, p[:, ::-1].copy(), np.full(len(p), 21)
    return (
        lambda: distances.distances(runtime, *arguments),
        lambda: cpu_distances.distances(*arguments),
    )


def _add(runtime: Runtime, values: int) -> tuple[Work, Work]:
    x = _floats(values)
    return lambda: elementwise.add(runtime, runtime.send(x), runtime.send(x)).get(), lambda: x + x


def _reduce(runtime: Runtime, values: int) -> tuple[Work, Work]:
    x = _floats(values)
    return (
        lambda: reduction.reduce(runtime, runtime.send(x)),
        lambda: cpu_blocks.reduce(x, "sum"),
    )


def _scan(runtime: Runtime, values: int) -> tuple[Work, Work]:
    x = _floats(values)
    return lambda: scan.scan(runtime, runtime.send(x)).get(), lambda: cpu_blocks.scan(x)


def _segments(runtime: Runtime, values: int) -> tuple[Work, Work]:
    x, keys = _floats(values), np.arange(values) // 50
    return (
        lambda: segments.segmented_sums(runtime, runtime.send(keys), runtime.send(x)),
        lambda: cpu_blocks.segmented_sums(keys, x),
    )


def _spmv(runtime: Runtime, values: int) -> tuple[Work, Work]:
    offsets = np.arange(0, values + 1, 16)
    columns = (np.arange(offsets[-1]) * 7919 % len(offsets)).astype(np.int32)
    csr: tuple[Any, ...] = offsets, columns, _floats(len(columns)), _floats(len(offsets))
    return (
        lambda: sparse.spmv(runtime, *map(runtime.send, csr)).get(),
        lambda: cpu_blocks.spmv(*csr),
    )


def _floats(n: int) -> Any:
    return np.linspace(-1, 1, n, dtype=np.float32)


PROBES: dict[str, Probe] = {
    "histogram": _histogram,
    "distances": _distances,
    "add": _add,
    "reduce": _reduce,
    "scan": _scan,
    "segments": _segments,
    "spmv": _spmv,
    **model_probes.PROBES,
}
