"""Sums, scans, segments, sparse products: the building blocks, on the right device.

Arrays may be whatever `kernels.arrays` takes. What lies on a GPU gives a result on the GPU (a buffer with
`__cuda_array_interface__`), where it is an array; all else gives NumPy's. Integers are exact, and wrap around
where they overflow; floats are summed in float64, so that devices differ by the last bit at most. NaN and
infinities go through as IEEE 754 has it: a sum, minimum or maximum with a NaN is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import arrays, dispatch
from kernels.cpu import blocks as cpu
from kernels.cpu import ring as cpu_ring
from kernels.gpu import elementwise, reduction, ring, sparse
from kernels.gpu import scan as gpu_scan
from kernels.gpu import segments as gpu_segments
from kernels.gpu.runtime import Buffer, Runtime

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Segments:
    """Of each run of equal keys, each (r,): its key (int64), its length, and its sum (float64 or int64)."""

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    sums: Array


def add(a: Any, b: Any) -> Any:
    """a + b, both (n,) of one dtype. Raises TypeError or ValueError for what does not fit."""
    there = arrays.resident(a=a, b=b)
    a, b = arrays.taken(a, "a"), arrays.taken(b, "b")
    arrays.same_shape(a=a, b=b)
    arrays.same_dtype(a=a, b=b)

    def on_device(runtime: Runtime) -> Any:
        if there:
            return elementwise.add(runtime, runtime.borrow(a), runtime.borrow(b))
        out = np.empty_like(a)

        def part(i: int, j: int) -> None:
            out[i:j] = elementwise.add(runtime, runtime.send(a[i:j]), runtime.send(b[i:j])).get()

        dispatch.in_chunks(len(a), part)
        return out

    return _run("add", a, on_device, lambda: a + b, there)


def reduce(x: Any, operation: str = "sum") -> Any:
    """Sum, min or max of x, (n,): a float64 for floats, an int64 for integers. The sum of nothing is 0.

    Raises ValueError for another operation, and for the min or max of nothing.
    """
    if operation not in reduction.OPERATIONS:
        raise ValueError(f"{operation!r} is none of {', '.join(reduction.OPERATIONS)}")
    there = arrays.resident(x=x)
    x = arrays.taken(x, "x")
    if arrays.shape_of(x)[0] == 0:
        if operation != "sum":
            raise ValueError(f"the {operation} of nothing")
        return cpu.wider(arrays.dtype_of(x)).type(0)

    def on_device(runtime: Runtime) -> np.generic:
        if there:
            return reduction.reduce(runtime, runtime.borrow(x), operation)
        parts: list[np.generic] = []

        def part(i: int, j: int) -> None:
            parts.append(reduction.reduce(runtime, runtime.send(x[i:j]), operation))

        dispatch.in_chunks(len(x), part)
        return cpu.reduce(np.array(parts), operation)

    return _run("reduce", x, on_device, lambda: cpu.reduce(x, operation), there)


def scan(x: Any, *, exclusive: bool = False, deterministic: bool = False) -> Any:
    """Prefix sums of x, (n,), in its dtype: y[i] = x[0] + ... + x[i], or up to x[i - 1] if `exclusive`.

    `deterministic`: the same bits of floats on every run of a GPU, for a second pass over the data.
    """
    there = arrays.resident(x=x)
    x = arrays.taken(x, "x")

    def prefix_sums(runtime: Runtime, sent: Buffer) -> Buffer:
        return gpu_scan.scan(runtime, sent, exclusive=exclusive, deterministic=deterministic)

    def on_device(runtime: Runtime) -> Any:
        if there:
            return prefix_sums(runtime, runtime.borrow(x))
        out = np.empty_like(x)
        before = cpu.wider(x.dtype).type(0)

        def part(i: int, j: int) -> None:
            nonlocal before
            sent = runtime.send(x[i:j])
            found = prefix_sums(runtime, sent).get()
            total = reduction.reduce(runtime, sent) if j < len(x) else before
            out[i:j] = found + before if i else found
            with np.errstate(over="ignore"):
                before = before + total

        dispatch.in_chunks(len(x), part)
        return out

    return _run("scan", x, on_device, lambda: cpu.scan(x, exclusive=exclusive), there)


def segmented_scan(keys: Any, x: Any) -> Any:
    """Prefix sums of x, (n,), that begin anew where a key, int64 (n,), differs from the one before."""
    there, keys, x = _keyed(keys, x)

    def on_device(runtime: Runtime) -> Any:
        found = gpu_segments.segmented_scan(
            runtime, arrays.on(runtime, keys), arrays.on(runtime, x)
        )
        return found if there else found.get()

    return _run("segments", x, on_device, lambda: cpu.segmented_scan(keys, x), there)


def segments(keys: Any, x: Any) -> Segments:
    """Count and sum of x, (n,), for each run of equal keys, int64 (n,)."""
    there, keys, x = _keyed(keys, x)

    def on_device(runtime: Runtime) -> Segments:
        if there:
            lent = runtime.borrow(keys), runtime.borrow(x)
            return Segments(*gpu_segments.segmented_sums(runtime, *lent))
        parts: list[Segments] = []

        def part(i: int, j: int) -> None:
            sent = runtime.send(keys[i:j]), runtime.send(x[i:j])
            parts.append(Segments(*gpu_segments.segmented_sums(runtime, *sent)))

        dispatch.in_chunks(len(x), part)
        return _joined(parts)

    found: Segments = _run(
        "segments", x, on_device, lambda: Segments(*cpu.segmented_sums(keys, x)), there
    )
    return found


def windows(times: Any, size: int, values: Any) -> Segments:
    """Count and sum of values, (n,), for each tumbling window of `size` that has an event, in order.

    times: (n,) int64, of the events, in the unit of `size`, in any order; the nearer to their own, the
    faster: neighbours of one window are one run, and only runs are sorted. A window's key is its start, a
    multiple of `size`. Raises ValueError unless size > 0.
    """
    if size <= 0:
        raise ValueError(f"windows of {size}: more than 0 expected")
    there, times, values = _keyed(times, values, "times", "values")

    def part(runtime: Runtime, t: Buffer, v: Buffer) -> Segments:
        starts = gpu_segments.window_starts(runtime, t, size)
        return Segments(*gpu_segments.segmented_sums(runtime, starts, v))

    def on_device(runtime: Runtime) -> Segments:
        if there:
            return part(runtime, runtime.borrow(times), runtime.borrow(values))
        parts: list[Segments] = []

        def some(i: int, j: int) -> None:
            parts.append(part(runtime, runtime.send(times[i:j]), runtime.send(values[i:j])))

        dispatch.in_chunks(len(times), some)
        return _joined(parts)

    def on_cpu() -> Segments:
        return Segments(*cpu.segmented_sums(cpu.window_starts(times, size), values))

    return in_order(_run("windows", values, on_device, on_cpu, there))


def spmv(offsets: Any, columns: Any, values: Any, x: Any) -> Any:
    """A x, (rows,), of a sparse matrix in compressed rows (CSR); sums are float64.

    offsets: (rows + 1,) int64, ascending from 0 to k. columns: (k,) int32 into x. values: (k,), x: (m,),
    both float32 or float64. Raises ValueError for offsets or columns that point nowhere, where they lie in
    this processor's memory.
    """
    there = arrays.resident(offsets=offsets, columns=columns, values=values, x=x)
    offsets = arrays.taken(offsets, "offsets", ("int64",))
    columns = arrays.taken(columns, "columns", ("int32",))
    values, x = (arrays.taken(v, name, arrays.FLOATS) for v, name in ((values, "values"), (x, "x")))
    arrays.same_dtype(values=values, x=x)
    arrays.same_shape(columns=columns, values=values)
    if not there:
        _check_csr(offsets, columns, len(x))

    def on_device(runtime: Runtime) -> Any:
        if there:
            return sparse.spmv(runtime, *map(runtime.borrow, (offsets, columns, values, x)))
        y = np.empty(len(offsets) - 1, values.dtype)

        def part(i: int, j: int) -> None:
            k, end = offsets[i], offsets[j]
            csr = offsets[i : j + 1] - k, columns[k:end], values[k:end], x
            y[i:j] = sparse.spmv(runtime, *map(runtime.send, csr)).get()

        dispatch.in_chunks(len(y), part)
        return y

    return _run("spmv", values, on_device, lambda: cpu.spmv(offsets, columns, values, x), there)


def _run(
    kernel: str,
    x: Any,
    on_device: Callable[[Runtime], Any],
    on_cpu: Callable[[], Any],
    there: bool,
) -> Any:
    return dispatch.run(kernel, arrays.shape_of(x)[0], on_device, on_cpu, resident=there)


def _keyed(keys: Any, x: Any, first: str = "keys", second: str = "x") -> tuple[bool, Any, Any]:
    there = arrays.resident(**{first: keys, second: x})
    keys, x = arrays.taken(keys, first, ("int64",)), arrays.taken(x, second)
    arrays.same_shape(**{first: keys, second: x})
    return there, keys, x


def _joined(parts: list[Segments]) -> Segments:
    """A run that goes on in the next part is one run."""
    keys = np.concatenate([part.keys for part in parts])
    counts = np.concatenate([part.counts for part in parts])
    sums = np.concatenate([part.sums for part in parts])
    begins = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
    return Segments(keys[begins], np.add.reduceat(counts, begins), np.add.reduceat(sums, begins))


def in_order(runs: Segments) -> Segments:
    """One segment a key, in the order of the keys; runs of equal keys are added up in theirs."""
    if np.all(runs.keys[1:] > runs.keys[:-1]):
        return runs
    order = np.argsort(runs.keys, kind="stable")
    return _joined([Segments(runs.keys[order], runs.counts[order], runs.sums[order])])


def _check_csr(offsets: Array, columns: Array, width: int) -> None:
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(columns):
        raise ValueError(f"offsets: they go from 0 to {len(columns)} entries")
    if np.any(offsets[1:] < offsets[:-1]):
        raise ValueError("offsets: they do not ascend")
    if len(columns) and not 0 <= columns.min() <= columns.max() < width:
        raise ValueError(f"columns: from {columns.min()} to {columns.max()} of {width}")


def all_reduce(buffers: Sequence[Any]) -> None:
    """Give every buffer, (n,) of one dtype, the sum of all, in place: see `kernels.cpu.ring`.

    Buffers that lie on a GPU are summed there, as the ranks of a ring.
    """
    named = {f"buffer {i}": buffer for i, buffer in enumerate(buffers)}
    there = arrays.resident(**named)
    for name, buffer in named.items():
        taken = arrays.taken(buffer, name)
        if not there and taken is not buffer:
            raise TypeError(f"{name}: a contiguous NumPy array expected, to be changed in place")
    arrays.same_shape(**named)
    arrays.same_dtype(**named)
    if there:
        dispatch.run(
            "all_reduce",
            len(named),
            lambda runtime: ring.all_reduce(runtime, [runtime.borrow(b) for b in buffers]),
            lambda: None,
            resident=True,
        )
        return
    dispatch.count("all_reduce")
    cpu_ring.all_reduce(buffers)
