"""The supervisor: starts services in order, keeps them alive, stops them in reverse order.

One thread looks at each service twenty times a second; only readiness and health checks run elsewhere.
What it knows it writes to the records, so that other processes can follow it. If it is killed itself, its
services run on, and the next supervisor stops them before it starts anew.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import Popen

from infra import processes, records
from infra.errors import InfraError
from infra.ports import check_free
from infra.processes import Service
from infra.records import Record
from infra.settings import Settings

TICK_S = 0.05
READY_CHECK_S = 0.1
HEALTH_CHECK_S = 2.0
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0
STEADY_S = 30.0
"""A service that was ready for so long has recovered: its next failure begins at the first delay again."""

Report = Callable[[str, str, str], None]
"""Called with (service, state, detail) at each change of state."""


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


class Watched:
    """One service and where it stands."""

    def __init__(
        self, settings: Settings, service: Service, pool: ThreadPoolExecutor, report: Report
    ) -> None:
        self.service = service
        self.was_ready = False
        self.record = Record(service.name, 0, 0.0, service.argv, service.ports, 0.0, 0, "waiting")
        self._settings = settings
        self._pool = pool
        self._report = report
        self._process: Popen[bytes] | None = None
        self._check: Future[bool] | None = None
        self._next_check = 0.0
        self._starts = 0
        self._failures = 0
        self._start_at = 0.0
        self._good_since = 0.0
        self._kill_at: float | None = None
        records.write_record(settings, self.record)

    def announce(self, state: str, detail: str = "") -> None:
        """Write down and report a state, if it is another one."""
        if (state, detail) == (self.record.state, self.record.detail):
            return
        self.record = dataclasses.replace(self.record, state=state, detail=detail)
        records.write_record(self._settings, self.record)
        self._report(self.service.name, state, detail)

    def step(self, dependencies: Sequence[bool]) -> None:
        """Look once: start it, see it end, check it, or leave it alone."""
        now = time.monotonic()
        held = self._held()
        if self._process is None:
            if held:
                self.announce("held", "stopped on purpose")
            elif now >= self._start_at and (self._starts > 0 or all(dependencies)):
                self._start(now)
            return
        code = processes.reap(self._process)
        if code is not None:
            self._ended(code, now)
        elif held:
            self.announce("paused", "frozen on purpose")
            self._good_since = now
        else:
            self._look(now)

    def finish(self) -> None:
        """Collect the exit status of a service that was told to stop."""
        if self._process is not None:
            self._process.wait()
            self._process = None
        self.announce("stopped")

    def _held(self) -> bool:
        hold = records.read_hold(self._settings, self.service.name)
        if hold is None:
            return False
        if hold.until is None or time.time() < hold.until:
            return True
        records.remove_hold(self._settings, self.service.name)
        processes.signal_group(self.record, signal.SIGCONT)
        self._start_at = 0.0
        return False

    def _start(self, now: float) -> None:
        self._starts += 1
        self._good_since, self._kill_at, self._check = now, None, None
        try:
            self._process, self.record = processes.start(
                self._settings, self.service, self._starts - 1
            )
        except OSError as error:
            self._retry_later(now, f"cannot start {self.service.argv[0]}: {error.strerror}")
            return
        records.write_record(self._settings, self.record)
        self._report(self.service.name, "starting", f"pid {self.record.pid}")

    def _ended(self, code: int, now: float) -> None:
        self._process = None
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        if not self.service.restart:
            self._start_at = float("inf")
            self.announce("exited", ended)
        elif records.read_hold(self._settings, self.service.name) is not None:
            self._start_at = 0.0
            self.announce("held", "stopped on purpose")
        else:
            self._retry_later(now, ended)

    def _retry_later(self, now: float, reason: str) -> None:
        if self.record.state == "ready" and now - self._good_since > STEADY_S:
            self._failures = 0
        delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._start_at = now + delay
        self.announce("backoff", f"{reason}; starts again in {delay:g} s")

    def _look(self, now: float) -> None:
        if self._kill_at is not None:
            if now >= self._kill_at:
                processes.signal_group(self.record, signal.SIGKILL)
            return
        ready = self.record.state == "ready"
        question = self.service.healthy if ready or self._was_unhealthy() else self.service.ready
        if question is None:
            return
        answer = self._ask(question, now, HEALTH_CHECK_S if ready else READY_CHECK_S)
        if answer:
            if not ready:
                self.was_ready = True
                self.announce("ready")
            self._good_since = now if not ready or self.service.healthy else self._good_since
        elif answer is False and ready:
            self.announce("unhealthy")
            self._good_since = now
        limit = (
            self.service.unhealthy_after_s
            if self._was_unhealthy()
            else self.service.ready_timeout_s
        )
        if self.record.state != "ready" and now - self._good_since > limit:
            self._kill_at = now + self.service.stop_timeout_s
            self.announce("stopping", f"not ready for {limit:g} s")
            processes.signal_group(self.record, signal.SIGTERM)

    def _was_unhealthy(self) -> bool:
        return self.record.state == "unhealthy"

    def _ask(self, question: processes.Check, now: float, every_s: float) -> bool | None:
        """The answer of a check that ran meanwhile; None while there is none yet."""
        if self._check is None:
            if now >= self._next_check:
                self._check = self._pool.submit(question)
            return None
        if not self._check.done():
            return None
        answer = self._check.exception() is None and self._check.result()
        self._check, self._next_check = None, now + every_s
        return answer


@contextmanager
def sole_supervisor(settings: Settings) -> Iterator[None]:
    """Hold the home folder's lock, which the kernel takes back however this process ends."""
    folder = records.run_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyUp(f"driftlog is already up in {settings.home}") from None
        yield


def clear_leftovers(settings: Settings) -> None:
    """Stop what an earlier supervisor left running, and forget its records and holds."""
    left = [record for record in records.records(settings) if record.name != records.SUPERVISOR]
    processes.stop_all(left, grace_s=10.0)
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
