"""Opening a device by its name in the settings, `DRIFTLOG_DEVICE`, and finding out what it is good for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.settings import DEVICES
from kernels.calls.cosine_index import CosineIndex
from kernels.calls.models import Tree, ensemble, on_device
from kernels.cpu import distances as cpu_distances
from kernels.cpu import histogram as cpu_histogram
from kernels.cpu import models as cpu_models
from kernels.cpu import retrieval as cpu_retrieval
from kernels.dispatch import Device
from kernels.gpu import distances, histogram, topk
from kernels.gpu.emulator import Emulator, cache_folder
from kernels.gpu.pycuda import PyCuda
from kernels.gpu.runtime import DeviceFailed, NoGpu, Runtime
from kernels.tuner.search import Cache
from kernels.tuner.tunables import TUNABLES

SIZES = tuple(1 << power for power in range(14, 23, 2))
"""Batches that are tried to find out from where on the device is faster."""

Probe = Callable[[Runtime, int], tuple[Callable[[], object], Callable[[], object]]]
"""For a size, a call of the device and the same of the processor."""


def chosen(choice: str) -> Device | None:
    """The device for a setting: None for 'cpu', and for 'auto' where there is no GPU.

    Raises NoGpu for 'cuda' without one and for 'emulator' without g++, ValueError for an unknown choice.
    Opening a GPU takes seconds: kernels are compiled, and it is measured against the processor.
    """
    if choice not in DEVICES:
        raise ValueError(f"DRIFTLOG_DEVICE={choice!r}: one of {', '.join(DEVICES)}")
    if choice == "cpu":
        return None
    if choice == "emulator":
        return Device(Emulator(), "emulator", otherwise=1)
    try:
        runtime = PyCuda()
        Cache(tuned_file()).load(runtime, TUNABLES)
        return Device(runtime, "cuda", faster_from(runtime))
    except (NoGpu, DeviceFailed):
        if choice == "cuda":
            raise
        return None


def tuned_file() -> Path:
    """Where launch parameters that were found on this machine are kept."""
    return cache_folder() / "tuned.json"


def faster_from(runtime: Runtime) -> dict[str, float]:
    """For each kernel with a probe the first size at which the device beats the processor; inf: none."""
    found = {}
    for kernel, probe in PROBES.items():
        sizes = (size for size in SIZES if _is_faster(probe, runtime, size))
        found[kernel] = float(next(sizes, float("inf")))
    return found


def _is_faster(probe: Probe, runtime: Runtime, size: int) -> bool:
    device, processor = probe(runtime, size)
    return _seconds(device) < _seconds(processor)


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of three runs, after one that compiles and warms up."""
    work()
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _histogram(runtime: Runtime, values: int) -> tuple[Callable[[], object], Callable[[], object]]:
    x = list(np.linspace(-1.0, 1.0, values).reshape(8, -1))
    edges = [np.linspace(-0.9, 0.9, 19)] * len(x)
    slot = np.zeros(len(x[0]), np.int32)
    return (
        lambda: histogram.histograms(runtime, x, edges, slot, 1),
        lambda: cpu_histogram.histograms(x, edges, slot, 1),
    )


def _distances(runtime: Runtime, values: int) -> tuple[Callable[[], object], Callable[[], object]]:
    p = np.tile(np.arange(1, 22), (-(-values // 21), 1))
    arguments = p, p[:, ::-1].copy(), np.full(len(p), 21)
    return (
        lambda: distances.distances(runtime, *arguments),
        lambda: cpu_distances.distances(*arguments),
    )


def _topk(runtime: Runtime, values: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """One query; the device has its copy of the index, as after the first search."""
    index = CosineIndex(_noise(max(64, values // 384), 384))
    query, inverse = index.vectors[:1], index.inverse.astype(np.float32)
    vectors, scales = index.sent(runtime)
    return (
        lambda: topk.candidates(runtime, vectors, scales, runtime.send(query), 32),
        lambda: cpu_retrieval.candidates(index.vectors, inverse, query, 32),
    )


def _trees(runtime: Runtime, values: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """100 trees of depth 5, filled, over 16 features."""
    inner = np.arange(31)
    leaves = np.full(32, -1)
    tree = Tree(
        feature=np.concatenate([inner % 16, leaves]),
        threshold=np.zeros(63),
        missing_left=np.zeros(63, np.bool_),
        left=np.concatenate([2 * inner + 1, leaves]),
        right=np.concatenate([2 * inner + 2, leaves]),
        value=np.ones((63, 1), np.float32),
    )
    model, x = ensemble([tree] * 100, [0.0], 16, np.float32), _noise(-(-values // 100), 16)
    return (
        lambda: on_device(runtime, model, x),
        lambda: cpu_models.trees_sum(*model.arrays(), x, base_last=False),
    )


def _noise(rows: int, columns: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32)


PROBES: dict[str, Probe] = {
    "histogram": _histogram,
    "distances": _distances,
    "topk": _topk,
    "trees": _trees,
}
