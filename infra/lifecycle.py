"""The system seen from outside its supervisor: bring it up in the background, follow it, take it down."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import psutil

from infra import processes, records
from infra.errors import InfraError
from infra.records import SUPERVISOR, Record
from infra.settings import Settings

_POLL_S = 0.1
_STOP_GRACE_S = 60.0
_LEFTOVER_GRACE_S = 5.0
_TROUBLED_AFTER = 5

Progress = Callable[[str, str], None]
"""Called with (service, state) at each change of state."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service as it stands now; `port` is its first one, `rss_mb` its resident memory in MiB."""

    name: str
    pid: int | None
    state: str
    port: int | None
    uptime_s: float
    restarts: int
    rss_mb: float
    detail: str = ""


def is_up(settings: Settings) -> bool:
    """True while a supervisor serves this home folder."""
    try:
        with (records.run_folder(settings) / "supervisor.lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: askers do not see each other
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def spawn_detached(settings: Settings, argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start `argv` (a command that ends in `run_foreground`) as a daemon that outlives this process.

    It writes to `logs/supervisor.log`. Whoever calls this twice starts nothing twice: the second
    daemon finds the lock taken and ends.
    """
    settings.logs.mkdir(parents=True, exist_ok=True)
    with (settings.logs / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_ready(
    settings: Settings,
    names: Collection[str] = (),
    progress: Progress = lambda name, state: None,
    daemon: subprocess.Popen[bytes] | None = None,
    timeout_s: float = 300.0,
) -> None:
    """Wait until these services (all of them, if none is named) are ready, telling each change of state.

    `daemon` is what `spawn_detached` returned. Raises InfraError if the supervisor ends, a service
    fails again and again, or the time is over; the message names the log to read.
    """
    seen: dict[str, str] = {}
    deadline = time.monotonic() + timeout_s
    while True:
        up = is_up(settings)
        gone = daemon.poll() is not None if daemon is not None else True
        if gone and not up:
            raise InfraError(f"the supervisor ended: {_last_line(settings, SUPERVISOR)}")
        known = _current(settings) if up else {}
        for name, record in known.items():
            if seen.get(name) != record.state:
                seen[name] = record.state
                progress(name, record.state)
            if record.restarts >= _TROUBLED_AFTER and record.state == "backoff":
                raise InfraError(
                    f"{name} does not stay up ({record.detail}): {_last_line(settings, name)}"
                )
        wanted = names or known
        if known and all(name in known and known[name].state == "ready" for name in wanted):
            return
        if time.monotonic() > deadline:
            late = [name for name in wanted if seen.get(name) != "ready"]
            raise InfraError(
                f"not ready after {timeout_s:g} s: {', '.join(late)}; see {settings.logs}"
            )
        time.sleep(_POLL_S)


def restart(settings: Settings, name: str, timeout_s: float = 300.0) -> Record:
    """Stop a service cleanly and wait until its successor is ready, whose record is returned.

    Raises InfraError if it does not run under a supervisor, or its successor does not come up.
    """
    before = _current(settings).get(name)
    if before is None or not records.alive(before):
        raise InfraError(f"{name} does not run in {settings.home}: see `driftlog status`")
    processes.signal_group(before, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        after = _current(settings).get(name)
        if after is not None and after.pid != before.pid and after.state == "ready":
            return after
        if not is_up(settings):
            raise InfraError(f"the supervisor ended: {_last_line(settings, SUPERVISOR)}")
        failed = after.restarts - before.restarts if after is not None else 0
        if after is not None and after.state == "backoff" and failed >= _TROUBLED_AFTER:
            why = f"{after.detail}: {_last_line(settings, name)}"
            raise InfraError(f"{name} does not come up again ({why})")
        time.sleep(_POLL_S)
    raise InfraError(f"{name} is not ready again after {timeout_s:g} s; see {settings.logs}")


def stop(settings: Settings, progress: Progress = lambda name, state: None) -> int:
    """Stop the supervisor and whatever it or an earlier one left running; the number of processes stopped.

    Harmless when nothing runs.
    """
    supervisor = _supervisor(settings)
    living = [record for record in records.records(settings) if records.alive(record)]
    if supervisor is not None:
        progress(SUPERVISOR, "stopping")
        processes.stop_process(supervisor, _STOP_GRACE_S)
    rest = [record for record in records.records(settings) if record.name != SUPERVISOR]
    processes.stop_all(rest, _LEFTOVER_GRACE_S)
    strays = records.strays(settings)
    processes.kill_processes(strays)
    for record in living:
        progress(record.name, "stopped")
    folder = records.run_folder(settings)
    for path in [*folder.glob("*.json"), *folder.glob("*.hold")]:
        path.unlink(missing_ok=True)
    return len({record.pid for record in living} | {process.pid for process in strays})


def status(settings: Settings) -> list[ServiceStatus]:
    """All services that the running (or killed) supervisor has written down, itself first."""
    found = [_status(record) for record in records.records(settings)]
    return sorted(found, key=lambda item: (item.name != SUPERVISOR, item.name))


def _supervisor(settings: Settings) -> Record | None:
    """The living supervisor; one that has only just begun is waited for until it has written its record."""
    while True:
        record = records.read_record(settings, SUPERVISOR)
        if record is not None and records.alive(record):
            return record
        if not is_up(settings):
            return None
        time.sleep(_POLL_S)


def _current(settings: Settings) -> dict[str, Record]:
    """The records of the services, once the supervisor has written its own (before, they may be old)."""
    found = {record.name: record for record in records.records(settings)}
    own = found.pop(SUPERVISOR, None)
    return found if own is not None and records.alive(own) else {}


def _status(record: Record) -> ServiceStatus:
    living, state, rss = records.alive(record), record.state, 0.0
    if living:
        try:
            process = psutil.Process(record.pid)
            rss = process.memory_info().rss / 2**20
            state = "paused" if process.status() == psutil.STATUS_STOPPED else state
        except psutil.Error:
            living = False
    if not living and state in {"ready", "starting", "unhealthy", "paused", "stopping"}:
        state = "down"
    return ServiceStatus(
        name=record.name,
        pid=record.pid if living else None,
        state=state,
        port=record.ports[0] if record.ports else None,
        uptime_s=max(0.0, time.time() - record.started_at) if living else 0.0,
        restarts=record.restarts,
        rss_mb=rss,
        detail=record.detail,
    )


def _last_line(settings: Settings, name: str) -> str:
    path = settings.logs / f"{name}.log"
    try:
        lines = path.read_text("utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return f"{lines[-1]} ({path})" if lines else f"see {path}"
