"""The benchmark's cases do the same on the processor, by their peers, on a device; only a GPU is judged."""

from __future__ import annotations

import pytest

from benchmarks import kernel_table
from benchmarks.kernel_cases import CASES, Maker
from benchmarks.kernel_cases.case import Measured, result
from kernels.dispatch import Device
from kernels.gpu.emulator import Emulator
from kernels.gpu.runtime import NoGpu
from kernels.tuner.roofline import Roof


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_peers_agree_with_the_kernel(make: Maker) -> None:
    case = make(3000)
    expected = result(case.cpu())
    for name, peer in case.peers.items():
        assert case.same(result(peer()), expected), name
    assert case.bytes > 0 and case.operations > 0 and case.values > 0


def test_the_emulator_gives_equal_results_and_no_figures() -> None:
    try:
        device = Device(Emulator(), "emulator", otherwise=1)
    except NoGpu as error:
        pytest.skip(str(error))
    rows, goals, _ = kernel_table.on_device(device, 2000)
    assert {row.case.name for row in rows} == {make(100).name for make in CASES}
    assert all(row.seconds is None for row in rows) and goals == []
    assert kernel_table.points(rows, "emulator") == []


def test_a_goal_whose_peer_is_missing_says_nothing() -> None:
    case = next(case for case in (make(100) for make in CASES) if case.name == "histogram, columns")
    measured = Measured({"histogram_all": 0.01}, 1.0, 1.0, case.bytes, 1e12)
    (goal,) = kernel_table._judged(case, measured)
    assert goal.met and goal.figures == "100.00 of 50"


def test_only_the_kernel_in_use_is_under_the_roof() -> None:
    case = next(case for case in (make(100) for make in CASES) if case.name == "reduction")
    rows = [kernel_table.Row(case, "cuda", name, 1e-6) for name in (*case.device, "torch")]
    (point,) = kernel_table.points(rows, "cuda")
    assert point.share(Roof("", case.bytes / 1e-6, 1e30, "")) == pytest.approx(1)
