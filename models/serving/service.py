"""What serving does for a caller, whatever the protocol: predict, take labels, say which models answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.serving.answers import Answer, Answers, key_of
from models.serving.core import Champion, answer, keys_of, predict
from models.serving.eventlog import EventLog
from models.serving.instances import InstanceParser, parse_labels
from models.serving.lineup import Lineup, deal
from models.serving.metrics import Metrics
from models.serving.online import OnlineStore
from models.serving.problems import Problem
from models.serving.shadow import Shadows
from schemas.event import Event
from streams.features import Blob, blob_keys
from streams.log import LogUnavailable
from streams.task import Ask, Task

DEADLINE_S = 15.0
"""A request waits so long for the log: longer than a failover takes, shorter than callers' patience."""
WITHOUT_STORE = "the online feature store was away: rates and observations are missing"


@dataclass(slots=True)
class Desk:
    """One task at the counter: its parser, its champion, and who stands beside it while one is rolled out.

    Swapping is one assignment to `champion`; a lineup that speaks of another champion does not count.
    """

    task: Task
    parser: InstanceParser
    champion: Champion | None = None
    lineup: Lineup | None = None
    warm: dict[str, Champion] = field(default_factory=dict)
    """Versions that are kept loaded by name: an abort or a rollback waits for no file."""


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


async def as_made(events: Sequence[Event]) -> Sequence[Event]:
    return events


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
    recall: Callable[[Sequence[Event]], Awaitable[Sequence[Event]]] = as_made
    """What an earlier try of the same request has logged, in place of what this one would."""
    desks: dict[str, Desk] = field(init=False)
    leaving: bool = False
    """It was told to stop: it answers on, and asks callers to go elsewhere."""
    _answers: Answers = field(default_factory=Answers)
    shadows: Shadows = field(init=False)

    def __post_init__(self) -> None:
        self.shadows = Shadows(self.metrics, lambda: self.log)
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
        # These to the end, whatever is promoted meanwhile.
        champion, lineup = desk.champion, desk.lineup
        made: list[str] = []

        def new_id() -> str:
            made.append(self.new_id())
            return made[-1]

        asks = desk.parser.parse(body, self.now_ms(), new_id)

        async def prepare() -> tuple[Answer, Sequence[Event]]:
            return await self._predict(desk.task, champion, lineup, asks)

        async def append(events: Sequence[Event]) -> None:
            await self._append_predictions(desk.task, lineup, events)

        if made or not raw:
            said, events = await prepare()
            await append(events)
            return said
        try:
            async with asyncio.timeout(2 * self.deadline_s):
                key = key_of(task, raw)
                return await self._answers.once(key, prepare, append)
        except TimeoutError:
            raise LogUnavailable("an earlier request with these event_ids still waits") from None

    async def _predict(
        self, task: Task, champion: Champion | None, lineup: Lineup | None, asks: Sequence[Ask]
    ) -> tuple[Answer, Sequence[Event]]:
        """The answer, and the events that have to be in the log before it is given."""
        if champion is None:
            raise Problem(503, f"no model is loaded for task {task.name} yet")
        blob = await self.store.blobs(task.name, keys_of(task, asks))
        parts = deal(champion, lineup, asks)
        events = await self.recall(predict(task, champion, asks, blob or _nothing, parts))
        if blob is None:
            self.metrics.without_features.labels(task.name).inc()
        return answer(champion, events, (WITHOUT_STORE,) if blob is None else ()), events

    async def label(self, task: str, body: object) -> dict[str, Any]:
        """Take `{"labels": [...]}`; raises like `predict`."""
        events = parse_labels(self.desk(task).task, body, self.now_ms())
        await self._append(events)
        self.metrics.labels.labels(task).inc(len(events))
        return {"accepted": len(events), "event_ids": [event.id for event in events]}

    def models(self) -> list[dict[str, Any]]:
        """Each task's champion, since when (event time, ms) and why; nulls where none is loaded.

        `rollout` is there while a version stands beside the champion.
        """
        return [_shown(desk) for desk in self.desks.values()]

    def leave(self) -> None:
        """Not ready any more; whoever asks is answered all the same."""
        self.leaving = True

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether every task can be served, and what each part says. The online store is no condition."""
        for desk in self.desks.values():
            await self.store.blobs(desk.task.name, blob_keys(desk.task, {}))
        away = self.store.problem
        trouble = self.log.problem if self.log else "not connected"
        models = {
            name: desk.champion.version if desk.champion else None
            for name, desk in self.desks.items()
        }
        ready = not trouble and all(models.values()) and not self.leaving
        return ready, {
            "ready": ready,
            **({"leaving": "this replica is about to stop"} if self.leaving else {}),
            "log": trouble or "ok",
            "models": models,
            "online_features": f"{away}: served as missing" if away else "ok",
        }

    async def _append_predictions(
        self, task: Task, lineup: Lineup | None, events: Sequence[Event]
    ) -> None:
        await self._append(events)
        for version, count in Counter(event.data["model_version"] for event in events).items():
            self.metrics.predictions.labels(task.name, version).inc(count)
        if lineup is None or not lineup.traffic.shadow:
            return
        seen = [
            event
            for event in events
            if event.data["model_version"] == lineup.traffic.baseline and lineup.shadows(event.time)
        ]
        self.shadows.offer(task, lineup.challenger, lineup.traffic.id, seen)

    async def _append(self, events: Sequence[Event]) -> None:
        if self.log is None:
            raise Problem(503, "the log is not connected yet")
        with self.metrics.append_seconds.time():
            await self.log.append(events, self.deadline_s)


def _nothing(_: str) -> Blob | None:
    return None


def _shown(desk: Desk) -> dict[str, Any]:
    champion, lineup = desk.champion, desk.lineup
    said: dict[str, Any] = {
        "task": desk.task.name,
        "model_version": champion and champion.version,
        "since": champion and champion.since,
        "reason": champion and champion.reason,
    }
    if champion and lineup and lineup.traffic.baseline == champion.version:
        said["rollout"] = {
            "model_version": lineup.challenger.version,
            "share": lineup.traffic.share,
            "shadow": lineup.traffic.shadow,
        }
    return said
