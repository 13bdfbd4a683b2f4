"""Runs the arms of the year side by side in processes, with progress on stderr."""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.queues import Queue

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.year_arms import scheduled
from driftlog.simulate.history import History, read_history
from driftlog.simulate.loop import First, Loop, Run
from streams.task import DAY_MS, Task

PROCESSES = min(2, os.cpu_count() or 1)
_YEAR_DAYS = 365

_task: Task
_year: History
_told: Queue[tuple[str, int]]


def run_arms(
    task: Task, arms: dict[str, int | None], days: int | None
) -> tuple[History, dict[str, Run], dict[str, float]]:
    """The year, what each arm did, and the seconds that each took ('vectors': the shared pass)."""
    global _task, _year, _told  # noqa: PLW0603 - forked workers share the year without a copy
    columns = TextColumn("{task.description:<8}"), BarColumn(40), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        pass_bar = bars.add_task("vectors", total=days or _YEAR_DAYS)
        began = time.monotonic()
        _year = read_history(
            task, days, _day_by_day(lambda day: bars.update(pass_bar, completed=day))
        )
        bars.update(pass_bar, completed=days or _YEAR_DAYS)
        seconds = {"vectors": time.monotonic() - began}
        context = multiprocessing.get_context("fork")
        _task, _told = task, context.Queue()
        with ProcessPoolExecutor(PROCESSES, context) as pool:
            first = pool.submit(_first).result()
            total = (int(_year.data.times[-1]) - first.since) // DAY_MS
            lines = {name: bars.add_task(name, total=total) for name in arms}
            # the longest first: what is trained most often
            order = sorted(arms, key=lambda name: arms[name] or (0 if name == "loop" else 999))
            found = {name: pool.submit(_arm, name, arms[name], first) for name in order}
            _follow(list(found.values()), first.since, bars, lines)
            runs = {}
            for name in arms:
                runs[name], seconds[name] = found[name].result()
    return _year, runs, seconds


def _follow(
    futures: list[Future[tuple[Run, float]]], start: int, bars: Progress, lines: dict[str, TaskID]
) -> None:
    while not all(future.done() for future in futures):
        try:
            name, now = _told.get(timeout=0.2)
        except queue.Empty:
            continue
        bars.update(lines[name], completed=(now - start) // DAY_MS)


def _first() -> First:
    _quiet()
    loop = Loop(_task, _year)
    loop.run(only_first=True)
    if loop.first is None:
        raise SystemExit("no model was promoted in this time: there is nothing to compare")
    return loop.first


def _arm(name: str, every_days: int | None, first: First) -> tuple[Run, float]:
    _quiet()
    began = time.monotonic()
    tell = _day_by_day(lambda day: _told.put((name, day * DAY_MS)), absolute=True)
    if name == "loop":
        run = Loop(_task, _year).run(tell)
    else:
        run = scheduled(_task, _year, name, first, every_days, tell)
    return run, time.monotonic() - began


def _day_by_day(tell: Callable[[int], None], *, absolute: bool = False) -> Callable[[int], None]:
    """Tells the day (since the epoch, or since the first one told) whenever it changes."""
    first = last = -1

    def told(now: int) -> None:
        nonlocal first, last
        day = now // DAY_MS
        if day != last:
            first = day if first < 0 else first
            last = day
            tell(day if absolute else day - first)

    return told


def _quiet() -> None:
    """scikit-learn announces the next release's changes once a fit."""
    warnings.filterwarnings("ignore", category=FutureWarning)
