"""Building blocks: addition, reduction, scan, segments, sparse products, ring."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

import kernels
from benchmarks.kernel_cases.case import Case, DeviceGoal, Work, close, on_torch
from kernels.calls.blocks import in_order
from kernels.gpu import elementwise, reduction, ring, scan, segments, sparse
from kernels.gpu.runtime import Runtime


def add(n: int) -> Case:
    a, b = _floats(n, 1), _floats(n, 2)

    def step(name: str) -> Any:
        def prepare(runtime: Runtime) -> Work:
            x, y, out = runtime.send(a), runtime.send(b), runtime.empty(n, a.dtype)
            return lambda: elementwise.add(runtime, x, y, out, step=name)

        return prepare

    def torch() -> Work:
        x, y = on_torch(a, b)
        return lambda: x + y

    return Case(
        "vector add",
        f"{n:,} float32",
        *(n, n, 12 * n),
        lambda: kernels.add(a, b),
        {"np.add": lambda: a + b},
        {name: step(name) for name in elementwise.STEPS},
        {"torch": torch},
        goals=(
            DeviceGoal(
                "vector add reaches 90 % of the copy's bandwidth",
                lambda m: m.bandwidth_share("vector_add"),
                0.9,
            ),
        ),
    )


def reduce(n: int) -> Case:
    x = _floats(n, 1)

    def step(name: str) -> Any:
        def prepare(runtime: Runtime) -> Work:
            once = reduction.Reduction(runtime, runtime.send(x), step=name)

            def work() -> Any:
                once.launch()
                return once.out

            return work

        return prepare

    def torch() -> Work:
        (y,) = on_torch(x)
        return y.sum

    return Case(
        "reduction",
        f"sum of {n:,} float32",
        *(n, n, 4 * n),
        lambda: kernels.reduce(x),
        {"np.sum": lambda: x.sum(dtype=np.float64)},
        {name: step(name) for name in reduction.STEPS},
        {"torch": torch},
        same=close,
        goals=(
            DeviceGoal(
                "reduction reaches 90 % of the copy's bandwidth",
                lambda m: m.bandwidth_share("reduce_vector"),
                0.9,
            ),
            DeviceGoal(
                "reduction takes 1 / 1.8 of the atomics' time",
                lambda m: m.seconds["reduce_atomic"] / m.seconds["reduce_vector"],
                1.8,
            ),
        ),
    )


def prefix_sums(n: int) -> Case:
    x = np.random.default_rng(1).integers(-1000, 1000, n).astype(np.int32)

    def step(deterministic: bool, dtype: str) -> Any:
        def prepare(runtime: Runtime) -> Work:
            sent, out = runtime.send(x.astype(dtype)), runtime.empty(n, dtype)
            return lambda: scan.scan(runtime, sent, deterministic=deterministic, out=out)

        return prepare

    def torch() -> Work:
        import torch as library

        (y,) = on_torch(x)
        return lambda: library.cumsum(y, 0, dtype=library.int32)

    def cupy() -> Work:
        import cupy  # type: ignore[import-not-found,unused-ignore]

        y = cupy.asarray(x)
        return lambda: cupy.cumsum(y)

    return Case(
        "scan",
        f"{n:,} int32",
        *(n, n, 8 * n),
        lambda: kernels.scan(x),
        {"np.cumsum": lambda: np.cumsum(x, dtype=np.int32)},
        {
            "scan in two passes, float32": step(True, "f4"),
            "scan, float32": step(False, "f4"),
            "scan": step(False, "i4"),
        },
        {"torch (CUB)": torch, "cupy (CUB)": cupy},
        same=close,
        goals=(
            DeviceGoal(
                "scan reaches 80 % of CUB's",
                lambda m: min(m.seconds[k] for k in m.seconds if "CUB" in k) / m.seconds["scan"],
                0.8,
            ),
        ),
    )


def runs(n: int) -> Case:
    rng = np.random.default_rng(1)
    keys = np.sort(rng.integers(0, max(1, n // 50), n))
    x = rng.integers(-1000, 1000, n)

    def peer() -> Any:
        begins = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        return np.add.reduceat(x, begins)

    def prepare(runtime: Runtime) -> Work:
        sent = runtime.send(keys), runtime.send(x)
        return lambda: segments.segmented_sums(runtime, *sent)[2]

    return Case(
        "segments",
        f"sums of {n:,} int64 in runs of 50",
        *(n, n, 16 * n),
        lambda: kernels.segments(keys, x).sums,
        {"np.add.reduceat": peer},
        {"segmented_sums": prepare},
    )


def windows(n: int) -> Case:
    rng = np.random.default_rng(1)
    size = 3_600_000
    times = np.arange(n) * 1000 + rng.integers(-5000, 5000, n)  # an event a second, some disorder
    x = rng.integers(-1000, 1000, n)

    def peer() -> Any:
        starts = times // size
        return np.bincount(starts - starts.min(), x).astype(np.int64)

    def prepare(runtime: Runtime) -> Work:
        sent = runtime.send(times), runtime.send(x)

        def work() -> Any:
            starts = segments.window_starts(runtime, sent[0], size)
            runs = kernels.Segments(*segments.segmented_sums(runtime, starts, sent[1]))
            return in_order(runs).sums

        return work

    return Case(
        "windows",
        f"sums of {n:,} int64 in windows of an hour",
        *(n, n, 16 * n),
        lambda: kernels.windows(times, size, x).sums,
        {"// and bincount": peer},
        {"window_starts, segmented_sums": prepare},
    )


def product(n: int) -> Case:
    rows, mean = max(1, n // 64), 16
    matrix = scipy.sparse.random_array(
        (rows, rows), density=min(1.0, mean / rows), format="csr", dtype=np.float32, rng=1
    )
    x = _floats(rows, 2)
    csr = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, x
    entries = len(matrix.data)

    def step(lanes: int | None) -> Any:
        def prepare(runtime: Runtime) -> Work:
            sent = [runtime.send(a) for a in csr]
            return lambda: sparse.spmv(runtime, *sent, lanes=lanes)

        return prepare

    def torch() -> Work:
        import torch as library

        parts = on_torch(*csr)
        there = library.sparse_csr_tensor(parts[0], parts[1].long(), parts[2], (rows, rows))
        return lambda: there @ parts[3]

    return Case(
        "sparse product",
        f"{entries:,} float32 entries, {mean} a row",
        *(entries, 2 * entries, 8 * entries + 8 * rows + 8 * rows),
        lambda: kernels.spmv(*csr),
        {"scipy.sparse": lambda: matrix @ x},
        {"spmv_scalar": step(1), "spmv_warp": step(None)},
        {"torch": torch},
        same=close,
    )


def rings(n: int) -> Case:
    ranks = 4
    buffers = [_floats(n // ranks, rank) for rank in range(ranks)]

    def here() -> Any:
        copies = [buffer.copy() for buffer in buffers]
        kernels.all_reduce(copies)
        return copies[0]

    def prepare(runtime: Runtime) -> Work:
        sent = [runtime.send(buffer) for buffer in buffers]

        def work() -> Any:
            for buffer, fresh in zip(sent, buffers, strict=True):
                buffer.set(fresh)
            ring.all_reduce(runtime, sent)
            return sent[0]

        return work

    size = 4 * (n // ranks)
    return Case(
        "ring all-reduce",
        f"{ranks} ranks of {n // ranks:,} float32, with a copy of each",
        n,
        (ranks - 1) * (n // ranks),
        ranks * size * (2 + 5 * (ranks - 1) / ranks),
        here,
        {"np.sum": lambda: np.sum(buffers, axis=0)},
        {"ring": prepare},
        same=close,
    )


def _floats(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(n, np.float32)


CASES = [add, reduce, prefix_sums, runs, windows, product, rings]
