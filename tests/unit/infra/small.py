"""Small real services, and a supervisor for them in a thread."""

from __future__ import annotations

import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra import records
from infra.processes import Service
from infra.records import Record
from infra.settings import HOST, Settings
from infra.supervisor import Supervisor

SLEEP = shutil.which("sleep") or "sleep"


def sleeper(name: str = "sleeper", **more: object) -> Service:
    """A service that is ready at once and does nothing for long."""
    return Service(name=name, argv=(SLEEP, "600"), ready=lambda: True, **more)  # type: ignore[arg-type]


def python(name: str, code: str, **more: object) -> Service:
    """A service that runs these lines of Python."""
    ready: Callable[[], bool] = more.pop("ready", lambda: True)  # type: ignore[assignment]
    return Service(name=name, argv=(sys.executable, "-c", code), ready=ready, **more)  # type: ignore[arg-type]


def settings_in(folder: Path) -> Settings:
    return Settings(home=folder, cache=folder / "cache")


@contextmanager
def supervised(settings: Settings, services: Sequence[Service]) -> Iterator[list[tuple[str, str]]]:
    """Run them until the block ends; yields the states that were reported so far, as (service, state)."""
    reported: list[tuple[str, str]] = []
    stop = threading.Event()
    supervisor = Supervisor(
        settings, services, lambda name, state, _: reported.append((name, state))
    )
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        yield reported
    finally:
        stop.set()
        thread.join(30)


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    waiting, deadline = threading.Event(), time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {timeout_s:g} s"
        waiting.wait(0.02)


def record_of(settings: Settings, name: str = "sleeper") -> Record:
    record = records.read_record(settings, name)
    assert record is not None
    return record


def state_of(settings: Settings, name: str = "sleeper") -> str:
    record = records.read_record(settings, name)
    return "" if record is None else record.state


@contextmanager
def taken_port() -> Iterator[int]:
    """A port of loopback that this very process listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]
