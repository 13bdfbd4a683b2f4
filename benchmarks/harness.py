"""What the benchmarks share: a cluster, measured child processes, goals, tables and their JSON.

A contender is a child process, with whatever processes it starts itself. It speaks in lines: it prints
`READY` when all is imported, connected and compiled, gets `GO` on its standard input, prints
`RESULT {json}` and lives until it gets `END`, so that what it used can be read. Everything else that it
prints is ignored; its standard error goes to a log file.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from driftlog.services import service_table
from infra import records
from infra.errors import InfraError
from infra.settings import Settings
from infra.supervisor import Supervisor

ROOT = Path(__file__).parent.parent
BROKERS = ("broker-1", "broker-2", "broker-3")
START_S = 120.0
SAMPLE_S = 1.0
"""Between two looks at a contender's processes: those that come and go in between are not seen."""


class NotRun(Exception):
    """A contender gave no result; the message says why in one line."""


@contextmanager
def cluster(
    settings: Settings, names: Sequence[str] = (*BROKERS, "registry")
) -> Iterator[Settings]:
    """These services of `settings`, ready; stopped on leaving, also when the program is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    services = [service for service in service_table(settings, []) if service.name in names]
    stop = threading.Event()
    ended: list[InfraError] = []

    def supervise() -> None:
        try:
            Supervisor(settings, services, lambda *_: None).run(stop)
        except InfraError as error:
            ended.append(error)

    thread = threading.Thread(target=supervise, name="supervisor")
    thread.start()
    try:
        give_up = time.monotonic() + START_S
        while not all(_ready(settings, service.name) for service in services):
            if ended:
                raise ended[0]
            if time.monotonic() > give_up:
                raise InfraError(f"not ready within {START_S:.0f} s: see {settings.logs}")
            stop.wait(0.1)
        yield settings
    finally:
        stop.set()
        thread.join(60)


def _ready(settings: Settings, name: str) -> bool:
    record = records.read_record(settings, name)
    return record is not None and records.alive(record) and record.state == "ready"


def broker_cpu_seconds(settings: Settings) -> float:
    """CPU seconds that the brokers have used so far; 0 for brokers that somebody else runs."""
    found = (records.read_record(settings, name) for name in BROKERS)
    return sum(_cpu_seconds(psutil.Process(record.pid)) for record in found if record is not None)


@dataclass(frozen=True, slots=True)
class Used:
    """What a contender used between GO and its result."""

    cpu_s: float
    peak_mb: float
    """Most memory of all its processes together, MB: the kernel's peaks, shared pages shared out."""


