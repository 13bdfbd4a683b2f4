"""The kernels on an NVIDIA GPU, through PyCUDA, which is asked for only here.

The sources in `kernels/cuda` are compiled when the device is opened (nvcc must be on the PATH). They were
compiled for sm_90 and run, unmodified, on a processor that played the GPU's threads; no GPU has run them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from kernels import counting as cpu
from kernels import scores
from kernels.counting import Counts, Floats, Slots
from kernels.dispatch import DeviceFailed

Choice = Literal["auto", "cpu", "cuda"]

THREADS = 256
BLOCKS = 1024
"""Of one column at most: enough to fill a large device, few enough to add up quickly."""
SHARED_BYTES = 48 * 1024
"""Shared memory that every device gives a block without being asked."""
COPIES = 8
"""Histograms per block at most: one for each of its warps."""
SIZES = tuple(1 << power for power in range(14, 23, 2))
"""Batches that are tried to find out from where on the device is faster."""


class NoGpu(RuntimeError):
    """There is no GPU to use; the message says what is missing."""


def chosen(choice: Choice) -> Gpu | None:
    """The device for a setting: None for 'cpu', and for 'auto' where none can be used.

    Raises NoGpu for 'cuda' without one. Opening a device takes seconds: its kernels are compiled, and it is
    measured against the processor.
    """
    if choice == "cpu":
        return None
    try:
        gpu = Gpu()
    except NoGpu:
        if choice == "cuda":
            raise
        return None
    gpu.measure()
    return gpu


class Gpu:
    """The first CUDA device: a `kernels.dispatch.Device`. Raises NoGpu if it cannot be opened."""

    def __init__(self) -> None:
        try:
            import pycuda.driver as cuda  # type: ignore[import-not-found,unused-ignore]
            from pycuda.compiler import SourceModule  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise NoGpu(f"DRIFTLOG_DEVICE: PyCUDA is not installed ({error})") from error
        self._cuda: Any = cuda
        self._lock = threading.Lock()
        self.least_values = self.least_rows = float("inf")
        try:
            cuda.init()
            device = cuda.Device(0)
            self.name = f"GPU {device.name()}"
            self._context = device.retain_primary_context()
            with self._current():
                self._histogram = self._compiled(SourceModule, "histogram.cu", "histogram")
                self._distances = self._compiled(SourceModule, "scores.cu", "distances")
        except (cuda.Error, OSError, DeviceFailed) as error:
            raise NoGpu(f"DRIFTLOG_DEVICE: no CUDA device can be used: {error}") from error

    def measure(self) -> None:
        """Set `least_values` and `least_rows` to the first sizes at which it beats the processor."""
        self.least_values = next(filter(self._counts_faster, SIZES), float("inf"))
        self.least_rows = next(filter(self._compares_faster, SIZES), float("inf"))

    def histograms(
        self, x: Sequence[Floats], edges: Sequence[Floats], slot: Slots, slots: int
    ) -> tuple[Counts, Counts]:
        """As `kernels.counting.histograms`; raises DeviceFailed."""
        width = max((len(e) + 1 for e in edges), default=1)
        levels = max(1, (width - 1).bit_length())
        bins = width + 1
        room = (SHARED_BYTES - (8 << levels)) // (4 * bins)
        if room < 1:
            raise DeviceFailed(f"{width} bins do not fit into shared memory")
        here = min(slots, room)
        copies = min(COPIES, room // max(1, here))
        counts = np.zeros((slots, len(edges), bins), np.int64)
        if counts.size == 0 or len(slot) == 0:
            return counts[:, :, :width], counts[:, :, width]
        table = np.full((len(edges), 1 << levels), np.nan)
        for row, e in zip(table, edges, strict=True):
            row[: len(e)] = e
        n = len(slot)
        blocks = min(BLOCKS, -(-n // (THREADS * 4)))
        with self._current():
            on_device = [
                self._sent(array)
                for array in (np.array(x, np.float64), table, np.asarray(slot, np.int32), counts)
            ]
            for first in range(0, slots, here):
                self._histogram(
                    *on_device[:3],
                    np.int64(n),
                    *map(np.int32, (levels, bins, first, min(here, slots - first), copies)),
                    on_device[3],
                    block=(THREADS, 1, 1),
                    grid=(blocks, len(edges)),
                    shared=(8 << levels) + 4 * copies * here * bins,
                )
            self._cuda.memcpy_dtoh(counts, on_device[3])
        return counts[:, :, :width], counts[:, :, width]

    def distances(self, p: Counts, q: Counts, sizes: Counts) -> Floats:
        """(3, m): PSI, KS and JS before rounding; raises DeviceFailed."""
        out = np.empty((3, len(p)))
        if len(p) == 0:
            return out
        with self._current():
            on_device = [self._sent(a) for a in (p, q, sizes)]
            result = self._cuda.mem_alloc(out.nbytes)
            self._distances(
                *on_device,
                np.int32(len(p)),
                np.int32(p.shape[1]),
                result,
                block=(THREADS, 1, 1),
                grid=(-(-len(p) // THREADS), 1),
            )
            self._cuda.memcpy_dtoh(out, result)
        return out

    @contextmanager
    def _current(self) -> Iterator[None]:
        """The device's context, for one thread at a time."""
        with self._lock:
            self._context.push()
            try:
                yield
            except self._cuda.Error as error:
                raise DeviceFailed(str(error)) from error
            finally:
                self._cuda.Context.pop()

    def _compiled(self, source_module: Any, file: str, function: str) -> Any:
        source = (files("kernels") / "cuda" / file).read_text()
        module = source_module(source, options=["--fmad=false"], no_extern_c=True)
        return module.get_function(function)

    def _sent(self, array: Any) -> Any:
        return self._cuda.to_device(np.ascontiguousarray(array))

    def _counts_faster(self, values: int) -> bool:
        columns = 8
        x = np.linspace(-1.0, 1.0, values).reshape(columns, -1)
        edges = [np.linspace(-0.9, 0.9, 19)] * columns
        slot = np.zeros(x.shape[1], np.int32)
        arguments = list(x), edges, slot, 1
        return _seconds(lambda: self.histograms(*arguments)) < _seconds(
            lambda: cpu.histograms(*arguments)
        )

    def _compares_faster(self, rows: int) -> bool:
        p = np.tile(np.arange(1, 22), (rows, 1))
        arguments = p, p[:, ::-1].copy(), np.full(rows, 21)
        return _seconds(lambda: self.distances(*arguments)) < _seconds(
            lambda: scores.distances(*arguments)
        )


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of three runs, after one that compiles and warms up."""
    work()
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)
