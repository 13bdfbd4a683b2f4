"""Logged predictions near to one of them: a fold over predictions and labels, and the search in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from consumers.retrieval.feature_space import FeatureSpace, embedding
from consumers.retrieval.retriever import Hit, Matrix, Retriever
from schemas.catalogue import labels_topic, predictions_topic
from schemas.event import Event
from streams.task import Task


class UnknownPrediction(KeyError):
    """There is no such prediction in what was read, or it has no vector; the message says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction as it was logged."""

    time: int
    model_version: str
    score: float


@dataclass(slots=True)
class Logged:
    """Predictions in the order of their partitions, their features column by column, and labels by id."""

    columns: dict[str, list[Any]]
    answers: dict[str, Answer] = field(default_factory=dict)
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Prediction id -> (time, label): the first of its partition."""


@dataclass(frozen=True, slots=True)
class Similar:
    """A prediction, how near it is to the one asked for, and its outcome (None: not known in time)."""

    hit: Hit
    answer: Answer
    label: int | None


class PredictionFold:
    """A `streams.fold.Fold` over one task's predictions and labels."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.name = f"{task.name}.similar"
        self.topics = (predictions_topic(task.name), labels_topic(task.name))

    def initial(self) -> Logged:
        return Logged({name: [] for name in self._task.vector})

    def apply(self, state: Logged, batch: Sequence[Event]) -> Logged:
        """Note predictions and labels."""
        for event in batch:
            data = event.data
            if event.type == "PredictionMade" and event.id not in state.answers:
                state.answers[event.id] = Answer(event.time, data["model_version"], data["score"])
                for name, column in state.columns.items():
                    column.append(data["features"].get(name))
            elif event.type == "LabelObserved":
                state.labels.setdefault(data["prediction_id"], (event.time, data["label"]))
        return state


class SimilarPredictions:
    """The predictions of a `Logged` state as points. `by`: an embedding of the task; None: all features.

    Raises KeyError for an embedding that the task does not have.
    """

    def __init__(self, task: Task, logged: Logged, by: str | None = None) -> None:
        self._task = task
        self._logged = logged
        points, whole = self._points(by)
        keys, answers = list(logged.answers), list(logged.answers.values())
        kept = np.flatnonzero(whole).tolist()
        self._place = {keys[i]: row for row, i in enumerate(kept)}
        self._vectors = points[whole]
        self._retriever = Retriever(
            [keys[i] for i in kept], [answers[i].time for i in kept], self._vectors
        )

    def __len__(self) -> int:
        return len(self._retriever)

    @property
    def dimensions(self) -> int:
        """Columns of a point."""
        return int(self._vectors.shape[1])

    def to(self, prediction_id: str, k: int) -> list[Similar]:
        """The k nearest to a prediction (itself left out); raises UnknownPrediction."""
        if prediction_id not in self._logged.answers:
            raise UnknownPrediction(f"no prediction {prediction_id} of task {self._task.name}")
        if prediction_id not in self._place:
            raise UnknownPrediction(f"prediction {prediction_id} has no complete embedding")
        vector = self._vectors[self._place[prediction_id]]
        hits = self._retriever.nearest(vector, k, without={prediction_id})
        return [self._told(hit) for hit in hits]

    def of(self, prediction_id: str) -> Similar:
        """The prediction itself."""
        answer = self._logged.answers[prediction_id]
        return self._told(Hit(prediction_id, answer.time, 1.0))

    def _told(self, hit: Hit) -> Similar:
        known = self._logged.labels.get(hit.key)
        in_time = known is not None and known[0] <= hit.time + self._task.label_delay_ms
        return Similar(hit, self._logged.answers[hit.key], known[1] if known and in_time else None)

    def _points(self, by: str | None) -> tuple[Matrix, Any]:
        columns = self._logged.columns
        if by is not None:
            return embedding(columns, self._task.drift.embeddings[by])
        space = FeatureSpace.fit(self._task.kinds, columns)
        points = space.points(columns)
        return points, np.ones(len(points), np.bool_)
