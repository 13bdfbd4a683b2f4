"""What `kernels.topk` searches: rows in the processor's memory (a device keeps a copy), or on a GPU."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kernels import arrays, dispatch
from kernels.cpu import retrieval as cpu
from kernels.cpu.retrieval import Doubles, Rows, Singles
from kernels.gpu import topk as gpu
from kernels.gpu.runtime import Buffer, Runtime

FLOATS = "float32", "float64", "float16"
LONGEST = 2.0**40
"""Rows longer than this, or shorter than its inverse, are scaled by a power of two: no cosine notices."""


class Index(Protocol):
    """Rows to search."""

    def __len__(self) -> int: ...

    @property
    def dimensions(self) -> int:
        """Columns of a row."""

    def candidates(self, units: Singles, k: int) -> tuple[Rows, Singles]:
        """Of each query of length 1 the k rows with the largest float32 cosine, and these; k <= n."""

    def rescored(self, queries: Singles, inverse: Doubles, rows: Rows) -> Doubles:
        """The cosine in float64 of each query (with 1 / its length) with its `rows` (count, each)."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """An index in a device's memory, as it was when it had so many rows."""

    runtime: Runtime
    count: int
    vectors: Buffer
    inverse: Buffer


class CosineIndex:
    """Rows to search, float32 (n, d), in memory that grows; a device keeps its own copy between searches.

    A row of zeros has the cosine 0 with everything. Thread-safe for searches; `add` needs a writer's lock.
    """

    def __init__(self, vectors: Any) -> None:
        """Raises ValueError for another shape than (n, d), d > 0, and for a row that is not finite."""
        rows = matrix("vectors", vectors)
        self._vectors = np.empty((0, rows.shape[1]), np.float32)
        self._inverse = np.empty(0)
        self._count = 0
        self._sent: _Sent | None = None
        self._lock = threading.Lock()
        self.add(rows)

    def __len__(self) -> int:
        return self._count

    @property
    def dimensions(self) -> int:
        """Columns of a row."""
        return int(self._vectors.shape[1])

    @property
    def vectors(self) -> Singles:
        """(n, d)."""
        return self._vectors[: self._count]

    @property
    def inverse(self) -> Doubles:
        """(n,): 1 / length, 0 for a row of zeros."""
        return self._inverse[: self._count]

    def add(self, vectors: Any) -> None:
        """Append rows (m, d); raises ValueError as the constructor."""
        rows = scaled(matrix("vectors", vectors))
        if rows.shape[1] != self.dimensions:
            raise ValueError(f"rows of {rows.shape[1]} columns for an index of {self.dimensions}")
        inverse = finite("vectors", cpu.inverse_lengths(rows))
        after = self._count + len(rows)
        if self._count == 0:
            self._vectors, self._inverse = rows, inverse
        else:
            self._grow(after)
            self._vectors[self._count : after], self._inverse[self._count : after] = rows, inverse
        self._count = after

    def _grow(self, wanted: int) -> None:
        if wanted <= len(self._inverse):
            return
        room = max(wanted, 2 * len(self._inverse))
        vectors, inverse = np.empty((room, self.dimensions), np.float32), np.empty(room)
        vectors[: self._count], inverse[: self._count] = self.vectors, self.inverse
        self._vectors, self._inverse = vectors, inverse

    def sent(self, runtime: Runtime) -> tuple[Buffer, Buffer]:
        """Vectors (columns padded to a multiple of 4) and float32 inverses in a device's memory."""
        with self._lock:
            sent = self._sent
            if sent is None or sent.runtime is not runtime or sent.count != self._count:
                rows = padded(self.vectors)
                inverse = self.inverse.astype(np.float32)
                sent = _Sent(runtime, self._count, runtime.send(rows), runtime.send(inverse))
                self._sent = sent
            return sent.vectors, sent.inverse

    def candidates(self, units: Singles, k: int) -> tuple[Rows, Singles]:
        """As `Index`: on the device in use if that pays."""

        def device(runtime: Runtime) -> tuple[Rows, Singles]:
            vectors, scales = self.sent(runtime)
            return gpu.candidates(runtime, vectors, scales, runtime.send(padded(units)), k)

        return dispatch.run(
            "topk",
            self._count * self.dimensions * len(units) if k <= gpu.MOST else 0,
            device,
            lambda: cpu.candidates(self.vectors, self.inverse.astype(np.float32), units, k),
        )

    def rescored(self, queries: Singles, inverse: Doubles, rows: Rows) -> Doubles:
        """As `Index`."""
        return cpu.rescored(self.vectors, self.inverse, queries, inverse, rows)


