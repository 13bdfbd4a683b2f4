"""Corrections: what a bad version decided, and what another one decides instead, said once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.catalogue import CORRECTIONS
from schemas.event import Event, derive, derived_id
from streams.join import LabelJoin
from streams.task import Task

BATCH = 8_192
"""Predictions that are scored at a time."""


class Scores(Protocol):
    """A model: a score for each vector."""

    def score(self, vectors: list[dict[str, object]]) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class Decided:
    """One answer of a version, and the truth if it is known in time."""

    event: Event
    truth: int | None = None

    def to_json(self) -> dict[str, object]:
        data = self.event.data
        return {
            "event_id": self.event.id,
            "event_time": self.event.time,
            "model_version": data["model_version"],
            "score": data["score"],
            "label": data["label"],
            "truth": self.truth,
        }


@dataclass(frozen=True, slots=True)
class Ordered:
    """What is to be corrected and on whose word. `scores`: also where only the score differs."""

    version: str
    by: str
    reason: str
    actor: str
    scores: bool = False


def decided(
    events: Iterable[Event], task: Task, version: str, since: int | None, until: int | None
) -> list[Decided]:
    """Answers of `version` from `since` (inclusive) to `until` (exclusive, event time in ms), in log order.

    `events`: predictions and labels of the task, each once. A label counts as in every other place: if it
    came in time, and of several the first.
    """
    join: LabelJoin[str] = LabelJoin(task.label_delay_ms)
    found: dict[str, Event] = {}
    truths: dict[str, int] = {}
    for event in events:
        if event.type == "PredictionMade":
            if event.data["model_version"] != version:
                continue
            if (since is None or event.time >= since) and (until is None or event.time < until):
                found[event.id] = event
                match = join.prediction(event.id, event.time, event.id)
            else:
                continue
        else:
            data = event.data
            match = join.label(data["prediction_id"], event.time, data["label"])
        if match:
            truths[match.payload] = match.label
    return [Decided(event, truths.get(id_)) for id_, event in found.items()]


def correction_id(prediction_id: str, by: str) -> str:
    """Whoever orders it and however often: one correction of a prediction by a version."""
    return derived_id("PredictionCorrected", prediction_id, by)


def corrections(
    answers: Iterable[Decided],
    task: Task,
    scorer: Scores,
    order: Ordered,
    time: int,
    published: Set[str],
) -> Iterator[Event]:
    """PredictionCorrected for each answer that `order.by` decides otherwise, except those `published`.

    `published`: ids of corrections that the log holds. `time` (ms): event time of the new ones.
    """
    batch: list[Event] = []
    for answer in answers:
        if correction_id(answer.event.id, order.by) not in published:
            batch.append(answer.event)
        if len(batch) == BATCH:
            yield from _corrected(batch, task, scorer, order, time)
            batch = []
    yield from _corrected(batch, task, scorer, order, time)


def _corrected(
    batch: list[Event], task: Task, scorer: Scores, order: Ordered, time: int
) -> Iterator[Event]:
    if not batch:
        return
    scores = scorer.score([event.data["features"] for event in batch]).tolist()
    for event, score in zip(batch, scores, strict=True):
        data = event.data
        label = int(score >= task.decision_threshold)
        if label == data["label"] and not (order.scores and score != data["score"]):
            continue
        yield derive(
            CORRECTIONS,
            "PredictionCorrected",
            *(event.id, order.by),
            time=max(time, event.time),
            caused_by=event.id,
            task=task.name,
            of=event.id,
            by=order.by,
            model_version=data["model_version"],
            score=score,
            label=label,
            logged_score=data["score"],
            logged_label=data["label"],
            reason=order.reason,
            actor=order.actor,
        )
