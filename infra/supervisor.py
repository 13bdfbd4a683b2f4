"""The supervisor: starts services in order, keeps them alive, stops them in reverse order.

One thread looks at each service twenty times a second; only readiness and health checks run elsewhere.
What it knows it writes to the records, so that other processes can follow it. If it is killed itself, its
services run on, and the next supervisor stops them before it starts anew.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TextIO

from infra import processes, records
from infra.errors import InfraError
from infra.ports import check_free
from infra.processes import Service
from infra.records import Record
from infra.settings import Settings
from infra.watched import Report, Watched

TICK_S = 0.05
LEFTOVER_GRACE_S = 5.0
LOCK_PATIENCE_S = 0.5
"""Whoever asks `is_up` holds the lock for an instant; a supervisor holds it for its life."""


class AlreadyUp(InfraError):
    """Another supervisor serves this home folder."""


def run_foreground(
    settings: Settings, services: Sequence[Service], report: Report | None = None
) -> None:
    """Run the services until SIGTERM or SIGINT, then stop them all.

    Raises AlreadyUp, PortTaken, or InfraError for services that depend on what is not there.
    """
    asked = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        Supervisor(settings, services, report or print_report).run(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_report(name: str, state: str, detail: str) -> None:
    """One line a change of state, on standard error."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    print(f"{moment} {name} {state} {detail}".rstrip(), file=sys.stderr, flush=True)  # noqa: T201


class Supervisor:
    """Keeps a set of services running; `run` is its whole life."""

    def __init__(self, settings: Settings, services: Sequence[Service], report: Report) -> None:
        self._settings = settings
        self._levels = start_order(services)
        self._report = report

    def run(self, asked_to_stop: threading.Event) -> None:
        """Start everything, watch it, and stop it in reverse order once the event is set."""
        with sole_supervisor(self._settings):
            clear_leftovers(self._settings)
            check_free([port for level in self._levels for item in level for port in item.ports])
            with ThreadPoolExecutor(max_workers=8, thread_name_prefix="check") as pool:
                watched = {
                    service.name: Watched(self._settings, service, pool, self._report)
                    for level in self._levels
                    for service in level
                }
                self._record_self()
                try:
                    while not asked_to_stop.wait(TICK_S):
                        for unit in watched.values():
                            unit.step([watched[name].was_ready for name in unit.service.depends_on])
                finally:
                    self._stop(watched)

    def _stop(self, watched: dict[str, Watched]) -> None:
        for level in reversed(self._levels):
            units = [watched[service.name] for service in level]
            for unit in units:
                unit.announce("stopping")
            grace = max(unit.service.stop_timeout_s for unit in units)
            processes.stop_all([unit.record for unit in units], grace)
            for unit in units:
                unit.finish()
        processes.kill_processes(records.strays(self._settings))
        for unit in watched.values():
            records.remove_record(self._settings, unit.service.name)
        records.remove_record(self._settings, records.SUPERVISOR)

    def _record_self(self) -> None:
        own = Record(
            name=records.SUPERVISOR,
            pid=os.getpid(),
            create_time=records.create_time(os.getpid()) or 0.0,
            argv=tuple(sys.argv),
            ports=(),
            started_at=time.time(),
            restarts=0,
            state="ready",
        )
        records.write_record(self._settings, own)


@contextmanager
def sole_supervisor(settings: Settings) -> Iterator[None]:
    """Hold the home folder's lock, which the kernel takes back however this process ends."""
    folder = records.run_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "supervisor.lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while not _lock(lock):
            if time.monotonic() > deadline:
                raise AlreadyUp(f"driftlog is already up in {settings.home}")
            time.sleep(TICK_S)
        yield


def _lock(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def clear_leftovers(settings: Settings) -> None:
    """Stop what an earlier supervisor left running, and forget its records and holds."""
    left = [record for record in records.records(settings) if record.name != records.SUPERVISOR]
    processes.stop_all(left, LEFTOVER_GRACE_S)
    processes.kill_processes(records.strays(settings))
    folder = records.run_folder(settings)
    for path in [*folder.glob("*.json"), *folder.glob("*.hold")]:
        path.unlink(missing_ok=True)


def start_order(services: Sequence[Service]) -> list[list[Service]]:
    """Services in levels: each depends only on services of earlier levels.

    Raises InfraError for a dependency that is unknown or part of a circle.
    """
    waiting, levels, placed = list(services), list[list[Service]](), set[str]()
    while waiting:
        level = [service for service in waiting if placed.issuperset(service.depends_on)]
        if not level:
            stuck = ", ".join(f"{item.name} needs {', '.join(item.depends_on)}" for item in waiting)
            raise InfraError(f"services that can never start: {stuck}")
        levels.append(level)
        placed |= {service.name for service in level}
        waiting = [service for service in waiting if service.name not in placed]
    return levels
