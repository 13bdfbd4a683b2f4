"""Services as data, and how one of them is started and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from infra.records import OWNER_VARIABLE, Record, alive, create_time
from infra.settings import Settings

Check = Callable[[], bool]
_LOG_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Service:
    """One long-running process.

    `ready` says whether it does its work yet; dependants start after that. `healthy`, where there is
    one, is asked every few seconds from then on, and a service that says no for `unhealthy_after_s`
    is started anew. Both run in threads, must return within seconds, and raise nothing.
    """

    name: str
    argv: tuple[str, ...]
    ready: Check
    env: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    restart: bool = True
    healthy: Check | None = None
    ready_timeout_s: float = 120.0
    unhealthy_after_s: float = 30.0
    stop_timeout_s: float = 10.0


def start(
    settings: Settings, service: Service, restarts: int
) -> tuple[subprocess.Popen[bytes], Record]:
    """Start the service in a session of its own; its output goes to `logs/<name>.log`.

    Raises OSError when the program cannot be started.
    """
    settings.logs.mkdir(parents=True, exist_ok=True)
    path = settings.logs / f"{service.name}.log"
    if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
        os.replace(path, path.with_suffix(".log.1"))
    environment = os.environ | settings.to_env() | dict(service.env)
    environment[OWNER_VARIABLE] = str(settings.home)
    with path.open("ab") as log:
        process = subprocess.Popen(
            service.argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    record = Record(
        name=service.name,
        pid=process.pid,
        create_time=create_time(process.pid) or 0.0,
        argv=service.argv,
        ports=service.ports,
        started_at=time.time(),
        restarts=restarts,
        state="starting",
    )
    return process, record


def reap(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of a started service, None while it runs; what it left behind in its group is killed.

    The group is signalled while its leader is still a zombie, so its number cannot be another's yet.
    """
    if process.returncode is not None:
        return process.returncode
    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def signal_group(record: Record, number: int) -> bool:
    """Send a signal to the service and all that it started; False if the service is gone."""
    if not alive(record):
        return False
    with suppress(ProcessLookupError):
        os.killpg(record.pid, number)
        return True
    return False


def stop_all(targets: Sequence[Record], grace_s: float) -> None:
    """SIGTERM to each service's group, then SIGKILL to what is left after `grace_s` seconds."""
    living = [record for record in targets if signal_group(record, signal.SIGTERM)]
    for record in living:
        signal_group(record, signal.SIGCONT)  # a frozen process takes no SIGTERM
    _wait_gone(living, grace_s)
    for record in targets:
        if alive(record):
            signal_group(record, signal.SIGKILL)
    _wait_gone(living, 5.0)


def stop_process(record: Record, grace_s: float) -> None:
    """SIGTERM to this one process (not its group), SIGKILL if it still lives after `grace_s` seconds."""
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        if alive(record):
            with suppress(ProcessLookupError):
                os.kill(record.pid, number)
                os.kill(record.pid, signal.SIGCONT)
            _wait_gone([record], patience)


def kill_processes(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to these very processes (psutil compares creation times before it sends)."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def _wait_gone(targets: Sequence[Record], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(alive(record) for record in targets) and time.monotonic() < deadline:
        time.sleep(0.05)
