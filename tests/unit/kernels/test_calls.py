"""What the public calls take, refuse, and do when memory is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels.gpu.emulator import Emulator
from kernels.gpu.runtime import Runtime
from kernels.reference import blocks, drift

RNG = np.random.default_rng(4)
X = RNG.normal(size=6000)
KEYS = np.sort(RNG.integers(0, 900, 6000))
EDGES = np.linspace(-2, 2, 19)
TABLE = RNG.normal(size=(700, 37)).astype(np.float32)
TABLE[::9, ::5] = np.nan
TABLE_EDGES = [np.linspace(-1, 1, 1 + j % 20) for j in range(37)]
OFFSETS = np.arange(0, 6001, 6)
COLUMNS = RNG.integers(0, 50, 6000).astype(np.int32)


class Small(Emulator):
    """Little memory; how often it ran out."""

    def __init__(self, memory: int) -> None:
        super().__init__(memory)
        self.refused = 0

    def empty(self, *arguments: Any) -> Any:
        return self._counted(super().empty, arguments)

    def send(self, *arguments: Any) -> Any:
        return self._counted(super().send, arguments)

    def _counted(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        try:
            return call(*arguments)
        except kernels.OutOfMemory:
            self.refused += 1
            raise


CALLS: dict[str, Callable[[], Any]] = {
    "add": lambda: kernels.add(X, X),
    "reduce": lambda: kernels.reduce(X.astype(np.float32), "max"),
    "sum": lambda: kernels.reduce(KEYS),
    "scan": lambda: kernels.scan(KEYS),
    "exclusive": lambda: kernels.scan(KEYS.astype(np.int32), exclusive=True),
    "segments": lambda: np.array([*vars_of(kernels.segments(KEYS, KEYS))]),
    "windows": lambda: np.array([*vars_of(kernels.windows(KEYS[::-1].copy(), 7, KEYS))]),
    "spmv": lambda: kernels.spmv(OFFSETS, COLUMNS, X, X[:50]),
    "histogram": lambda: kernels.histogram(X, EDGES),
    "table": lambda: kernels.histogram(TABLE, TABLE_EDGES),
    "histograms": lambda: kernels.histograms([X, X], [EDGES] * 2, np.zeros(6000, np.int32), 1)[0],
    "distances": lambda: (
        kernels.distances(KEYS.reshape(-1, 6), KEYS[::-1].reshape(-1, 6), np.full(1000, 6)).psi
    ),
}


def vars_of(found: kernels.Segments) -> tuple[Any, ...]:
    return found.keys, found.counts, found.sums


@pytest.fixture
def small() -> Iterator[Small]:
    runtime = Small(20_000)
    kernels.use(kernels.Device(runtime, "small", otherwise=1))
    yield runtime
    kernels.use(None)


@pytest.mark.parametrize("name", CALLS)
def test_what_does_not_fit_is_done_in_chunks(
    name: str, small: Small, caplog: pytest.LogCaptureFixture
) -> None:
    found = CALLS[name]()
    assert small.refused > 0 and not caplog.records and small.memory_used == 0
    kernels.use(None)
    np.testing.assert_allclose(found, CALLS[name](), rtol=1e-12)


def test_what_does_not_fit_at_all_is_done_by_the_processor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = kernels.Device(Emulator(100), "tiny", otherwise=1)
    kernels.use(device)
    found = kernels.histogram(X, EDGES)
    assert kernels.in_use() is device and "out of memory" in caplog.text
    kernels.use(None)
    assert np.array_equal(found, drift.histogram(X, EDGES))


@pytest.mark.parametrize("name", CALLS)
def test_the_device_and_the_processor_give_the_same(name: str, in_use: kernels.Device) -> None:
    before = _calls("emulator")
    found = CALLS[name]()
    assert _calls("emulator") == before + 1
    kernels.use(None)
    np.testing.assert_allclose(found, CALLS[name](), rtol=1e-12)


def _calls(device: str) -> int:
    return sum(by.get(device, 0) for by in kernels.used().values())


class OfTheProcessor:
    """Such as a torch tensor that lies here."""

    def __init__(self, x: np.ndarray) -> None:
        self._x = x

    def __dlpack__(self, **options: Any) -> Any:
        return self._x.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._x.__dlpack_device__()


@pytest.mark.parametrize("made", [list, OfTheProcessor, lambda x: np.repeat(x, 2)[::2]])
def test_whatever_becomes_an_array_is_taken(made: Callable[[Any], Any]) -> None:
    assert np.array_equal(kernels.scan(made(KEYS)), np.cumsum(KEYS))
    assert np.array_equal(kernels.histogram(made(X), EDGES), drift.histogram(X, EDGES))


def test_other_byte_orders_are_turned_round(in_use: kernels.Device) -> None:
    assert np.array_equal(kernels.scan(KEYS.astype(">i8")), np.cumsum(KEYS))


class Resident:
    """An array on the device that belongs to somebody else."""

    def __init__(self, runtime: Runtime, x: np.ndarray) -> None:
        self._buffer = runtime.send(x)
        self.__cuda_array_interface__ = self._buffer.__cuda_array_interface__


def test_what_lies_on_the_device_is_used_there(in_use: kernels.Device, monkeypatch: Any) -> None:
    runtime = in_use.runtime
    x, keys, table = (Resident(runtime, a) for a in (X, KEYS, TABLE))
    csr = [Resident(runtime, a) for a in (OFFSETS, COLUMNS, X, X[:50].copy())]
    sent: list[tuple[int, ...]] = []
    send = runtime.send
    monkeypatch.setattr(runtime, "send", lambda a: (sent.append(np.shape(a)), send(a))[1])
    assert np.array_equal(kernels.add(x, x).get(), X + X)
    assert np.array_equal(kernels.scan(keys).get(), np.cumsum(KEYS))
    assert kernels.reduce(x, "min") == X.min()
    assert kernels.segments(keys, x).counts.tolist() == blocks.segmented_sums(KEYS, X)[1]
    assert len(kernels.segmented_scan(keys, x).get()) == len(X)
    assert np.allclose(kernels.spmv(*csr).get(), blocks.spmv(OFFSETS, COLUMNS, X, X[:50]))
    assert np.array_equal(kernels.histogram(x, EDGES), drift.histogram(X, EDGES))
    assert kernels.histogram(table, TABLE_EDGES).sum() == np.sum(~np.isnan(TABLE))
    kernels.all_reduce([x, x])
    assert max(map(np.prod, sent)) < 2000  # edges, not data


@pytest.mark.parametrize("skipped", [1, 2, 3, 4])
def test_lent_memory_may_begin_anywhere(in_use: kernels.Device, skipped: int) -> None:
    whole = in_use.runtime.send(np.arange(3000, dtype=np.float32))

    class Part:
        __cuda_array_interface__ = whole.__cuda_array_interface__ | {
            "shape": (3000 - skipped,),
            "data": (whole.__cuda_array_interface__["data"][0] + 4 * skipped, False),
        }

    x = np.arange(skipped, 3000, dtype=np.float32)
    assert np.array_equal(kernels.add(Part(), Part()).get(), x + x)
    assert kernels.reduce(Part()) == x.sum(dtype=np.float64)
    assert np.array_equal(kernels.scan(Part()).get(), np.cumsum(x, dtype=np.float64).astype("f4"))


def test_what_lies_on_a_device_that_is_not_in_use_is_refused(emulator: Runtime) -> None:
    with pytest.raises(RuntimeError, match="lies on a GPU and none is in use"):
        kernels.scan(emulator.send(X))


def test_places_are_not_mixed(emulator: Runtime) -> None:
    with pytest.raises(TypeError, match="a on a GPU, but b not"):
        kernels.add(emulator.send(X), X)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: kernels.add(X, X[1:]), ValueError, r"shapes differ: a \(6000,\), b \(5999,\)"),
        (lambda: kernels.add(X, KEYS), TypeError, "dtypes differ: a float64, b int64"),
        (lambda: kernels.add(X > 0, X > 0), TypeError, "a: bool is none of float32"),
        (lambda: kernels.scan(TABLE), ValueError, "x: shape .700, 37.; 1 dimension expected"),
        (lambda: kernels.scan(["a"]), TypeError, "is none of float32"),
        (lambda: kernels.reduce(X, "mean"), ValueError, "'mean' is none of sum, min, max"),
        (lambda: kernels.reduce(X[:0], "min"), ValueError, "the min of nothing"),
        (lambda: kernels.segments(X, X), TypeError, "keys: float64 is none of int64"),
        (lambda: kernels.windows(KEYS, 0, X), ValueError, "windows of 0"),
        (lambda: kernels.spmv(OFFSETS[1:], COLUMNS, X, X), ValueError, "from 0 to 6000"),
        (lambda: kernels.spmv(OFFSETS, COLUMNS, X, X[:9]), ValueError, "from 0 to 49 of 9"),
        (lambda: kernels.histogram(X, [2, 1]), ValueError, "edges: .k,. ascending"),
        (lambda: kernels.histogram(X, [np.nan]), ValueError, "edges: .k,. ascending"),
        (lambda: kernels.histogram(TABLE, [EDGES]), ValueError, "37 columns and the edges of 1"),
        (lambda: kernels.histogram(["a"], EDGES), TypeError, "x: <U1 is none of float32, float64"),
        (lambda: kernels.all_reduce([X, [1.0]]), TypeError, "buffer 1: a contiguous NumPy array"),
    ],
)
def test_what_does_not_fit_is_refused(
    call: Callable[[], Any], error: type[Exception], said: str | None
) -> None:
    with pytest.raises(error, match=said):
        call()


@given(st.integers(0, 400), st.integers(1, 70), st.integers(0, 40), st.integers(0, 999))
def test_a_table_of_features(n: int, columns: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, columns)).astype(rng.choice(["f4", "f8"]))
    table[rng.random(table.shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf, 0.0])
    edges = [np.sort(rng.normal(size=rng.integers(0, most + 1))) for _ in range(columns)]
    found = kernels.histogram(table, edges)
    for j in range(columns):
        assert np.array_equal(found[j, : len(edges[j]) + 1], drift.histogram(table[:, j], edges[j]))


@pytest.mark.parametrize("bins", [0, 1, 20, 33, 700])
@pytest.mark.parametrize("columns", [1, 32, 37])
def test_a_table_on_a_device(runtime: Runtime, bins: int, columns: int) -> None:
    from kernels.gpu import histogram

    rng = np.random.default_rng(bins)
    table = rng.normal(size=(1300, columns)).astype(np.float32)
    table[::7] = np.nan
    edges = [np.sort(rng.normal(size=bins)) for _ in range(columns)]
    counts, missing = histogram.histograms_of_rows(runtime, runtime.send(table), edges)
    for j in range(columns):
        assert np.array_equal(counts[j], drift.histogram(table[:, j], edges[j]))
    assert missing.tolist() == [len(table[::7])] * columns
