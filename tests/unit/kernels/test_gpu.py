"""The CUDA sources and their wrapper, run by the processor: equal to the compiled loops in every bit."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import counting, gpu, scores
from kernels.dispatch import DeviceFailed
from kernels.gpu import Gpu, NoGpu
from tests.unit.kernels.cuda_driver import modules

SOURCES = Path(kernels.__file__).parent / "cuda"


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpu]:
    if shutil.which("g++") is None:
        pytest.skip("g++ plays nvcc, and is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules(tmp_path_factory.mktemp("cuda"), SOURCES).items():
            patch.setitem(sys.modules, name, module)
        yield Gpu()


@pytest.fixture
def in_use(device: Gpu) -> Iterator[Gpu]:
    device.least_values = device.least_rows = 1
    kernels.use(device)
    yield device
    kernels.use(None)


def columns(rows: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = [rng.normal(size=rows), rng.integers(0, 4, rows).astype(float), rng.lognormal(size=rows)]
    for x in made:
        x[rng.random(rows) < 0.05] = np.nan
        x[rng.random(rows) < 0.01] = np.inf
        x[rng.random(rows) < 0.01] = -np.inf
    return made


EDGES = [np.linspace(-1, 1, 19), np.array([1.0, 2.0, 3.0]), np.array([])]


@pytest.mark.parametrize(("rows", "slots"), [(1, 1), (5000, 1), (5000, 3), (700, 900)])
def test_counts_are_those_of_the_compiled_loop(device: Gpu, rows: int, slots: int) -> None:
    slot = np.random.default_rng(rows).integers(-1, slots, rows).astype(np.int32)
    x = columns(rows, seed=slots)
    for mine, theirs in zip(
        device.histograms(x, EDGES, slot, slots),
        counting.histograms(x, EDGES, slot, slots),
        strict=True,
    ):
        assert np.array_equal(mine, theirs)


def test_distances_round_to_those_of_the_reference(device: Gpu) -> None:
    rng = np.random.default_rng(1)
    p, q = rng.integers(0, 300, (600, 21)), rng.integers(0, 300, (600, 21))
    p[:50] = 3 * q[:50]
    p[50:60] = 0
    sizes = rng.integers(1, 22, 600)
    mine = scores.settled(device.distances(p, q, sizes), p, q, sizes)
    theirs = scores.distances(p, q, sizes)
    for name in ("psi", "ks", "js"):
        assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name


def test_the_one_call_goes_to_the_device_and_gives_the_same(in_use: Gpu) -> None:
    x, slot = columns(3000, seed=5), np.zeros(3000, np.int32)
    counts, missing = kernels.histograms(x, EDGES, slot, 1)
    single, absent = np.full((1, 20), 7), np.zeros(1, np.int64)
    kernels.accumulate(x[0], EDGES[0], slot, single, absent)
    assert np.array_equal(single - 7, counts[:, 0]) and absent[0] == missing[0, 0] > 0
    kernels.use(None)
    for mine, theirs in zip((counts, missing), kernels.histograms(x, EDGES, slot, 1), strict=True):
        assert np.array_equal(mine, theirs)


def test_a_slot_beyond_the_last_is_refused_before_the_device_writes_there(in_use: Gpu) -> None:
    with pytest.raises(IndexError, match="slot 1 of 1"):
        kernels.histograms([np.zeros(3)], [np.array([1.0])], np.array([0, 1, 0], np.int32), 1)


def test_a_device_that_fails_is_given_up_with_one_line(
    in_use: Gpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise DeviceFailed("out of memory")

    monkeypatch.setattr(in_use, "histograms", failing)
    x, slot = columns(100, seed=2), np.zeros(100, np.int32)
    for _ in range(2):
        counts, _ = kernels.histograms(x, EDGES, slot, 1)
        assert np.array_equal(counts, counting.histograms(x, EDGES, slot, 1)[0])
    (record,) = caplog.records
    assert record.message.endswith("failed, going on with the processor: out of memory")


def test_too_many_bins_for_the_shared_memory_are_left_to_the_processor(in_use: Gpu) -> None:
    edges = [np.arange(9000.0)]
    x, slot = [np.linspace(-1, 9001, 500)], np.zeros(500, np.int32)
    counts, _ = kernels.histograms(x, edges, slot, 1)
    assert counts.sum() == 500


def test_without_pycuda_auto_means_the_processor_and_cuda_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert gpu.chosen("auto") is None and gpu.chosen("cpu") is None
    with pytest.raises(NoGpu, match="PyCUDA is not installed"):
        gpu.chosen("cuda")


def test_the_device_is_used_from_the_size_on_at_which_it_was_faster(
    device: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_counts_faster", lambda size: size >= 1 << 18)
    monkeypatch.setattr(device, "_compares_faster", lambda size: False)
    device.measure()
    assert device.least_values == 1 << 18 and device.least_rows == float("inf")
