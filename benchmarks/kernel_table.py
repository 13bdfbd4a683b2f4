"""The table of all kernels: who takes how long, with equal results; the roofline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.harness import Goal
from benchmarks.kernel_cases import CASES, Case, Maker
from benchmarks.kernel_cases.case import Measured, Work, result
from kernels.dispatch import Device
from kernels.gpu.runtime import Runtime
from kernels.tuner.roofline import Point, Roof

SIZES = {"quick": 1 << 18, "cpu": 1 << 24, "cuda": 1 << 27, "emulator": 1 << 13}
"""Elements of a case: beyond every cache, but for the emulator, whose times say nothing."""
RUNS = 7
LAUNCHES = 10
"""In a row between two events of a device: the time of one launch hides behind the one before."""
CORES_PER_MULTIPROCESSOR = 128
"""Of compute capability 8.6 to 9.0, each one fused multiply-add a cycle."""


@dataclass(frozen=True)
class Row:
    """A contender in the table; `seconds` is None if only its result was looked at."""

    case: Case
    where: str
    name: str
    seconds: float | None

    @property
    def cells(self) -> list[str]:
        """As text: values per second, bytes per second."""
        if self.seconds is None:
            return [self.case.name, self.case.shape, self.where, self.name, "equal", ""]
        return [
            *(self.case.name, self.case.shape, self.where, self.name),
            f"{self.case.values / self.seconds / 1e6:,.0f} M",
            f"{self.case.bytes / self.seconds / 1e9:,.1f}",
        ]


HEADER = ["kernel", "shape", "on", "by", "values/s", "GB/s"]


def on_processor(n: int, makers: Sequence[Maker] = CASES) -> list[Row]:
    """Every case and its peers here, on one core, in turn; asserts that the results are equal."""
    rows = []
    with threadpool_limits(1):
        for make in makers:
            case = make(n)
            expected = result(case.cpu())
            for name, peer in case.peers.items():
                assert case.same(result(peer()), expected), f"{case.name}: {name} differs"
            contenders = {"kernels": case.cpu, **case.peers}
            for name, seconds in best_in_turn(contenders).items():
                rows.append(Row(case, "cpu", name, seconds))
    return rows


def on_device(
    device: Device, n: int, makers: Sequence[Maker] = CASES
) -> tuple[list[Row], list[Goal], Roof]:
    """Every case on a device; the emulator only shows that its results are equal."""
    rows, goals = [], []
    roof = device_roof(device)
    for make in makers:
        case = make(n)
        expected = result(case.cpu())
        works = _prepared(case.device, device.runtime)
        if device.kind == "cuda":
            works |= _prepared(case.device_peers)
        for name, work in works.items():
            if name in case.device:
                assert case.same(result(work()), expected), f"{case.name}: {name} differs"
        if device.kind != "cuda":
            rows += [Row(case, device.kind, name, None) for name in works]
            continue
        seconds = {name: _timed(device.runtime, work) for name, work in works.items()}
        rows += [Row(case, "cuda", name, s) for name, s in seconds.items()]
        mine = best_in_turn({"cpu": case.cpu, "numpy": next(iter(case.peers.values()))}, runs=1)
        measured = Measured(seconds, mine["cpu"], mine["numpy"], case.bytes, roof.bandwidth)
        goals += list(_judged(case, measured))
    return rows, goals, roof


def points(rows: list[Row], where: str) -> list[Point]:
    """The kernels in use, for the roofline."""
    return [
        Point(row.case.name, row.case.operations, row.case.bytes, row.seconds)
        for row in rows
        if row.where == where and row.seconds and row.name in ("kernels", row.case.kernel)
    ]


def processor_roof() -> Roof:
    """One core's copy bandwidth and its best at multiplying float32 matrices, measured."""
    source, target = np.ones(1 << 25, np.float32), np.empty(1 << 25, np.float32)
    a = np.ones((1024, 1024), np.float32)
    with threadpool_limits(1):
        best = best_in_turn({"copy": lambda: np.copyto(target, source), "gemm": lambda: a @ a})
    bandwidth, peak = 2 * source.nbytes / best["copy"], 2 * 1024**3 / best["gemm"]
    how = "roof of one core, its copy and its float32 matrix product measured in the same run"
    return Roof("this processor", bandwidth, peak, how)


def device_roof(device: Device) -> Roof:
    """Of a GPU its copy, measured, and its float32 arithmetic by cores and clock; else nothing."""
    properties = device.runtime.properties
    if device.kind != "cuda":
        return Roof(device.name, 1.0, 1.0, "not measured")
    size = 1 << 30
    source, target = device.runtime.zeros(size, np.uint8), device.runtime.empty(size, np.uint8)
    seconds = _timed(device.runtime, lambda: device.runtime.copy(source, target))
    peak = 2 * CORES_PER_MULTIPROCESSOR * properties.multiprocessors * properties.clock_hz
    return Roof(
        properties.name, 2 * size / seconds, peak, "copy measured, float32 by cores and clock"
    )


def best_in_turn(works: dict[str, Work], runs: int = RUNS) -> dict[str, float]:
    """The best CPU seconds of each, in turn: what disturbs one disturbs the others."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(runs):
        for name, work in works.items():
            begin = time.thread_time()
            work()
            best[name] = min(best[name], time.thread_time() - begin)
    return best


def _timed(runtime: Runtime, work: Callable[[], Any]) -> float:
    work()
    runtime.synchronize()

    def often() -> None:
        for _ in range(LAUNCHES):
            work()

    return min(runtime.timed(often) for _ in range(RUNS)) / LAUNCHES


def _prepared(makers: Mapping[str, Callable[..., Work]], *arguments: Runtime) -> dict[str, Work]:
    """Those whose libraries, or instructions, are there."""
    found = {}
    for name, prepare in makers.items():
        try:
            found[name] = prepare(*arguments)
        except ImportError:
            continue
    return found


def _judged(case: Case, measured: Measured) -> list[Goal]:
    goals = []
    for goal in case.goals:
        try:
            figure = goal.figure(measured)
        except (KeyError, ValueError):
            continue  # the peer is not installed: nothing is said
        goals.append(Goal(goal.words, f"{figure:.2f} of {goal.at_least}", figure >= goal.at_least))
    return goals