class Watch:
    """Looks at a process and those that it starts, until `stop`.

    The kernel notes each one's peak; to add up their pages (PSS) five times a second took 4 % of two cores.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        family = [self._process, *_children(self._process)]
        self._shared = {process.pid: _shared_bytes(process) for process in family}
        for process in family:
            _forget_peak(process)
        self._before = _cpu_of_tree(self._process)
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> Used:
        """Call it while they live: what is gone cannot be asked."""
        cpu_s = _cpu_of_tree(self._process) - self._before
        self._done.set()
        self._thread.join()
        return Used(round(cpu_s, 2), round(self._peak / 1e6, 1))

    def _sample(self) -> None:
        last = False
        while not last:
            last = self._done.wait(SAMPLE_S)  # once more at the end: a short run is seen, too
            family = [self._process, *_children(self._process)]
            self._peak = max(self._peak, sum(map(self._peak_of, family)))

    def _peak_of(self, process: psutil.Process) -> int:
        if process.pid not in self._shared:
            self._shared[process.pid] = _shared_bytes(process)
        return max(0, _peak_bytes(process) - self._shared[process.pid])


class Child:
    """One contender; `ready`, `go` and `end` in this order. Raises NotRun if it ends or is too slow."""

    def __init__(
        self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=os.environ | dict(env or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._tree = psutil.Process(self._process.pid)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ready(self, timeout_s: float = 120.0) -> None:
        self._wait("READY", timeout_s)

    def go(self, timeout_s: float) -> tuple[dict[str, Any], Used]:
        """The result and what it took."""
        try:
            watch = Watch(self._process.pid)
        except psutil.NoSuchProcess:
            raise NotRun(_last_line(self._log) or "it ended before it began") from None
        try:
            self._say("GO")
            line = self._wait("RESULT ", timeout_s)
        finally:
            used = watch.stop()
        return json.loads(line), used

    def end(self) -> None:
        """Ask it to end; what does not within 15 seconds is killed, with the processes it started."""
        family = [self._tree, *_children(self._tree)]
        self._say("END")
        _, alive = psutil.wait_procs(family, 15)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _wait(self, word: str, timeout_s: float) -> str:
        """The rest of the next line that begins with `word`; other lines are dropped."""
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, give_up - time.monotonic()))
            except queue.Empty:
                told = f"no {word.strip()} within {timeout_s:.0f} s (see {self._log.name})"
                raise NotRun(told) from None
            if line is None:
                raise NotRun(_last_line(self._log) or f"it ended: {self._process.wait()}")
            if line.startswith(word):
                return line[len(word) :]


def measure(
    argv: Sequence[str],
    log: Path,
    timeout_s: float = 600.0,
    env: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], Used]:
    """Run one contender from start to end."""
    child = Child(argv, log, env)
    try:
        child.ready()
        return child.go(timeout_s)
    finally:
        child.end()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    return next((line[:160] for line in reversed(lines) if line), "")


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def cpu_of_tree(pid: int) -> float:
    """CPU seconds that a process and those that it started have used so far."""
    return _cpu_of_tree(psutil.Process(pid))


def _cpu_of_tree(process: psutil.Process) -> float:
    return sum(map(_cpu_seconds, [process, *_children(process)]))


def _peak_bytes(process: psutil.Process) -> int:
    """Most resident memory since it began or `_forget_peak`; 0 if it ended; no Linux: what it has now."""
    peak = _kernel_says(process, "status", "VmHWM")
    if peak is None:
        with suppress(psutil.Error):
            return int(process.memory_info().rss)
    return peak or 0


def _shared_bytes(process: psutil.Process) -> int:
    """What of its resident memory counts for others with which it shares pages."""
    resident = _kernel_says(process, "smaps_rollup", "Rss")
    share = _kernel_says(process, "smaps_rollup", "Pss")
    return 0 if resident is None or share is None else resident - share


def _forget_peak(process: psutil.Process) -> None:
    with suppress(OSError):  # it ended, or this is no Linux
        Path(f"/proc/{process.pid}/clear_refs").write_text("5", "ascii")


def _kernel_says(process: psutil.Process, file: str, name: str) -> int | None:
    """A figure of a process, bytes; None if it ended or this is no Linux."""
    try:
        with Path(f"/proc/{process.pid}/{file}").open() as lines:
            found = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
            return int(next(found, 0)) * 1024
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Goal:
    """What a benchmark is for: the words, the figures, and whether it holds."""

    goal: str
    figures: str
    met: bool


def finish(
    console: Console, goals: Sequence[Goal], report: dict[str, Any], json_file: Path | None
) -> int:
    """Print the goals, write the report; the exit status: 0 if every goal was met."""
    for goal in goals:
        mark = "[green]met   [/]" if goal.met else "[red]missed[/]"
        console.print(f"{mark} {goal.goal}: {goal.figures}", highlight=False, soft_wrap=True)
    if json_file:
        report = {**report, "goals": [asdict(goal) for goal in goals]}
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    missed = sum(not goal.met for goal in goals)
    console.print("every goal was met" if not missed else f"{missed} of {len(goals)} goals missed")
    return 1 if missed else 0


def show_table(
    console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """The first column is text, the others are figures."""
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def console() -> Console:
    return Console(width=120 if not sys.stdout.isatty() else None)
