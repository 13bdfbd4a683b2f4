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
    indices: Sequence[int]
    route: str | None
    """What PredictionMade says about it."""
    null_route: str | None = None
    """The same if `who` has no answer and the champion stands in; None: it must have one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one caller asks of a task, and who answers it whatever is promoted meanwhile."""

    champion: Champion
    asks: Sequence[Ask]
    parts: Sequence[Dealt] | None = None
    """Who answers what; None: the champion everything."""

    def __len__(self) -> int:
        return len(self.asks)


Vector = Mapping[str, Any]
Look = Callable[[Champion, Sequence[int]], list[float | None]]
"""Scores of a version for the instances at these places; None where it has none that is finite."""


def predict_all(
    task: Task,
    requests: Sequence[Request],
    blob: Callable[[str], Blob | None],
    degraded: str | None = None,
) -> list[list[Event] | Exception]:
    """One PredictionMade per ask of each request, in order, with one call of each version's model.

    What one raises is its own: InvalidRequest if the champion has no finite score. Whatever a challenger
    does, the caller gets an answer: where it fails, or has no finite score, the champion's.
    `degraded`: what was missing for all of them, as the events say it.
    """
    vectors = [
        [assemble(task, ask.instance, ask.time, blob) for ask in one.asks] for one in requests
    ]
    parts = [one.parts or (Dealt(one.champion, range(len(one.asks)), None),) for one in requests]
    together = _score_together(vectors, parts)

    def look(number: int) -> Look:
        def scores(who: Champion, indices: Sequence[int]) -> list[float | None]:
            known = together.get((id(who), number))
            if known is None:
                return _finite(who, [vectors[number][index] for index in indices])
            return [known[index] for index in indices]

        return scores

    found: list[list[Event] | Exception] = []
    for number, one in enumerate(requests):
        try:
            found.append(
                _predicted(task, one, parts[number], vectors[number], look(number), degraded)
            )
        except Exception as error:
            found.append(error)
    return found


def _score_together(
    vectors: Sequence[Sequence[Vector]], parts: Sequence[Sequence[Dealt]]
) -> dict[tuple[int, int], dict[int, float | None]]:
    """(id of a version, number of a request) -> index -> score; without versions that failed on the whole."""
    wanted: dict[int, tuple[Champion, list[tuple[int, int]]]] = {}
    for number, dealt in enumerate(parts):
        for part in dealt:
            places = wanted.setdefault(id(part.who), (part.who, []))[1]
            places += [(number, index) for index in part.indices]
    found: dict[tuple[int, int], dict[int, float | None]] = {}
    for key, (who, places) in wanted.items():
        try:
            scores = _finite(who, [vectors[number][index] for number, index in places])
        except Exception:  # noqa: S112 - each request finds out for itself whether it was the reason
            continue
        for (number, index), score in zip(places, scores, strict=True):
            found.setdefault((key, number), {})[index] = score
    return found


def _predicted(
    task: Task,
    request: Request,
    parts: Sequence[Dealt],
    vectors: Sequence[Vector],
    look: Look,
    degraded: str | None,
) -> list[Event]:
    asks = request.asks
    found: dict[int, Event] = {}

    def made(who: Champion, index: int, score: float, route: str | None) -> None:
        found[index] = _made(task, who, asks[index], vectors[index], score, route, degraded)

    for part in parts:
        scores = _scores(part, look)
        again = []
        for index, score in zip(part.indices, scores, strict=True):
            if score is None:
                again.append(index)
            else:
                made(part.who, index, score, part.route)
        if not again:
            continue
        stand_ins = (
            [None] * len(again)
            if part.null_route is None
            else _finite(request.champion, [vectors[index] for index in again])
        )
        for index, score in zip(again, stand_ins, strict=True):
            if score is None:
                message = f"model {request.champion.version} has no finite score for these values"
                raise InvalidRequest([FieldError(f"instances[{index}]", message)])
            made(request.champion, index, score, part.null_route)
    return [found[index] for index in range(len(asks))]


def _scores(part: Dealt, look: Look) -> list[float | None]:
    """None where a challenger has no answer; what the champion raises, it raises."""
    if part.null_route is None:
        return look(part.who, part.indices)
    try:
        return look(part.who, part.indices)
    except Exception:  # whatever is wrong with it, the champion stands in
        return [None] * len(part.indices)


def _finite(who: Champion, vectors: Sequence[Vector]) -> list[float | None]:
    scores = [float(score) for score in who.scorer.score(vectors)]
    return [score if math.isfinite(score) else None for score in scores]


def _made(
    task: Task,
    who: Champion,
    ask: Ask,
    vector: Vector,
    score: float,
    route: str | None,
    degraded: str | None,
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
        "degraded": degraded,
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
