"""Faults on purpose: kill, pause, partition a service, and bring it back.

| kind      | does                                                             | ends with                |
|-----------|------------------------------------------------------------------|--------------------------|
| kill      | SIGKILL; the supervisor leaves it down                           | restart, or its duration |
| pause     | SIGSTOP to all of it; connections stay open and nothing answers  | resume, or its duration  |
| partition | the same, with an end by default: see below                      | resume, or its duration  |
| resume    | SIGCONT                                                          |                          |
| restart   | SIGTERM if it runs (a clean stop), then it starts anew           |                          |

A partition here is a freeze. All brokers share one loopback address, so no packet filter can tell a
broker's own connections from its neighbours', and one that cuts only its ports would leave it half
connected. For everybody else a frozen broker is what an unplugged one is: silence, no reset. The one
difference is that its own clocks stand still: it finds out that it was replaced when it wakes up.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import Literal, get_args

from infra import processes, records
from infra.errors import InfraError
from infra.lifecycle import is_up
from infra.records import SUPERVISOR, Hold, Record
from infra.settings import Settings

Kind = Literal["kill", "pause", "resume", "restart", "partition"]
KINDS: tuple[str, ...] = get_args(Kind)
PARTITION_S = 15.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done: to which service and process, when, and when it ends by itself.

    Times are seconds since the epoch; `pid` is None where nothing ran; `until` is None where nothing ends it.
    """

    kind: str
    target: str
    pid: int | None
    at: float
    until: float | None = None


def inject(settings: Settings, kind: str, target: str, duration_s: float | None = None) -> Fault:
    """Do `kind` to `target` (a service's name or a port), for `duration_s` seconds or until it is undone.

    Raises InfraError if the system is not up, the kind or the target is unknown, or the target does not
    run and would have to.
    """
    if kind not in KINDS:
        raise InfraError(f"unknown fault {kind!r}: use one of {', '.join(KINDS)}")
    if duration_s is not None and not 0 < duration_s <= 3600:
        raise InfraError(f"a fault cannot last {duration_s:g} s: use up to 3600")
    record = find_target(settings, target)
    if kind in {"kill", "pause", "partition"}:
        return _break(settings, kind, record, duration_s)
    return _mend(settings, kind, record)


def targets(settings: Settings) -> dict[str, Record]:
    """What faults may be injected into, by name."""
    return {item.name: item for item in records.records(settings) if item.name != SUPERVISOR}


def find_target(settings: Settings, target: str) -> Record:
    """The service of this name, or the one that listens on this port; raises InfraError."""
    if not is_up(settings):
        raise InfraError(f"nothing is up in {settings.home}: start it with `driftlog up`")
    known = targets(settings)
    for record in known.values():
        if target == record.name or (target.isdecimal() and int(target) in record.ports):
            return record
    listed = ", ".join(
        f"{name} ({item.ports[0]})" if item.ports else name for name, item in known.items()
    )
    raise InfraError(f"unknown target {target!r}: use one of {listed}")


def _break(settings: Settings, kind: str, record: Record, duration_s: float | None) -> Fault:
    if not records.alive(record):
        raise InfraError(
            f"{record.name} does not run: `driftlog chaos restart {record.name}` starts it"
        )
    now = time.time()
    lasts = PARTITION_S if kind == "partition" and duration_s is None else duration_s
    until = None if lasts is None else now + lasts
    # The hold comes first: the supervisor must know before it can see the effect.
    records.write_hold(settings, record.name, Hold(kind, until))
    number = signal.SIGKILL if kind == "kill" else signal.SIGSTOP
    if not processes.signal_group(record, number):
        records.remove_hold(settings, record.name)
        raise InfraError(f"{record.name} ended by itself just now: see `driftlog status`")
    return Fault(kind, record.name, record.pid, now, until)


def _mend(settings: Settings, kind: str, record: Record) -> Fault:
    running = records.alive(record)
    if kind == "resume" and not running:
        raise InfraError(
            f"{record.name} does not run: `driftlog chaos restart {record.name}` starts it"
        )
    records.remove_hold(settings, record.name)
    if kind == "restart":
        processes.signal_group(record, signal.SIGTERM)
    processes.signal_group(record, signal.SIGCONT)
    return Fault(kind, record.name, record.pid if running else None, time.time())
