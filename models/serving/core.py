"""The core of serving, without HTTP, Kafka or Redis: what is asked -> what is answered, as events."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from models.serving.instances import FieldError, InvalidRequest
from schemas.catalogue import predictions_topic
from schemas.event import Event
from streams.features import Blob, assemble, blob_keys
from streams.task import Ask, Task


class VectorScorer(Protocol):
    """What serving needs of a loaded model (`models.scorer.Scorer`)."""

    def score(self, vectors: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
        """Probability of the positive class per vector, shape (n,)."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The model that answers for a task: a request keeps the one it began with."""

    version: str
    scorer: VectorScorer
    since: int
    """Event time (ms) of the decision that made it champion."""
    reason: str
    threshold: float | None = None
    """Scores from here on decide 1; None: from the task's threshold on."""


def keys_of(task: Task, asks: Sequence[Ask]) -> list[str]:
    """The online store's keys that these asks need, each once."""
    keys: dict[str, None] = {}
    for ask in asks:
        keys.update(dict.fromkeys(blob_keys(task, ask.instance)))
    return list(keys)


def predict(
    task: Task, champion: Champion, asks: Sequence[Ask], blob: Callable[[str], Blob | None]
) -> list[Event]:
    """One PredictionMade per ask, in order; raises InvalidRequest if the model has no finite score."""
    vectors = [assemble(task, ask.instance, ask.time, blob) for ask in asks]
    scores = [float(score) for score in champion.scorer.score(vectors)]
    topic, threshold, version = (
        predictions_topic(task.name),
        task.decision_threshold if champion.threshold is None else champion.threshold,
        champion.version,
    )
    events = []
    for index, (ask, vector, score) in enumerate(zip(asks, vectors, scores, strict=True)):
        if not math.isfinite(score):
            message = f"model {version} has no finite score for these values"
            raise InvalidRequest([FieldError(f"instances[{index}]", message)])
        data = {
            "event_id": ask.id,
            "event_time": ask.time,
            "caused_by": None,
            "model_version": version,
            "score": score,
            "label": int(score >= threshold),
            "features": vector,
        }
        events.append(Event(topic, "PredictionMade", data))
    return events


def answer(
    champion: Champion, events: Sequence[Event], warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """The body of a predict response; `warnings` is there only if there are any."""
    said: dict[str, Any] = {
        "model_version": champion.version,
        "predictions": [
            {name: event.data[name] for name in ("event_id", "score", "label")} for event in events
        ],
    }
    if warnings:
        said["warnings"] = list(warnings)
    return said
