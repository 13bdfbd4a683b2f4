"""The feature fold: rolling label rates and latest observations, each as of the request's event time.

The fold keeps one small *blob* per key; serving reads the blobs of a request from the online store in one
round trip and `assemble` makes the vector. The simulation reads them from the fold's own state: one
definition, no skew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import features_topic, labels_topic, predictions_topic
from schemas.event import Event
from streams.canonical import transient
from streams.join import LabelJoin
from streams.task import HOUR_MS, Observed, Rate, Task
from streams.watermark import Watermark

BUCKET_MS = HOUR_MS // 2
"""Rates count whole half hours that ended before the request: nothing younger can leak in."""
KEPT_OBSERVATIONS = 16

Blob = list[Any]
"""Rates: [[bucket start ms, labels, positives], ...]; observations: [[time ms, {value: number}], ...]."""


def rate_key(by: Sequence[str], values: Sequence[str]) -> str:
    return f"rate|{'+'.join(by)}|{'+'.join(values)}"


def observation_key(entity: str, key: str) -> str:
    return f"seen|{entity}|{key}"


def blob_keys(task: Task, instance: Mapping[str, Any]) -> list[str]:
    """The keys of the blobs that this request needs, each once."""
    keys: dict[str, None] = {}
    for feature in task.features:
        if isinstance(feature, Rate):
            keys[rate_key((), ())] = None
            keys[rate_key(feature.by, [str(instance.get(name)) for name in feature.by])] = None
        elif isinstance(feature, Observed):
            keys[observation_key(feature.by, str(instance.get(feature.by)))] = None
    return list(keys)


def assemble(
    task: Task, instance: Mapping[str, Any], time: int, blob: Callable[[str], Blob | None]
) -> dict[str, Any]:
    """The served vector at event time `time` (ms): given features, rates and observations as of then."""
    vector: dict[str, Any] = {}
    overall: dict[int, tuple[int, int]] = {}  # hours -> labels and positives over all keys
    for feature in task.features:
        if isinstance(feature, Rate):
            if feature.hours not in overall:
                overall[feature.hours] = _sum(blob(rate_key((), ())) or [], time, feature.hours)
            values = [str(instance.get(name)) for name in feature.by]
            own = blob(rate_key(feature.by, values)) or []
            vector[feature.name] = _rate(feature, time, own, overall[feature.hours])
        elif isinstance(feature, Observed):
            seen = blob(observation_key(feature.by, str(instance.get(feature.by)))) or []
            vector[feature.name] = _latest(feature, time, seen)
        else:
            vector[feature.name] = instance.get(feature.name)
    return vector


def _rate(feature: Rate, time: int, own: Blob, overall: tuple[int, int]) -> float | None:
    labels, positives = overall
    if not labels:
        return None
    base = positives / labels
    labels, positives = _sum(own, time, feature.hours) if feature.by else overall
    return (positives + feature.strength * base) / (labels + feature.strength)


def _sum(blob: Blob, time: int, hours: int) -> tuple[int, int]:
    """Labels and positives of the whole half hours in the `hours` before `time`."""
    until = time // BUCKET_MS * BUCKET_MS
    since = until - hours * HOUR_MS
    labels = positives = 0
    for start, count, positive in blob:
        if since <= start < until:
            labels += count
            positives += positive
    return labels, positives


def _latest(feature: Observed, time: int, seen: Blob) -> float | None:
    oldest = time - feature.max_age_hours * HOUR_MS
    for at, values in reversed(seen):
        if at <= time:
            return values.get(feature.value) if at >= oldest else None
    return None


@dataclass
class FeatureState:
    """Buckets per rate key, observations per entity, and the join in between."""

    join: LabelJoin[tuple[str, ...]]
    rates: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    seen: dict[str, list[tuple[int, str, dict[str, Any]]]] = field(default_factory=dict)
    predictions: Watermark = field(default_factory=Watermark)
    labels: Watermark = field(default_factory=Watermark)
    swept: int = 0
    dirty: set[str] = transient(default_factory=set)
    """Keys whose blob changed since the runner last wrote them to the online store."""

    def blob(self, key: str) -> Blob | None:
        """What the online store holds under `key`."""
        if key.startswith("rate|"):
            buckets = self.rates.get(key)
            return [[start, *buckets[start]] for start in sorted(buckets)] if buckets else None
        seen = self.seen.get(key)
        return [[at, values] for at, _, values in seen] if seen else None

    def keys(self) -> list[str]:
        return [*self.rates, *self.seen]


class FeatureFold:
    """`<task>.features`: see the module's docstring."""

    def __init__(self, task: Task, partitions: int) -> None:
        self._task = task
        self._partitions = partitions
        self.name = f"{task.name}.features"
        self._predictions = predictions_topic(task.name)
        self._labels = labels_topic(task.name)
        self._observations = features_topic(task.name)
        self.topics = (self._predictions, self._labels, self._observations)
        self._groups = {f.by for f in task.features if isinstance(f, Rate)}
        self._groups |= {()} if self._groups else set()
        hours = max((f.hours for f in task.features if isinstance(f, Rate)), default=1)
        self._keep_ms = hours * HOUR_MS + 24 * HOUR_MS  # a day of slack for requests about the past
        self._idle_ms = 2 * task.window_ms + task.label_delay_ms

    def initial(self) -> FeatureState:
        return FeatureState(LabelJoin(self._task.label_delay_ms))

    def apply(self, state: FeatureState, batch: Sequence[Event]) -> FeatureState:
        for event in batch:
            if event.topic == self._observations:
                self._observe(state, event)
            elif self._groups:
                self._learn(state, event)
        return state

    def settle(self, state: FeatureState) -> FeatureState:
        """Forget what can no longer count as of the watermarks: what is left depends on no order."""
        self._expire(state)
        return state

    def _expire(self, state: FeatureState) -> None:
        labels = state.labels.low(self._partitions, self._idle_ms) // HOUR_MS * HOUR_MS
        predictions = state.predictions.low(self._partitions, self._idle_ms) // HOUR_MS * HOUR_MS
        state.join.expire(labels, predictions)

    def _observe(self, state: FeatureState, event: Event) -> None:
        key = observation_key(event.data["entity"], event.data["key"])
        seen = state.seen.setdefault(key, [])
        seen.append((event.time, event.id, dict(event.data["values"])))
        seen.sort(key=lambda item: item[:2])
        del seen[:-KEPT_OBSERVATIONS]
        state.dirty.add(key)

    def _learn(self, state: FeatureState, event: Event) -> None:
        partition = event.at.partition if event.at else 0
        if event.topic == self._predictions:
            state.predictions.see(partition, event.time)
            features = event.data["features"]
            keys = tuple(
                rate_key(by, [str(features.get(name)) for name in by])
                for by in sorted(self._groups)
            )
            match = state.join.prediction(event.id, event.time, keys)
        else:
            state.labels.see(partition, event.time)
            data = event.data
            match = state.join.label(data["prediction_id"], event.time, data["label"])
        bucket = match.label_time // BUCKET_MS * BUCKET_MS if match else 0
        if match and bucket >= state.swept * HOUR_MS - self._keep_ms:
            for key in match.payload:
                counts = state.rates.setdefault(key, {}).setdefault(bucket, [0, 0])
                counts[0] += 1
                counts[1] += match.label
                state.dirty.add(key)
        self._sweep(state)

    def _sweep(self, state: FeatureState) -> None:
        """Forget what no request can ask for any more, each time the labels' watermark enters a new hour."""
        labels_low = state.labels.low(self._partitions, self._idle_ms)
        if labels_low // HOUR_MS <= state.swept:
            return
        state.swept = labels_low // HOUR_MS
        now = state.swept * HOUR_MS
        self._expire(state)
        oldest = now - self._keep_ms
        for key in list(state.rates):
            buckets = state.rates[key]
            gone = [start for start in buckets if start < oldest]
            for start in gone:
                del buckets[start]
            if not buckets:
                del state.rates[key]
            if gone:
                state.dirty.add(key)
