"""Real clusters for tests: each has a home of its own and ports that were free when it started."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from driftlog.services import service_table
from infra import records
from infra.errors import InfraError
from infra.ports import PortTaken, is_free
from infra.processes import Service
from infra.settings import BROKER_PORTS, CONTROLLER_PORTS, Settings
from infra.supervisor import Supervisor

BROKERS = ("broker-1", "broker-2", "broker-3")
CLUSTER = (*BROKERS, "redis", "registry")

_OTHER_PORTS = (16379, *range(18000, 18008), *range(18100, 18104), 18080, 18081, 18123)
_BASE_PORTS = (*BROKER_PORTS, *CONTROLLER_PORTS, *_OTHER_PORTS)
_ATTEMPTS = 200


def fresh_settings(home: Path, attempt: int = 0) -> Settings:
    """Settings with this home, the usual cache, and a port offset at which every port is free now."""
    cache = Path(os.environ.get("DRIFTLOG_CACHE") or "~/.cache/driftlog")
    first = os.getpid() + 17 * attempt  # two test runs on one machine begin their search apart
    for step in range(_ATTEMPTS):
        offset = 1_000 + (first + 37 * step) % 900
        made = Settings(home=home, port_offset=offset, cache=cache.expanduser())
        if all(is_free(made.port(base)) for base in _BASE_PORTS):
            return made
    raise InfraError("no free range of ports for a test cluster")


def chosen(settings: Settings, names: Sequence[str]) -> list[Service]:
    """The services of these names as `driftlog up` would start them, without any task."""
    return [service for service in service_table(settings, []) if service.name in names]


@contextmanager
def running(home: Path, names: Sequence[str]) -> Iterator[Settings]:
    """A supervisor in a thread with these services, all ready; stopped, by process id, on leaving."""
    for attempt in range(3):
        try:
            settings, end = _begin(home, names, attempt)
        except PortTaken:
            continue  # by another test run, between the look and the start
        try:
            yield settings
        finally:
            end()
        return
    raise InfraError("other processes took the ports of three test clusters in a row")


def _begin(home: Path, names: Sequence[str], attempt: int) -> tuple[Settings, Callable[[], None]]:
    settings = fresh_settings(home, attempt)
    stop = threading.Event()
    ended: list[InfraError] = []
    arguments = (settings, chosen(settings, names), stop, ended)
    thread = threading.Thread(target=_supervise, args=arguments)
    thread.start()

    def end() -> None:
        stop.set()
        thread.join(60)

    try:
        eventually(lambda: bool(ended) or ready(settings, names), 120)
    except BaseException:
        end()
        raise
    if ended:
        raise ended[0]
    return settings, end


def _supervise(
    settings: Settings,
    services: Sequence[Service],
    stop: threading.Event,
    ended: list[InfraError],
) -> None:
    try:
        Supervisor(settings, services, lambda *_: None).run(stop)
    except InfraError as error:
        ended.append(error)


def ready(settings: Settings, names: Sequence[str]) -> bool:
    """True while all services of these names are ready."""
    found = (records.read_record(settings, name) for name in names)
    return all(record is not None and record.state == "ready" for record in found)


def pid_of(settings: Settings, name: str) -> int:
    """The process id of a running service."""
    record = records.read_record(settings, name)
    assert record is not None and records.alive(record), f"{name} does not run"
    return record.pid


def eventually(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for a condition; fails the test if it does not come true."""
    waiting = threading.Event()
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"it did not happen within {timeout_s:g} s")
        waiting.wait(0.05)
