"""Plays a task's source into the running system, in event time, as its callers would.

Questions and labels go over REST, observations straight into the log. Every id is the source's own, so a
request that got no answer is sent again, and a feed that was cut off goes on at the half hour it was in.
Sped up a thousandfold, milliseconds of delay would be hours of event time; the feeder therefore waits until
the online features are at most `max_lag_ms` of event time behind before it asks.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio
from redis.exceptions import RedisError

from driftlog import reach
from infra.files import write_whole
from infra.settings import Settings
from schemas.catalogue import features_topic, predictions_topic
from schemas.event import Event, derive
from streams import log
from streams.features import BUCKET_MS
from streams.online import FILLED, store_key
from streams.task import HOUR_MS, Ask, Moment, Observation, Rate, Task, Truth

BATCH = 250
STEP_MS = BUCKET_MS
REQUEST_SECONDS = 35.0  # serving answers, if only with 503, within 15 s of each of two tries
GIVE_UP_SECONDS = 120.0
STORE_PATIENCE_SECONDS = 3.0
KNOWN_RECORDS = 2_000


class FeedFailed(Exception):
    """The service refused, or did not answer for too long; the message says what and when."""


@dataclass
class Tally:
    """What the feed did, as seen by the caller."""

    asked: int = 0
    labelled: int = 0
    observed: int = 0
    requests: int = 0
    failed_requests: int = 0
    """Attempts that were not answered with 200 (they were sent again)."""
    failures: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    event_time: int = 0
    answered_ids: list[str] = field(default_factory=list)
    label_ids: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    """Predictions by the model version that answered."""
    waited_s: float = 0.0
    """Time spent waiting for the online features."""


class Feeder:
    """Feeds one task; `run` may be called once."""

    def __init__(
        self,
        settings: Settings,
        task: Task,
        speed: float | None = None,
        max_lag_ms: int = HOUR_MS,
        on_step: Callable[[Tally], None] = lambda tally: None,
    ) -> None:
        self._settings = settings
        self._task = task
        self._speed = speed
        self._max_lag_ms = max_lag_ms
        self._on_step = on_step
        self._sent: deque[int] = deque()
        self._cursor = Cursor(settings.home / "feeds" / f"{task.name}.txt")
        self._reached = 0
        self._has_rates = any(isinstance(feature, Rate) for feature in task.features)
        self.tally = Tally()
        self._codec = log.connect_codec(settings, [task])
        self._writer = log.LogWriter(settings.bootstrap, self._codec)

    def run(self, start_ms: int | None = None, end_ms: int | None = None) -> Tally:
        """Feed the moments from `start_ms` (default: go on) until `end_ms`; raises FeedFailed."""
        asyncio.run(self._run(start_ms, end_ms))
        return self.tally

    async def _run(self, start_ms: int | None, end_ms: int | None) -> None:
        assert self._task.source is not None
        known: set[str] = set()
        if start_ms is None:
            start_ms = self._cursor.read()
            known = await asyncio.to_thread(self._newest_ids) if start_ms else known
        moments = _between(self._task.source(), start_ms, end_ms)
        limits = httpx.Limits(max_connections=8)
        self._redis = redis.asyncio.Redis.from_url(self._settings.redis, socket_timeout=1)
        async with httpx.AsyncClient(
            base_url=reach.serving_url(self._settings),
            headers=reach.key_header(),
            verify=reach.own_tls(),
            timeout=REQUEST_SECONDS,
            limits=limits,
        ) as self._http:
            began, first = time.monotonic(), None
            for at, group in _steps(moments):
                first = at if first is None else first
                if self._speed:
                    due = began + (at - first) / 1000 / self._speed
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                batch = [m for m in group if not (isinstance(m, Ask) and m.id in known)]
                self._cursor.write(at)
                await self._step(at, batch)
                self._on_step(self.tally)
        await self._redis.aclose()

    async def _step(self, at: int, moments: list[Moment]) -> None:
        """One half hour: the features served in it depend only on what ended before it."""
        await self._store_caught_up(at)
        asks = [m for m in moments if isinstance(m, Ask)]
        truths = [m for m in moments if isinstance(m, Truth)]
        seen = [m for m in moments if isinstance(m, Observation)]
        # Side by side: whoever joins labels to predictions takes them in any order.
        await asyncio.gather(
            self._observe(seen),
            *(self._ask(asks[i : i + BATCH]) for i in range(0, len(asks), BATCH)),
            *(self._tell(truths[i : i + BATCH]) for i in range(0, len(truths), BATCH)),
        )
        times = [m.time for m in asks] + [m.time for m in truths]
        if times:
            self.tally.event_time = max(times)
            self._sent.append(max(times))

    async def _observe(self, seen: list[Observation]) -> None:
        if seen:
            events = [_observed(self._task, m) for m in seen]
            await asyncio.to_thread(self._writer.append, events)
            self.tally.observed += len(seen)

    async def _ask(self, asks: list[Ask]) -> None:
        instances = [{**a.instance, "event_id": a.id, "event_time": a.time} for a in asks]
        answer = await self._post("predict", {"instances": instances})
        self.tally.asked += len(asks)
        version = answer["model_version"]
        self.tally.versions[version] = self.tally.versions.get(version, 0) + len(asks)
        self.tally.answered_ids += [each["event_id"] for each in answer["predictions"]]

    async def _tell(self, truths: list[Truth]) -> None:
        labels = [
            {"prediction_id": t.prediction_id, "label": t.label, "event_time": t.time}
            for t in truths
        ]
        answer = await self._post("labels", {"labels": labels})
        self.tally.labelled += len(truths)
        self.tally.label_ids += answer["event_ids"]

    async def _post(self, what: str, body: dict[str, Any]) -> Any:
        """Until it is answered with 200; a refusal (4xx) is final. Raises FeedFailed."""
        path = f"/v1/tasks/{self._task.name}/{what}"
        began = time.monotonic()
        while True:
            asked = time.monotonic()
            try:
                response = await self._http.post(path, json=body)
                why = f"HTTP {response.status_code}"
            except httpx.HTTPError as error:
                response, why = None, type(error).__name__
            self.tally.requests += 1
            self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - asked)
            if response is not None and response.status_code == 200:
                return response.json()
            self.tally.failed_requests += 1
            self.tally.failures[why] = self.tally.failures.get(why, 0) + 1
            if response is not None and 400 <= response.status_code < 500:
                raise FeedFailed(f"{what} refused: {response.text[:500]}")
            if time.monotonic() - began > GIVE_UP_SECONDS:
                raise FeedFailed(f"{what}: {why} for {GIVE_UP_SECONDS:.0f} s; the rest was not fed")
            await asyncio.sleep(0.25)

    async def _store_caught_up(self, at: int) -> None:
        """Wait until what was sent up to `at - max_lag` counts in the online features (or patience ends)."""
        if not self._has_rates:
            return
        need = None
        while self._sent and self._sent[0] <= at - self._max_lag_ms:
            need = self._sent.popleft()
        if need is None or need <= self._reached:
            return
        began = time.monotonic()
        name = store_key(self._task.name, FILLED)
        while time.monotonic() - began < STORE_PATIENCE_SECONDS:
            try:
                self._reached = int(await self._redis.get(name) or 0)
            except (RedisError, OSError, ValueError):
                break
            if self._reached >= need:
                break
            await asyncio.sleep(0.004)
        self.tally.waited_s += time.monotonic() - began

    def _newest_ids(self) -> set[str]:
        """Ids of the newest predictions in the log: they were answered, and are not asked again."""
        topic = predictions_topic(self._task.name)
        events = log.newest(self._settings.bootstrap, self._codec, topic, KNOWN_RECORDS)
        return {event.id for event in events}


@dataclass(frozen=True)
class Cursor:
    """The half hour that a feed is in (ms), in a file: losing it only means to begin again."""

    path: Path

    def read(self) -> int:
        try:
            return int(self.path.read_text("ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    def write(self, at: int) -> None:
        write_whole(self.path, str(at))


def _between(moments: Iterator[Moment], start: int, end: int | None) -> Iterator[Moment]:
    """Labels of questions before `start` come along: nobody waits for them, and they do no harm."""
    for moment in moments:
        if end is not None and moment.time >= end:
            return
        if moment.time >= start:
            yield moment


def _steps(moments: Iterator[Moment]) -> Iterator[tuple[int, list[Moment]]]:
    """Half hours with their moments, by their start (ms)."""

    def step(moment: Moment) -> int:
        return moment.time // STEP_MS

    for number, group in groupby(moments, step):
        yield number * STEP_MS, list(group)


def _observed(task: Task, seen: Observation) -> Event:
    """Of what the source saw, the values that the task uses."""
    return derive(
        features_topic(task.name),
        "FeatureObserved",
        *(task.name, seen.entity, seen.key, seen.time),
        time=seen.time,
        caused_by=None,
        entity=seen.entity,
        key=seen.key,
        values={name: seen.values.get(name) for name in task.observed_values},
    )
