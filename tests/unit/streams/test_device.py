"""Windows and scores are the same whatever device ran the kernels, and the metric says which did."""

from __future__ import annotations

import multiprocessing
import random
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

import kernels
from infra.errors import InfraError
from infra.settings import Settings
from schemas.event import Event
from streams.device import export_calls, use_device
from streams.scoring import Scoring
from tests.unit.streams.build import TASK, registered
from tests.unit.streams.test_window_partition import by_columns, history, references_of

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the emulator needs g++, which is not installed"
)


@pytest.fixture(autouse=True)
def _leave_the_processor_in_use() -> Iterator[None]:
    yield
    kernels.use(None)


def sketches_and_scores(device: str) -> tuple[list[Event], list[Any]]:
    """What the window function says of a history, and the scoring of that, on a device."""
    use_device(Settings(device=device))
    models = [registered("toy-1"), registered("toy-2")]
    events = history(random.Random(3), 400)
    said, _ = by_columns(events, references_of(*models), random.Random(5), 0.0)
    scoring = Scoring(TASK, 1)
    state, scores = scoring.apply(scoring.initial(), models), []
    for event in said:
        state = scoring.apply(state, [event])
        scores += scoring.react(state, event)
    return said, scores


def ran(device: str) -> dict[str, int]:
    return {kernel: by[device] for kernel, by in kernels.used().items() if device in by}


@needs_compiler
def test_sketches_and_scores_are_equal_on_every_device() -> None:
    before = ran("emulator")
    here = sketches_and_scores("cpu")
    assert ran("emulator") == before, "the processor's run asked the device"
    on_cpu = ran("cpu")
    there = sketches_and_scores("emulator")
    for mine, theirs in zip(here, there, strict=True):
        assert [(e.id, e.data) for e in mine] == [(e.id, e.data) for e in theirs] != []
    for kernel in ("histogram", "distances"):
        assert ran("emulator")[kernel] > before.get(kernel, 0)
        assert ran("cpu")[kernel] == on_cpu[kernel], "the device's run asked the processor"


@needs_compiler
def test_the_metric_says_which_device_ran() -> None:
    registry = CollectorRegistry()
    export_calls(registry)
    sketches_and_scores("emulator")
    text = generate_latest(registry).decode()
    count = kernels.used()["histogram"]["emulator"]
    line = f'driftlog_kernel_calls_total{{device="emulator",kernel="histogram"}} {float(count)}'
    assert line in text.splitlines()


@needs_compiler
def test_the_start_says_which_device_is_in_use() -> None:
    with capture_logs() as logs:
        assert use_device(Settings(device="emulator")) == "emulator (emulator)"
        assert use_device(Settings(device="cpu")) == "cpu"
    assert [(line["device"], line["setting"]) for line in logs] == [
        ("emulator (emulator)", "emulator"),
        ("cpu", "cpu"),
    ]


def test_a_gpu_that_is_asked_for_and_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    with pytest.raises(InfraError, match="DRIFTLOG_DEVICE: PyCUDA is not installed"):
        use_device(Settings(device="cuda"))
    assert use_device(Settings(device="auto")) == "cpu"


@needs_compiler
def test_a_forked_process_works_on_its_processor() -> None:
    use_device(Settings(device="emulator"))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put(kernels.in_use() is None))
    child.start()
    assert queue.get(timeout=30)
    child.join()
