"""Counterfactual replays in the log: topics of their own, which no live reactor reads.

Every id follows from what is replayed, over which part of the log and by which code: the same replay again
says the same things, and ClickHouse keeps one of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from driftlog.policy_replay import Compared
from infra.settings import Settings
from schemas.catalogue import COUNTERFACTUALS, REPLAYS, system_topics
from schemas.codec import Codec
from schemas.event import Event, Position, derive, derived_id
from streams import log
from streams.code_version import module_version
from streams.replay import Until
from streams.topics import ensure_topics

BATCH = 5_000


@dataclass(frozen=True)
class Replay:
    """One counterfactual replay: what is asked, of which part of the log. `kind`: 'model' or 'policy'."""

    kind: str
    task: str
    parameters: Mapping[str, str]
    offsets: Mapping[log.Partition, int]
    until: Until = field(default_factory=Until)

    @cached_property
    def code(self) -> str:
        """SHA-256 over the sources that replay."""
        modules = {"model": "driftlog.counterfactual", "policy": "driftlog.policy_replay"}
        return module_version(modules[self.kind])

    @cached_property
    def id(self) -> str:
        """The event id of its ReplayStarted."""
        asked = sorted(self.parameters.items())
        limits = self.until.event_time, self.until.recorded
        return derived_id(
            *("ReplayStarted", self.kind, self.task, asked),
            *(sorted(self.offsets.items()), limits, self.code),
        )

    def started(self, now: int) -> Event:
        return Event(
            REPLAYS,
            "ReplayStarted",
            {
                "event_id": self.id,
                "event_time": now,
                "caused_by": None,
                "replay_id": self.id,
                "task": self.task,
                "kind": self.kind,
                "parameters": dict(self.parameters),
                "offsets": [
                    {"topic": topic, "partition": partition, "offset": offset}
                    for (topic, partition), offset in sorted(self.offsets.items())
                ],
                "until_event_time": self.until.event_time,
                "until_recorded": self.until.recorded,
                "code": self.code,
            },
        )

    def finished(self, now: int, events: int, written: int, summary: Mapping[str, float]) -> Event:
        return derive(
            REPLAYS,
            "ReplayFinished",
            self.id,
            time=now,
            caused_by=self.id,
            replay_id=self.id,
            task=self.task,
            kind=self.kind,
            events=events,
            written=written,
            summary=dict(summary),
        )


def rescored(replay: Replay, event: Event, version: str, score: float) -> Event:
    """PredictionRescored: what `version` says to a logged PredictionMade."""
    data = event.data
    return derive(
        COUNTERFACTUALS,
        "PredictionRescored",
        *(replay.id, event.id),
        time=event.time,
        caused_by=event.id,
        replay_id=replay.id,
        task=replay.task,
        prediction_id=event.id,
        model_version=version,
        logged_version=data["model_version"],
        score=score,
        logged_score=data["score"],
        **_position(event.at),
    )


def decided(replay: Replay, compared: Compared) -> Event:
    """DecisionReplayed: a decision as replayed beside the one that was logged."""
    either = compared.either
    return derive(
        COUNTERFACTUALS,
        "DecisionReplayed",
        *(replay.id, either.id),
        time=either.time,
        caused_by=compared.then.id if compared.then else None,
        replay_id=replay.id,
        task=replay.task,
        decision_id=either.id,
        decision=either.type,
        subject=either.subject,
        verdict=compared.verdict,
        reason=compared.now.reason if compared.now else None,
        logged_reason=compared.then.reason if compared.then else None,
        **_position(either.at),
    )


def _position(at: Position | None) -> dict[str, Any]:
    return {
        "logged_topic": at.topic if at else None,
        "logged_partition": at.partition if at else None,
        "logged_offset": at.offset if at else None,
    }


class ReplayWriter:
    """Writes one replay: ReplayStarted, what it finds, ReplayFinished; raises LogUnavailable."""

    def __init__(self, settings: Settings, codec: Codec, replay: Replay) -> None:
        own = [topic for topic in system_topics() if topic.name in (REPLAYS, COUNTERFACTUALS)]
        ensure_topics(settings.bootstrap, own, settings.replication)
        self.replay = replay
        self.written = 0
        self._writer = log.LogWriter(settings.bootstrap, codec)
        self._waiting: list[Event] = []
        self._writer.append([replay.started(_now())])

    def add(self, events: Iterable[Event]) -> None:
        self._waiting += events
        if len(self._waiting) >= BATCH:
            self._flush()

    def finish(self, events: int, summary: Mapping[str, float]) -> None:
        """`events`: how many were read."""
        self._flush()
        done = self.replay.finished(_now(), events, self.written, summary)
        self._writer.append([done])

    def _flush(self) -> None:
        if self._waiting:
            self._writer.append(self._waiting)
            self.written += len(self._waiting)
            self._waiting = []


def _now() -> int:
    return int(time.time() * 1000)
