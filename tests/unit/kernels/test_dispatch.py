"""One call, any device: equal results, and what fails on a device goes on with the processor."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import kernels
from kernels import devices
from kernels.cpu import distances as cpu_distances
from kernels.cpu import histogram as cpu_histogram
from kernels.dispatch import in_chunks
from kernels.gpu import distances, histogram
from kernels.gpu.runtime import DeviceFailed, NoGpu, OutOfMemory, Runtime
from kernels.tuner import probes


def columns(rows: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = [rng.normal(size=rows), rng.integers(0, 4, rows).astype(float), rng.lognormal(size=rows)]
    for x in made:
        x[rng.random(rows) < 0.05] = np.nan
        x[rng.random(rows) < 0.01] = np.inf
        x[rng.random(rows) < 0.01] = -np.inf
    return made


EDGES = [np.linspace(-1, 1, 19), np.array([1.0, 2.0, 3.0]), np.array([])]


@pytest.mark.parametrize(("rows", "slots"), [(0, 1), (1, 1), (5000, 1), (5000, 3), (700, 900)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_are_those_of_the_compiled_loop(
    runtime: Runtime, rows: int, slots: int, dtype: type
) -> None:
    slot = np.random.default_rng(rows).integers(-1, slots, rows).astype(np.int32)
    x = [column.astype(dtype) for column in columns(rows, seed=slots)]
    for mine, theirs in zip(
        histogram.histograms(runtime, x, EDGES, slot, slots),
        cpu_histogram.histograms([c.astype(np.float64) for c in x], EDGES, slot, slots),
        strict=True,
    ):
        assert np.array_equal(mine, theirs)


def test_edges_between_two_float32_part_them_as_float64_does(runtime: Runtime) -> None:
    x = np.array([0.1, np.nextafter(np.float32(0.1), np.float32(1)), 1e-45, np.inf, -3e38], "f4")
    edges = np.array([-1e300, 0.0, 1e-50, 0.1, 0.10000000149011612, 1e300])
    counts, _ = histogram.histograms(runtime, [x], [edges], None)
    assert counts[0, 0].tolist() == kernels.reference.histogram(x, edges).tolist()


def test_distances_round_to_those_of_the_reference(runtime: Runtime) -> None:
    rng = np.random.default_rng(1)
    p, q = rng.integers(0, 300, (600, 21)), rng.integers(0, 300, (600, 21))
    p[:50] = 3 * q[:50]
    p[50:60] = 0
    sizes = rng.integers(1, 22, 600)
    mine = cpu_distances.settled(distances.distances(runtime, p, q, sizes), p, q, sizes)
    theirs = cpu_distances.distances(p, q, sizes)
    for name in ("psi", "ks", "js"):
        assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name


def test_the_one_call_goes_to_the_device_and_gives_the_same(in_use: kernels.Device) -> None:
    x, slot = columns(3000, seed=5), np.zeros(3000, np.int32)
    before = kernels.used().get("histogram", {})
    counts, missing = kernels.histograms(x, EDGES, slot, 1)
    there = summed(x[0])
    assert np.array_equal(there.counts - 7, counts[:, 0])
    assert there.missing[0] == missing[0, 0] > 0
    kernels.use(None)
    here = summed(x[0])
    for name in ("counts", "missing", "sums", "ranges"):
        assert getattr(there, name).tobytes() == getattr(here, name).tobytes(), name
    for mine, theirs in zip((counts, missing), kernels.histograms(x, EDGES, slot, 1), strict=True):
        assert np.array_equal(mine, theirs)
    after = kernels.used()["histogram"]
    assert after["emulator"] - before.get("emulator", 0) == 2
    assert after["cpu"] - before.get("cpu", 0) == 2


def summed(x: np.ndarray) -> kernels.Column:
    """Histogram and moments of a column, from counts of 7 on."""
    counts, missing = np.full((1, 20), 7), np.zeros(1, np.int64)
    moments = np.zeros((1, 4), np.int64), kernels.no_ranges(1)
    column = kernels.Column(x, EDGES[0], 0.0, 1.0, counts, missing, *moments)
    kernels.accumulate([column], np.arange(len(x)), np.array([len(x)]))
    return column


def test_small_calls_stay_here(emulator: Runtime) -> None:
    kernels.use(kernels.Device(emulator, "emulator", {"histogram": 100}))
    before = kernels.used().get("histogram", {}).get("emulator", 0)
    for rows in (99, 100):
        kernels.histograms([np.zeros(rows)], [np.array([1.0])], np.zeros(rows, np.int32), 1)
    kernels.use(None)
    assert kernels.used()["histogram"]["emulator"] == before + 1


def test_a_slot_beyond_the_last_is_refused_before_the_device_writes_there(
    in_use: kernels.Device,
) -> None:
    with pytest.raises(IndexError, match="slot 1 of 1"):
        kernels.histograms([np.zeros(3)], [np.array([1.0])], np.array([0, 1, 0], np.int32), 1)


def test_a_device_that_fails_is_given_up_with_one_line(
    in_use: kernels.Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise DeviceFailed("unspecified launch failure")

    monkeypatch.setattr(in_use.runtime, "kernel", failing)
    x, slot = columns(100, seed=2), np.zeros(100, np.int32)
    for _ in range(2):
        counts, _ = kernels.histograms(x, EDGES, slot, 1)
        assert np.array_equal(counts, cpu_histogram.histograms(x, EDGES, slot, 1)[0])
    (record,) = caplog.records
    assert record.message.endswith("going on with the processor: unspecified launch failure")
    assert kernels.in_use() is None


def test_too_many_bins_for_the_shared_memory_are_left_to_the_processor_and_said_once(
    in_use: kernels.Device, caplog: pytest.LogCaptureFixture
) -> None:
    edges = np.arange(30000.0)
    x, slot = np.linspace(-1, 30001, 500), np.zeros(500, np.int32)
    for _ in range(2):
        counts, _ = kernels.histograms([x], [edges], slot, 1)
        assert counts.sum() == 500 == kernels.histogram(np.stack([x, x], 1), [edges] * 2)[1].sum()
    assert kernels.in_use() is in_use
    (record,) = caplog.records
    assert "30001 bins do not fit into shared memory" in record.message


@pytest.mark.parametrize("room", [1, 3, 7, 100])
def test_what_does_not_fit_is_done_in_chunks(room: int) -> None:
    done: list[int] = []

    def work(start: int, stop: int) -> None:
        if stop - start > room:
            raise OutOfMemory("too much")
        done.extend(range(start, stop))

    in_chunks(20, work)
    assert done == list(range(20))


def test_what_does_not_fit_in_the_smallest_chunk_is_said() -> None:
    def work(start: int, stop: int) -> None:
        raise OutOfMemory("too much")

    with pytest.raises(OutOfMemory):
        in_chunks(20, work, least=4)


def test_without_pycuda_auto_means_the_processor_and_cuda_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    assert devices.chosen("auto") is None and devices.chosen("cpu") is None
    with pytest.raises(NoGpu, match="PyCUDA is not installed"):
        devices.chosen("cuda")
    with pytest.raises(ValueError, match="DRIFTLOG_DEVICE='gpu': one of auto, cpu, cuda, emulator"):
        devices.chosen("gpu")


def test_the_emulator_takes_every_call(emulator: Runtime) -> None:
    assert shutil.which("g++")
    device = devices.chosen("emulator")
    assert device is not None and device.wants("histogram", 1) and not device.wants("histogram", 0)


def test_a_kernel_is_tried_once_and_used_from_the_size_on_at_which_it_was_faster(
    emulator: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "is_faster", lambda probe, _, size: size >= 1 << 18)
    asked: list[str] = []

    def find_out(kernel: str) -> float | None:
        asked.append(kernel)
        return probes.faster_from(emulator, kernel)

    device = kernels.Device(emulator, "emulator", find_out=find_out, tried_from=1000)
    assert not device.wants("scan", 999) and asked == []
    assert not device.wants("scan", 1 << 17) and device.wants("scan", 1 << 18)
    assert not device.wants("without a probe", 1 << 19) and device.wants("without a probe", 1 << 20)
    assert asked == ["scan", "without a probe"]
    monkeypatch.setattr(probes, "is_faster", lambda *_: False)
    assert probes.faster_from(emulator, "add") == float("inf")


def test_a_kernel_that_cannot_be_tried_stays_on_the_processor(
    emulator: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    def find_out(kernel: str) -> float:
        raise DeviceFailed("nvcc is not there")

    kernels.use(kernels.Device(emulator, "emulator", find_out=find_out))
    try:
        for _ in range(2):
            assert kernels.scan(np.arange(4)).tolist() == [0, 1, 3, 6]
    finally:
        kernels.use(None)
    (record,) = caplog.records
    assert "nvcc is not there" in record.message


@pytest.mark.parametrize("kernel", probes.PROBES)
def test_a_probe_does_the_same_on_both(emulator: Runtime, kernel: str) -> None:
    device, processor = (work() for work in probes.PROBES[kernel](emulator, 1 << 12))
    if kernel == "distances":  # not rounded, beside rounded
        device, processor = device[0], processor.psi
    pairs = (
        zip(device, processor, strict=True) if isinstance(device, tuple) else [(device, processor)]
    )
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_more_columns_than_a_launch_takes_are_left_to_the_processor(
    in_use: kernels.Device,
) -> None:
    x = list(np.zeros((70_000, 1)))
    counts, _ = kernels.histograms(x, [np.array([])] * len(x), np.zeros(1, np.int32), 1)
    assert counts.sum() == 70_000 and kernels.in_use() is in_use
