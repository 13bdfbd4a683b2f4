"""Sums, scans, segments and sparse products: every device and every step against the references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels.cpu import ring as cpu_ring
from kernels.gpu import elementwise, reduction, ring, scan, segments, sparse
from kernels.gpu.runtime import Runtime
from kernels.reference import blocks as reference

DTYPES = ["f4", "f8", "i4", "i8"]
SIZES = [1, 2, 31, 33, 255, 1024, 4096, 4097, 9001]


def numbers(n: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Of very different size, so that an order or a place that is wrong shows."""
    rng = np.random.default_rng([seed, n])
    if dtype[0] == "i":
        info = np.iinfo(dtype)
        return rng.integers(info.min // 2, info.max // 2, n).astype(dtype)
    return (rng.normal(size=n) * np.exp(rng.normal(size=n) * 3)).astype(dtype)


def close(found: np.ndarray, exact: np.ndarray, x: np.ndarray) -> None:
    """Integers are equal; floats within the rounding of float64 sums, and of the result's own type."""
    if x.dtype.kind == "i":
        assert np.array_equal(found, exact)
        return
    scale = np.abs(x.astype(np.float64)).sum()
    own = np.finfo(np.asarray(found).dtype).eps * np.abs(exact)
    assert np.all(np.abs(np.float64(found) - exact) <= own + 4 * len(x) * 2.3e-16 * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", elementwise.STEPS)
def test_vectors_add_up(runtime: Runtime, dtype: str, step: str) -> None:
    for n in (*SIZES, 0):
        a, b = numbers(n, dtype), numbers(n, dtype, seed=1)
        found = elementwise.add(runtime, runtime.send(a), runtime.send(b), step=step).get()
        assert np.array_equal(found, reference.add(a, b) if n else a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", reduction.STEPS)
@pytest.mark.parametrize("operation", reduction.OPERATIONS)
def test_every_step_of_the_reduction(
    runtime: Runtime, dtype: str, step: str, operation: str
) -> None:
    for n in SIZES:
        x = numbers(n, dtype)
        if dtype == "i8":
            x //= n  # the reference does not wrap around
        found = reduction.reduce(runtime, runtime.send(x), operation, step=step)
        exact = np.asarray(reference.reduce(x, operation), found.dtype)
        close(found, exact, x) if operation == "sum" else np.testing.assert_equal(found, exact)


@pytest.mark.parametrize("threads", [64, 128, 512, 1024])
def test_a_reduction_of_any_block_size(emulator: Runtime, threads: int) -> None:
    x = numbers(70_000, "i4")
    for step in reduction.STEPS[1:]:
        once = reduction.Reduction(emulator, emulator.send(x), step=step, threads=threads)
        for _ in range(2):  # it leaves everything ready for the next launch
            once.launch()
            assert once.out.get()[0] == x.sum(dtype=np.int64)


def test_the_sum_of_floats_has_the_same_bits_on_every_device(
    runtime: Runtime, emulator: Runtime
) -> None:
    x = numbers(100_000, "f4")
    one, other = (reduction.reduce(r, r.send(x)) for r in (runtime, emulator))
    assert one == other


@pytest.mark.parametrize("operation", reduction.OPERATIONS)
def test_a_nan_stays(runtime: Runtime, operation: str) -> None:
    for place in (0, 700, 4999):
        x = numbers(5000, "f4")
        x[place] = np.nan
        for step in reduction.STEPS:
            assert math.isnan(reduction.reduce(runtime, runtime.send(x), operation, step=step))
        assert math.isnan(kernels.reduce(x, operation))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_scans_of_any_length(
    runtime: Runtime, dtype: str, exclusive: bool, deterministic: bool
) -> None:
    for n in (0, *SIZES, 150_000):
        x = numbers(n, dtype)
        found = scan.scan(
            runtime, runtime.send(x), exclusive=exclusive, deterministic=deterministic
        ).get()
        exact = kernels.cpu.blocks.scan(x, exclusive=exclusive)
        close(found, exact.astype(np.float64) if dtype[0] == "f" else exact, x)


@given(st.integers(0, 300), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 1000))
def test_the_processors_scan_is_the_references(
    n: int, dtype: str, exclusive: bool, seed: int
) -> None:
    x = numbers(n, dtype, seed)
    close(kernels.scan(x, exclusive=exclusive), reference.scan(x, exclusive=exclusive), x)


def runs(n: int, mean: float, seed: int = 0) -> np.ndarray:
    """Keys of runs that are short, long, and far longer than a tile; a key may come back."""
    rng = np.random.default_rng([seed, n])
    keys = np.repeat(rng.integers(-3, 1 << 40, n), np.minimum(n, rng.geometric(1 / mean, n)))[:n]
    return keys.astype(np.int64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mean", [1.0, 5.0, 300.0, 1e6])
def test_runs_are_summed_by_themselves(runtime: Runtime, dtype: str, mean: float) -> None:
    for n in (0, 1, 2, 2047, 2048, 2049, 7001):
        keys, x = runs(n, mean), numbers(n, dtype)
        if dtype == "i8":
            x //= max(1, n)
        sent = runtime.send(keys), runtime.send(x)
        found, exact = (
            segments.segmented_sums(runtime, *sent),
            reference.segmented_sums(keys, x),
        )
        assert found[0].tolist() == exact[0] and found[1].tolist() == exact[1]
        close(found[2], np.array(exact[2], found[2].dtype), x)
        along = segments.segmented_scan(runtime, *sent).get()
        if mean == 1e6:  # one run: the exact reference would take long
            close(along, kernels.cpu.blocks.scan(x), x)
        else:
            close(along, reference.segmented_scan(keys, x), x)


@given(
    st.integers(0, 200),
    st.sampled_from(DTYPES),
    st.sampled_from([1.0, 3.0, 50.0]),
    st.integers(0, 99),
)
def test_the_processors_segments_are_the_references(
    n: int, dtype: str, mean: float, seed: int
) -> None:
    keys, x = runs(n, mean, seed), numbers(n, dtype, seed) // 200
    found, exact = kernels.segments(keys, x), reference.segmented_sums(keys, x)
    assert (found.keys.tolist(), found.counts.tolist()) == exact[:2]
    close(found.sums, np.array(exact[2], found.sums.dtype), x)
    close(kernels.segmented_scan(keys, x), reference.segmented_scan(keys, x), x)


@given(st.integers(0, 200), st.integers(1, 500), st.booleans(), st.integers(0, 99))
def test_windows_of_events_in_any_order(n: int, size: int, ordered: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times, values = rng.integers(-3000, 3000, n), rng.integers(-9, 9, n)
    if ordered:
        times.sort()
    found, exact = kernels.windows(times, size, values), reference.windows(times, size, values)
    assert (found.keys.tolist(), found.counts.tolist(), found.sums.tolist()) == exact


@pytest.mark.parametrize("disorder", [0, 50, 10**6])
def test_windows_on_a_device(in_use: kernels.Device, disorder: int) -> None:
    rng = np.random.default_rng(0)
    times = np.arange(-3000, 2000) * 20 + rng.integers(0, disorder + 1, 5000)
    values = rng.integers(-9, 9, 5000)
    before = kernels.used().get("windows", {}).get("emulator", 0)
    exact = reference.windows(times, 700, values)
    lent = in_use.runtime.send(times), in_use.runtime.send(values)
    for t, v in ((times, values), lent):
        found = kernels.windows(t, 700, v)
        assert (found.keys.tolist(), found.counts.tolist(), found.sums.tolist()) == exact
    assert kernels.used()["windows"]["emulator"] == before + 2


@pytest.mark.parametrize("size", [1, 7, 3_600_000])
def test_the_start_of_a_window(runtime: Runtime, size: int) -> None:
    times = np.concatenate([np.arange(-20, 20), [-(2**62), 2**62, size, -size, -size - 1]])
    times = np.append(times, [2**63 - 1, -(2**63) + size, 2**63 - 1])
    found = segments.window_starts(runtime, runtime.send(times), size).get()
    assert np.array_equal(found, times // size * size)
    assert np.array_equal(kernels.cpu.blocks.window_starts(times, size), found)


def csr(rows: int, width: int, mean: float, dtype: str) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([rows, width])
    lengths = rng.poisson(mean, rows) * (rng.random(rows) < 0.8)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    columns = rng.integers(0, width, offsets[-1]).astype(np.int32)
    return offsets, columns, numbers(offsets[-1], dtype), numbers(width, dtype, seed=3)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("mean", [0.0, 2.0, 7.0, 40.0])
@pytest.mark.parametrize("lanes", [None, 1, 2, 8, 32])
def test_sparse_products(runtime: Runtime, dtype: str, mean: float, lanes: int | None) -> None:
    for rows in (0, 1, 33, 300):
        matrix = csr(rows, 50, mean, dtype)
        exact = reference.spmv(*matrix)
        on_device = sparse.spmv(runtime, *map(runtime.send, matrix), lanes=lanes).get()
        for found in (on_device, kernels.spmv(*matrix)):
            np.testing.assert_allclose(found, exact, rtol=1e-6 if dtype == "f4" else 1e-9)


def test_a_row_has_as_many_threads_as_it_can_feed() -> None:
    assert [sparse.lanes_for(mean) for mean in (0, 4, 4.1, 8, 9, 31, 500)] == [
        1,
        1,
        8,
        8,
        16,
        32,
        32,
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_a_ring_gives_every_rank_the_sum(runtime: Runtime, dtype: str, ranks: int) -> None:
    for n in (0, 1, 5, 1000):
        buffers = [numbers(n, dtype, seed=rank) // 8 for rank in range(ranks)]
        exact = reference.all_reduce(buffers)
        sent = [runtime.send(buffer) for buffer in buffers]
        ring.all_reduce(runtime, sent)
        here = [buffer.copy() for buffer in buffers]
        kernels.all_reduce(here)
        eps = 0 if dtype[0] == "i" else np.finfo(dtype).eps
        most = (ranks - 1) * eps * np.abs(np.array(buffers)).sum(axis=0)
        for mine, other in zip((buffer.get() for buffer in sent), here, strict=True):
            assert np.array_equal(mine, other) and np.array_equal(mine, here[0])
            assert np.all(np.abs(mine - exact) <= most)


def test_a_ring_of_processes() -> None:
    buffers = [numbers(1001, "i8", seed=rank) for rank in range(3)]
    found = cpu_ring.all_reduce_processes(buffers)
    assert all(np.array_equal(each, np.sum(buffers, axis=0)) for each in found)


def test_the_model_of_a_ring() -> None:
    assert cpu_ring.seconds(1, 8e9, 1e9) == 0
    assert cpu_ring.seconds(4, 8e9, 1e9, latency=0.5) == pytest.approx(2 * 3 / 4 * 8 + 6 * 0.5)
