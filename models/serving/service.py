"""What serving does for a caller, whatever the protocol: predict, take labels, say which models answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from models.personal.sealing import Sealed
from models.serving.answers import Answer, Answers, key_of
from models.serving.batching import Batcher
from models.serving.core import Champion, Request, answer, keys_of, predict_all
from models.serving.eventlog import EventLog
from models.serving.ids import PlacedIds, Turn, unknown
from models.serving.instances import InstanceParser, parse_labels
from models.serving.lineup import Lineup, deal
from models.serving.metrics import Metrics
from models.serving.online import OnlineStore
from models.serving.personal import Sealer, sealed_events
from models.serving.problems import Problem
from models.serving.shadow import Shadows
from models.serving.typed import TypedParser
from schemas.catalogue import predictions_topic
from schemas.event import Event
from streams.features import Blob, blob_keys
from streams.log import LogUnavailable
from streams.task import Ask, Task

DEADLINE_S = 15.0
"""A request waits so long for the log: longer than a failover takes, shorter than callers' patience."""
WITHOUT_STORE = "the online feature store was away: rates and observations are missing"


ONLINE_FEATURES = "online_features"
"""What PredictionMade.degraded says then."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The instances of a request; `named` if the caller named each of them, so that it can be sent again."""

    asks: Sequence[Ask]
    named: bool


@dataclass(frozen=True, slots=True)
class _Made:
    events: Sequence[Event]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Counted:
    """Makes ids and counts them."""

    new_id: Callable[[], str]
    made: int = 0

    def __call__(self) -> str:
        self.made += 1
        return self.new_id()


@dataclass(slots=True)
class Desk:
    """One task at the counter: its parser, its champion, and who stands beside it while one is rolled out.

    Swapping is one assignment to `champion`; a lineup that speaks of another champion does not count.
    """

    task: Task
    parser: InstanceParser
    typed: TypedParser
    batcher: Batcher[Request, _Made]
    ids: PlacedIds
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
    new_id: Callable[[Callable[[], str]], str] = lambda fresh: fresh()
    """The id of an instance that brings none, given how fresh ones are made; in the request's own context."""
    recall: Callable[[Sequence[Event]], Awaitable[Sequence[Event]]] = as_made
    """What an earlier try of the same request has logged, in place of what this one would."""
    turn: Turn = unknown
    """Where the log wants the next batch of predictions whose callers do not name them."""
    lacks: Callable[[], str | None] = lambda: None
    """What else is not there yet without which nobody can be answered."""
    sealer: Sealer | None = None
    """Encrypts the personal fields of tasks that declare some; without it they are refused."""
    desks: dict[str, Desk] = field(init=False)
    leaving: bool = False
    """It was told to stop: it answers on, and asks callers to go elsewhere."""
    _answers: Answers = field(default_factory=Answers)
    shadows: Shadows = field(init=False)

    def __post_init__(self) -> None:
        self.shadows = Shadows(self.metrics, lambda: self.log)
        self.desks = {task.name: self._desk(task) for task in self.tasks}

    def _desk(self, task: Task) -> Desk:
        batcher: Batcher[Request, _Made] = Batcher(partial(self._score, task))
        ids = PlacedIds(predictions_topic(task.name), self._turn)
        return Desk(task, InstanceParser(task), TypedParser(task), batcher, ids)

    def _turn(self, topic: str, last: int) -> tuple[int, int] | None:
        return self.turn(topic, last)

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
        ids = _Counted(partial(self.new_id, desk.ids))
        asks = desk.parser.parse(body, self.now_ms(), ids)
        return await self.answer(task, Asked(asks, ids.made == 0), raw)

    def asked(self, task: str, raw: bytes) -> Asked | None:
        """What a body asks for, read the quick way; None: `predict` says what is to be said about it."""
        desk = self.desk(task)
        ids = _Counted(partial(self.new_id, desk.ids))
        asks = desk.typed.parse(raw, self.now_ms(), ids)
        return None if asks is None else Asked(asks, ids.made == 0)

    async def answer(self, task: str, asked: Asked, raw: bytes) -> dict[str, Any]:
        """As `predict`, of a body that was read already."""
        desk = self.desk(task)
        if desk.champion is None:
            raise Problem(503, f"no model is loaded for task {task} yet")
        # These to the end, whatever is promoted meanwhile.
        champion, lineup = desk.champion, desk.lineup
        request = Request(champion, asked.asks, deal(champion, lineup, asked.asks))
        joined = False

        async def prepare() -> tuple[Answer, Sequence[Event]]:
            nonlocal joined
            made = await desk.batcher.join(request)
            joined = True
            events = await self.recall(made.events)
            return answer(champion, events, made.warnings), events

        async def append(events: Sequence[Event]) -> None:
            await self._append_predictions(desk.task, lineup, events)

        try:
            if not asked.named or not raw:
                said, events = await prepare()
                await append(events)
                return said
            async with asyncio.timeout(2 * self.deadline_s):
                return await self._answers.once(key_of(task, raw), prepare, append)
        except TimeoutError:
            raise LogUnavailable("an earlier request with these event_ids still waits") from None
        finally:
            if joined:
                desk.batcher.finish()

    async def _score(self, task: Task, requests: Sequence[Request]) -> list[_Made | Exception]:
        """What each request of a batch is answered, and the events that go into the log before it is."""
        self.desks[task.name].ids.next_batch()
        self.metrics.batches.labels(task.name).inc()
        asks = [ask for request in requests for ask in request.asks]
        sealed = await self._sealed(task, asks) if task.personal else None
        keys = keys_of(task, asks)
        blobs = await self.store.blobs(task.name, keys) if keys else _nothing
        warnings: tuple[str, ...] = ()
        degraded = None
        if blobs is None:
            warnings, degraded = (WITHOUT_STORE,), ONLINE_FEATURES
            self.metrics.without_features.labels(task.name).inc(len(requests))
        found = predict_all(task, requests, blobs or _nothing, degraded)
        if sealed is not None:
            found = _with_sealed(requests, found, sealed)
        return [one if isinstance(one, Exception) else _Made(one, warnings) for one in found]

    async def _sealed(self, task: Task, asks: Sequence[Ask]) -> list[Sealed]:
        if self.sealer is None:
            raise Problem(503, f"task {task.name} has personal fields, and there is no key store")
        return await self.sealer.seal(task, asks)

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
        lacks = self.lacks() or await self._keys_lack()
        ready = not trouble and all(models.values()) and not self.leaving and not lacks
        return ready, {
            "ready": ready,
            **({"leaving": "this replica is about to stop"} if self.leaving else {}),
            **({"lacks": lacks} if lacks else {}),
            "log": trouble or "ok",
            "models": models,
            "online_features": f"{away}: served as missing" if away else "ok",
        }

    async def _keys_lack(self) -> str | None:
        """Why personal fields cannot be encrypted, where a task has some."""
        if not any(task.personal for task in self.tasks):
            return None
        return "there is no key store" if self.sealer is None else await self.sealer.look()

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


def _with_sealed(
    requests: Sequence[Request], found: Sequence[list[Event] | Exception], sealed: Sequence[Sealed]
) -> list[list[Event] | Exception]:
    """The events of each request with their share of `sealed`, which is in the order of all asks."""
    made: list[list[Event] | Exception] = []
    at = 0
    for request, one in zip(requests, found, strict=True):
        mine = sealed[at : at + len(request)]
        made.append(one if isinstance(one, Exception) else sealed_events(one, mine))
        at += len(request)
    return made


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
