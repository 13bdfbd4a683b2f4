"""What serving does for a caller, whatever the protocol: predict, take labels, say which models answer."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.serving.core import Champion, answer, keys_of, predict
from models.serving.eventlog import EventLog
from models.serving.instances import InstanceParser, parse_labels
from models.serving.metrics import Metrics
from models.serving.online import OnlineStore
from models.serving.problems import Problem
from schemas.event import Event
from streams.features import Blob
from streams.task import Task

DEADLINE_S = 25.0
REMEMBERED_ANSWERS = 256


@dataclass(slots=True)
class Desk:
    """One task at the counter: its parser and its champion. Swapping is one assignment to `champion`."""

    task: Task
    parser: InstanceParser
    champion: Champion | None = None


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Service:
    """See the module. `log` and `store` are None until they are reachable."""

    tasks: Sequence[Task]
    metrics: Metrics
    store: OnlineStore
    log: EventLog | None = None
    deadline_s: float = DEADLINE_S
    now_ms: Callable[[], int] = wall_clock_ms
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    desks: dict[str, Desk] = field(init=False)
    _answers: OrderedDict[bytes, dict[str, Any]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.desks = {task.name: Desk(task, InstanceParser(task)) for task in self.tasks}

    def desk(self, task: str) -> Desk:
        """Raises Problem 404 that names the tasks there are."""
        if task not in self.desks:
            known = ", ".join(sorted(self.desks)) or "none"
            raise Problem(404, f"there is no task {task[:80]!r}; this service has: {known}")
        return self.desks[task]

    async def predict(self, task: str, body: object, raw: bytes = b"") -> dict[str, Any]:
        """Answer `{"instances": [...]}` once every PredictionMade is in the log.

        `raw` identifies the request: the same bytes again, with an event_id in each instance, are a retry
        and get the same answer. Raises Problem, InvalidRequest or LogUnavailable.
        """
        desk = self.desk(task)
        champion = desk.champion  # this one to the end, whatever is promoted meanwhile
        made: list[str] = []

        def new_id() -> str:
            made.append(self.new_id())
            return made[-1]

        asks = desk.parser.parse(body, self.now_ms(), new_id)
        key = b"" if made or not raw else hashlib.blake2b(raw + task.encode()).digest()
        if key in self._answers:
            return self._answers[key]
        if champion is None:
            raise Problem(503, f"no model is loaded for task {task} yet")
        blob = await self._blobs(desk.task, keys_of(desk.task, asks))
        events = predict(desk.task, champion, asks, blob)
        await self._append(events)
        self.metrics.predictions.labels(task, champion.version).inc(len(events))
        said = answer(champion, events)
        if key:
            self._answers[key] = said
            if len(self._answers) > REMEMBERED_ANSWERS:
                self._answers.popitem(last=False)
        return said

    async def label(self, task: str, body: object) -> dict[str, Any]:
        """Take `{"labels": [...]}`; raises like `predict`."""
        events = parse_labels(self.desk(task).task, body, self.now_ms())
        await self._append(events)
        self.metrics.labels.labels(task).inc(len(events))
        return {"accepted": len(events), "event_ids": [event.id for event in events]}

    def models(self) -> list[dict[str, Any]]:
        """Each task's champion, since when (event time, ms) and why; nulls where none is loaded."""
        return [
            {
                "task": name,
                "model_version": champion and champion.version,
                "since": champion and champion.since,
                "reason": champion and champion.reason,
            }
            for name, champion in ((name, desk.champion) for name, desk in self.desks.items())
        ]

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether every task can be served, and what each part says. The online store is no condition."""
        connected = self.log is not None and self.log.connected
        models = {
            name: desk.champion.version if desk.champion else None
            for name, desk in self.desks.items()
        }
        ready = connected and all(models.values())
        return ready, {
            "ready": ready,
            "log": "connected" if connected else "not connected",
            "models": models,
            "online_features": "ok" if self.store.available else "unreachable: served as missing",
        }

    async def _blobs(self, task: Task, keys: Sequence[str]) -> Callable[[str], Blob | None]:
        found = await self.store.blobs(task.name, keys)
        if found is None:
            self.metrics.without_features.inc()
            return _nothing
        return found

    async def _append(self, events: Sequence[Event]) -> None:
        if self.log is None:
            raise Problem(503, "the log is not connected yet")
        with self.metrics.append_seconds.time():
            await self.log.append(events, self.deadline_s)


def _nothing(_: str) -> Blob | None:
    return None
