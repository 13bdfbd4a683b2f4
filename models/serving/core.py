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


@dataclass(frozen=True, slots=True)
class Dealt:
    """The part of a request that one version answers."""

    who: Champion
    indices: tuple[int, ...]
    route: str | None
    """What PredictionMade says about it."""
    null_route: str | None = None
    """The same if `who` has no answer and the champion stands in; None: it must have one."""


def predict(
    task: Task,
    champion: Champion,
    asks: Sequence[Ask],
    blob: Callable[[str], Blob | None],
    parts: Sequence[Dealt] | None = None,
) -> list[Event]:
    """One PredictionMade per ask, in order; raises InvalidRequest if the champion has no finite score.

    `parts`: who answers what (default: the champion everything). Whatever a challenger does, the caller
    gets an answer: where it fails, or has no finite score, the champion's.
    """
    vectors = [assemble(task, ask.instance, ask.time, blob) for ask in asks]
    found: dict[int, Event] = {}
    for part in parts or [Dealt(champion, tuple(range(len(asks))), None)]:
        scores = _scores(part, [vectors[index] for index in part.indices])
        again = [index for index, score in zip(part.indices, scores, strict=True) if score is None]
        for index, score in zip(part.indices, scores, strict=True):
            if score is not None:
                found[index] = _made(task, part.who, asks[index], vectors[index], score, part.route)
        stand_ins = _finite(champion, [vectors[index] for index in again]) if again else []
        for index, score in zip(again, stand_ins, strict=True):
            if score is None:
                message = f"model {champion.version} has no finite score for these values"
                raise InvalidRequest([FieldError(f"instances[{index}]", message)])
            route = part.null_route
            found[index] = _made(task, champion, asks[index], vectors[index], score, route)
    return [found[index] for index in range(len(asks))]


def _scores(part: Dealt, vectors: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """None where a challenger has no answer; what the champion raises, it raises."""
    if part.null_route is None:
        return _finite(part.who, vectors)
    try:
        return _finite(part.who, vectors)
    except Exception:  # whatever is wrong with it, the champion stands in
        return [None] * len(vectors)


def _finite(who: Champion, vectors: Sequence[Mapping[str, Any]]) -> list[float | None]:
    scores = [float(score) for score in who.scorer.score(vectors)]
    return [score if math.isfinite(score) else None for score in scores]


def _made(
    task: Task, who: Champion, ask: Ask, vector: Mapping[str, Any], score: float, route: str | None
) -> Event:
    threshold = task.decision_threshold if who.threshold is None else who.threshold
    data = {
        "event_id": ask.id,
        "event_time": ask.time,
        "caused_by": None,
        "model_version": who.version,
        "score": score,
        "label": int(score >= threshold),
        "features": vector,
        "route": route,
    }
    return Event(predictions_topic(task.name), "PredictionMade", data)


def answer(
    champion: Champion, events: Sequence[Event], warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """The body of a predict response; `warnings` is there only if there are any.

    Where several versions answered, `model_version` is the champion and each prediction names its own.
    """
    versions = {event.data["model_version"] for event in events}
    names = ("event_id", "score", "label") + (("model_version",) if len(versions) > 1 else ())
    said: dict[str, Any] = {
        "model_version": versions.pop() if len(versions) == 1 else champion.version,
        "predictions": [{name: event.data[name] for name in names} for event in events],
    }
    if warnings:
        said["warnings"] = list(warnings)
    return said
