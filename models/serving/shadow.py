"""Shadow answers: what another version would have said, logged after the caller has its answer.

Bounded: at most WAITING answers wait; more are dropped and counted, so that a slow shadow costs callers
nothing but the processor time that it takes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from models.serving.core import Champion
from models.serving.eventlog import EventLog
from models.serving.metrics import Metrics
from schemas.catalogue import shadows_topic
from schemas.event import Event, derive
from streams.log import LogUnavailable
from streams.task import Task

logger = structlog.get_logger()

WAITING = 2_000
BATCH = 256
APPEND_S = 15.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    task: Task
    who: Champion
    reason_id: str
    made: Event


@dataclass(slots=True)
class Shadows:
    """Takes answers, gives ShadowPredictionMade events to the log. `log` is asked for when it is needed."""

    metrics: Metrics
    log: Callable[[], EventLog | None]
    limit: int = WAITING
    _waiting: list[_Waiting] = field(default_factory=list)
    _worker: asyncio.Task[None] | None = None

    def offer(self, task: Task, who: Champion, reason_id: str, made: Sequence[Event]) -> None:
        """Never waits, never raises; call it when `made` is in the log."""
        room = max(0, self.limit - len(self._waiting))
        self._waiting += [_Waiting(task, who, reason_id, event) for event in made[:room]]
        if len(made) > room:
            self.metrics.shadows_dropped.labels(task.name).inc(len(made) - room)
        if self._waiting and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._work())

    async def settle(self) -> None:
        """Wait until what was taken so far is in the log, or given up."""
        while self._worker is not None and not self._worker.done():
            await asyncio.wait({self._worker})

    async def close(self) -> None:
        """Give up what waits."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})

    async def _work(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            batch: list[_Waiting] = []
            for one in self._waiting[:BATCH]:
                if one.who is not first.who or one.reason_id != first.reason_id:
                    break
                batch.append(one)
            del self._waiting[: len(batch)]
            await self._log(first, [one.made for one in batch])

    async def _log(self, about: _Waiting, made: Sequence[Event]) -> None:
        task = about.task.name
        events = await asyncio.to_thread(_scored, about, made)
        log = self.log()
        try:
            if log is None:
                raise LogUnavailable("not connected")
            await log.append(events, APPEND_S)
        except LogUnavailable as error:
            self.metrics.shadows_dropped.labels(task).inc(len(events))
            logger.warning("shadow answers dropped", task=task, reason=str(error))
        else:
            self.metrics.shadows.labels(task, about.who.version).inc(len(events))


def _scored(about: _Waiting, made: Sequence[Event]) -> list[Event]:
    """The events; a shadow that fails has no score, which is evidence, too."""
    try:
        scores = [
            float(score) for score in about.who.scorer.score([e.data["features"] for e in made])
        ]
    except Exception:
        scores = [math.nan] * len(made)
    return [
        derive(
            shadows_topic(about.task.name),
            "ShadowPredictionMade",
            *(event.id, about.who.version),
            time=event.time,
            caused_by=event.id,
            prediction_id=event.id,
            model_version=about.who.version,
            score=score if math.isfinite(score) else None,
            label=int(score >= about.task.decision_threshold) if math.isfinite(score) else None,
            answered_by=event.data["model_version"],
            answered_score=event.data["score"],
            reason_id=about.reason_id,
        )
        for event, score in zip(made, scores, strict=True)
    ]
