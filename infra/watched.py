"""One supervised service: when it starts, what its checks say, when it ends and starts again."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from subprocess import Popen

from infra import processes, records
from infra.processes import Service
from infra.records import Record
from infra.settings import Settings

READY_CHECK_S = 0.1
HEALTH_CHECK_S = 2.0
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0
STEADY_S = 30.0
"""A service that was ready for so long has recovered: its next failure begins at the first delay again."""

Report = Callable[[str, str, str], None]
"""Called with (service, state, detail) at each change of state."""


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
        self._write_down()

    def announce(self, state: str, detail: str = "") -> None:
        """Write down and report a state, if it is another one."""
        if (state, detail) == (self.record.state, self.record.detail):
            return
        self.record = dataclasses.replace(self.record, state=state, detail=detail)
        self._write_down()
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

    def _write_down(self) -> None:
        """A full disk must not end the supervisor: then it knows more than it could write down."""
        with suppress(OSError):
            records.write_record(self._settings, self.record)

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
        if not hold.over(time.time()):
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
        self._write_down()
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
