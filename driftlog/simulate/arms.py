"""Policies side by side: what each is called, run over the same history, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from driftlog.policy import PolicyError, with_policy
from driftlog.simulate.history import History
from driftlog.simulate.loop import Loop, Run
from driftlog.simulate.policies import Adwin, Calendar, Oracle
from streams.fold import Reactor
from streams.task import DAY_MS, Task

OWN = "task"
CALENDARS: dict[str, int | None] = {"never": None, "daily": DAY_MS, "weekly": 7 * DAY_MS}
ADWIN, ORACLE = "adwin", "oracle"
NAMED = (OWN, *CALENDARS, ADWIN, ORACLE)
ORACLE_DAYS = (1, 2, 4, 8, 16)
"""After the labels of a change's first rows are there."""


@dataclass(frozen=True)
class Arm:
    """One policy: the task that carries it, and, unless it is the task's, what asks instead."""

    name: str
    task: Task
    make: Callable[[History], Reactor] | None = None


def arm(task: Task, wanted: str, changes: Sequence[int] = ()) -> Arm:
    """One of NAMED, or settings ('retrain.votes=1,drift.alpha=0.05').

    `changes` (ms) are what the oracle knows. Raises PolicyError.
    """
    if wanted == OWN:
        return Arm(wanted, task)
    if wanted in CALENDARS:
        return Arm(wanted, task, lambda _: Calendar(task, CALENDARS[wanted]))
    if wanted == ADWIN:
        return Arm(wanted, task, lambda _: Adwin(task))
    if wanted == ORACLE:
        if not changes:
            raise PolicyError("the oracle needs known changes: name them with --change DAY")
        lags = [task.label_delay_ms + days * DAY_MS for days in ORACLE_DAYS]
        return Arm(wanted, task, lambda _: Oracle(task, changes, lags))
    if "=" not in wanted:
        raise PolicyError(
            f"{wanted!r} is no policy: write {', '.join(NAMED)}, or GROUP.FIELD=VALUE[,...]"
        )
    changed, _ = with_policy(task, wanted.split(","), from_log=False)
    return Arm(wanted, changed)


Told = Callable[[str, int, int], None]
"""Told an arm's name when it is done, how many are, and of how many."""
_history: History
_arms: Sequence[Arm]


def run_arms(
    history: History,
    arms: Sequence[Arm],
    processes: int = 2,
    told: Told = lambda name, done, total: None,
) -> list[Run]:
    """What each arm did, in order."""
    global _history, _arms
    _history, _arms = history, arms
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(processes, os.cpu_count() or 1, len(arms)), context) as pool:
        waiting = [pool.submit(_run, place) for place in range(len(arms))]
        runs = []
        for done, future in enumerate(waiting, 1):
            runs.append(future.result())
            told(arms[done - 1].name, done, len(arms))
    return runs


def _run(place: int) -> Run:
    warnings.filterwarnings("ignore", category=FutureWarning)  # scikit-learn's, once a fit
    chosen = _arms[place]
    policy = chosen.make(_history) if chosen.make else None
    return Loop(chosen.task, _history, policy, chosen.name).run()
