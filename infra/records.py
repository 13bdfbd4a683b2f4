"""What runs, written down: one small file a service, so that all can see it and no stranger is killed.

A process id alone names nobody (the kernel gives it away again), so a record holds the process's
creation time beside it, and `alive` compares both.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infra.files import write_whole
from infra.settings import Settings

SUPERVISOR = "supervisor"
OWNER_VARIABLE = "DRIFTLOG_SUPERVISED_HOME"
"""Set in each service's environment: finds a child whose supervisor died before it wrote a record."""
_SAME_START_S = 2.0
"""psutil derives a creation time from the clock, which may be set a little between two looks."""


@dataclass(frozen=True, slots=True)
class Record:
    """One started process; times are seconds since the epoch."""

    name: str
    pid: int
    create_time: float
    argv: tuple[str, ...]
    ports: tuple[int, ...]
    started_at: float
    restarts: int
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """A service is down or frozen on purpose, until `until` (seconds since the epoch) or for good."""

    kind: str
    until: float | None = None

    def over(self, now: float) -> bool:
        """True once it has ended by itself."""
        return self.until is not None and now >= self.until


def run_folder(settings: Settings) -> Path:
    return settings.home / "run"


def create_time(pid: int) -> float | None:
    """When this process began, seconds since the epoch; None if there is none (a zombie counts as none).

    A killed process is a zombie as soon as its first thread is, and holds its ports and files until its
    last one is gone: till then it counts as alive.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1:
            return None
        return process.create_time()
    except psutil.NoSuchProcess:
        return None


def alive(record: Record) -> bool:
    """True if the very process of the record lives; another one with the same id does not count."""
    began = create_time(record.pid) if record.pid > 0 else None
    return began is not None and abs(began - record.create_time) < _SAME_START_S


def write_record(settings: Settings, record: Record) -> None:
    _write(run_folder(settings) / f"{record.name}.json", dataclasses.asdict(record))


def read_record(settings: Settings, name: str) -> Record | None:
    """The record of a service, or None if there is none (or it is not one of ours)."""
    entries = _read(run_folder(settings) / f"{name}.json")
    if entries is None:
        return None
    try:
        return Record(
            **entries | {"argv": tuple(entries["argv"]), "ports": tuple(entries["ports"])}
        )
    except (KeyError, TypeError):
        return None


def records(settings: Settings) -> Iterator[Record]:
    """All records, by name; the supervisor's own is among them."""
    for path in sorted(run_folder(settings).glob("*.json")):
        record = read_record(settings, path.stem)
        if record is not None:
            yield record


def remove_record(settings: Settings, name: str) -> None:
    (run_folder(settings) / f"{name}.json").unlink(missing_ok=True)


def write_hold(settings: Settings, name: str, hold: Hold) -> None:
    _write(run_folder(settings) / f"{name}.hold", dataclasses.asdict(hold))


def read_hold(settings: Settings, name: str) -> Hold | None:
    """Why a service is not to run, None if it may; a file that is no hold holds nothing."""
    entries = _read(run_folder(settings) / f"{name}.hold")
    try:
        return None if entries is None else Hold(str(entries["kind"]), _moment(entries["until"]))
    except (KeyError, TypeError, ValueError):
        return None


def remove_hold(settings: Settings, name: str) -> None:
    (run_folder(settings) / f"{name}.hold").unlink(missing_ok=True)


def strays(settings: Settings) -> list[psutil.Process]:
    """Living processes that carry this instance's mark, recorded or not (the caller is never among them)."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(OWNER_VARIABLE)
            if mark == str(settings.home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # gone meanwhile, or another user's
    return [process for process in found if process.pid != os.getpid()]


def _moment(value: Any) -> float | None:
    return None if value is None else float(value)


def _write(path: Path, entries: object) -> None:
    write_whole(path, json.dumps(entries))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # not there, or not what `_write` writes
        return None
    return entries if isinstance(entries, dict) else None