class DeviceIndex:
    """Rows (n, d) float32 that lie on a GPU, searched there without a copy; d a multiple of 4."""

    def __init__(self, vectors: Any) -> None:
        """Raises ValueError for other shapes and lengths out of bounds, TypeError for other types."""
        self._vectors = arrays.taken(vectors, "vectors", ("float32",), 2)
        shape = arrays.shape_of(self._vectors)
        self._count, self.dimensions = int(shape[0]), int(shape[1])
        if self.dimensions == 0 or self.dimensions % 4:
            raise ValueError(f"vectors of {self.dimensions} columns on a GPU; a multiple of 4")
        self._inverse = dispatch.run("topk", 0, self._lengths, _nobody, resident=True)
        inverse = finite("vectors", self._inverse)
        if ((inverse > LONGEST) | ((inverse > 0) & (inverse < 1 / LONGEST))).any():
            raise ValueError(f"rows that are longer than {LONGEST:g} or shorter than its inverse")

    def __len__(self) -> int:
        return self._count

    def candidates(self, units: Singles, k: int) -> tuple[Rows, Singles]:
        """As `Index`; raises DeviceFailed for k beyond what a device keeps."""

        def device(runtime: Runtime) -> tuple[Rows, Singles]:
            scales = runtime.send(self._inverse.astype(np.float32))
            queries = runtime.send(padded(units))
            return gpu.candidates(runtime, runtime.borrow(self._vectors), scales, queries, k)

        return dispatch.run("topk", 0, device, _no_candidates, resident=True)

    def rescored(self, queries: Singles, inverse: Doubles, rows: Rows) -> Doubles:
        """As `Index`."""

        def device(runtime: Runtime) -> Doubles:
            scales, asked, scale = map(runtime.send, (self._inverse, padded(queries), inverse))
            return gpu.rescored(runtime, runtime.borrow(self._vectors), scales, asked, scale, rows)

        return dispatch.run("topk rescore", 0, device, _nobody, resident=True)

    def _lengths(self, runtime: Runtime) -> Doubles:
        return np.asarray(gpu.inverse_lengths(runtime, runtime.borrow(self._vectors)).get())


def _nobody() -> Doubles:
    raise AssertionError("rows on a GPU are searched there")


def _no_candidates() -> tuple[Rows, Singles]:
    raise AssertionError("rows on a GPU are searched there")


def matrix(name: str, x: Any) -> Singles:
    """float32 rows (n, d), d > 0; raises ValueError for another shape."""
    rows: Singles = arrays.taken(x, name, FLOATS, 2).astype(np.float32, copy=False)
    if rows.shape[1] == 0:
        raise ValueError(f"{name} of the shape {rows.shape}; (n, d) with d > 0")
    return rows


def scaled(rows: Singles) -> Singles:
    """Rows with lengths that float32 sums of squares can bear; the others times a power of two."""
    size = np.abs(rows).max(axis=1, initial=0.0)
    with np.errstate(invalid="ignore"):
        extreme = (size > LONGEST) | ((size > 0) & (size < 1 / LONGEST))
    extreme &= np.isfinite(size)
    if not extreme.any():
        return rows
    scaled = rows.copy()
    scaled[extreme] = np.ldexp(rows[extreme], -np.frexp(size[extreme])[1][:, None])
    return scaled


def finite(name: str, inverse: Doubles) -> Doubles:
    """The same; raises ValueError if some are NaN, which stand for rows that are not finite."""
    bad = np.flatnonzero(np.isnan(inverse))
    if len(bad):
        raise ValueError(f"{name}: row {bad[0]} is not finite ({len(bad)} are not)")
    return inverse


def padded(rows: Singles) -> Singles:
    """With zeros up to a multiple of 4 columns, which kernels read at once."""
    short = -rows.shape[1] % 4
    return np.pad(rows, ((0, 0), (0, short))) if short else np.ascontiguousarray(rows)
