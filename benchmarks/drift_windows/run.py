"""One contender after another on the same topic, each compared with the truth."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.drift_windows import topic, workload
from benchmarks.drift_windows.contenders import FLOOR, Contender
from benchmarks.drift_windows.workload import Workload
from infra.settings import Settings


@dataclass(frozen=True)
class Turn:
    """One run: events a second from the first fetch to the last score."""

    rate: float
    seconds: float
    used: harness.Used
    broker_cpu_s: float
    worker_mb: float | None = None
    """Peak resident memory of driftlog's window worker alone."""


@dataclass
class Outcome:
    """What a contender did; `note` says why it did not run or what is wrong with its scores."""

    contender: Contender
    events: int = 0
    turns: list[Turn] = field(default_factory=list)
    note: str = ""
    equal: bool = True

    @property
    def rate(self) -> float | None:
        return statistics.median(turn.rate for turn in self.turns) if self.turns else None

    @property
    def middle(self) -> Turn:
        """The run with the median rate (the slower one of two)."""
        return sorted(self.turns, key=lambda turn: turn.rate)[(len(self.turns) - 1) // 2]

    @property
    def peak_mb(self) -> float:
        return max(turn.used.peak_mb for turn in self.turns)

    def as_dict(self) -> dict[str, Any]:
        known = {"name": self.contender.name, "title": self.contender.title, "note": self.note}
        if not self.turns:
            return known
        return {
            **known,
            "events": self.events,
            "events_per_second": round(self.rate or 0),
            "runs": [round(turn.rate) for turn in self.turns],
            "peak_mb": self.peak_mb,
            "cpu_s": self.middle.used.cpu_s,
            "broker_cpu_s": round(self.middle.broker_cpu_s, 2),
            "equal": self.equal,
        }


class Stage:
    """A cluster, the topics on it, and where contenders keep what they need."""

    def __init__(
        self, settings: Settings, cache: Path, partitions: int, replication: int, install: bool
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._partitions, self._replication = partitions, replication
        self._install = install
        self._work: dict[int, Workload] = {}
        self._runs = 0

    def fill(self, events: int, progress: Callable[[int, int], None]) -> None:
        """The topic with so many events."""
        work = self._work[events] = workload.make(events, self._partitions)
        topic.produce(
            self._settings, work, self._replication, lambda done: progress(done, len(work))
        )

    def run(self, outcome: Outcome, events: int) -> None:
        """One more turn of a contender; what goes wrong is noted, and it does not run again."""
        if outcome.note:
            return
        outcome.events = events
        try:
            self._turn(outcome, events)
        except harness.NotRun as reason:
            outcome.note, outcome.turns = f"not run: {reason}", []

    def _turn(self, outcome: Outcome, events: int) -> None:
        contender, work = outcome.contender, self._work[events]
        argv = contender.argv(self._cache, self._install)
        self._runs += 1
        name = f"{contender.name}-{self._runs}"
        folder = self._settings.home / "contenders"
        folder.mkdir(exist_ok=True)
        scores, path = folder / f"{name}.scores.json", folder / f"{name}.job.json"
        topic.job_for(self._settings, work, scores, name, self._replication).write(path)
        before = harness.broker_cpu_seconds(self._settings)
        environment = {**self._settings.to_env(), **contender.env}
        result, used = harness.measure(
            [*argv, str(path)], self._settings.logs / f"{name}.log", env=environment
        )
        brokers = harness.broker_cpu_seconds(self._settings) - before
        seconds = result["ended"] - result["began"]
        outcome.turns.append(
            Turn(events / seconds, seconds, used, brokers, result.get("worker_mb"))
        )
        if contender.kind == FLOOR:
            return
        found = {
            (model, int(start), column): float(value)
            for model, start, column, value in json.loads(scores.read_text("utf-8"))
        }
        wrong = workload.differences(found, work.truth)
        if wrong:
            outcome.equal = False
            outcome.note = f"{len(wrong)} of {len(work.truth)} scores differ, e.g. {wrong[0]}"
