"""The evidence about versions: losses of answers and shadow answers that met their labels.

A fold in integers: whatever partition or topic is read first, the same sums come out. An answer says by
itself (`route`) to which step and arm of a rollout it belongs, so no other topic has to be known for that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import labels_topic, predictions_topic, shadows_topic
from schemas.event import Event
from streams.canonical import transient
from streams.join import LabelJoin
from streams.sequential import Sums, loss
from streams.task import DAY_MS, HOUR_MS, Task
from streams.watermark import Watermark

LEVEL_MS = HOUR_MS // 6
"""Losses of a version are kept by ten minutes of its answers' event time."""
SCORE_BINS = 10
MAX_ROUTE = 100
CHAMPION, CHALLENGER, NULL = "champion", "challenger", "null"
"""Arms of a route; 'null': the challenger was asked and had no answer, the champion stood in."""

Answer = tuple[str, float, str | None]
"""(model version, score, route)"""
Shadow = tuple[str, float, float]
"""(rollout or promotion, score that was answered, score in the shadow)"""


@dataclass(slots=True)
class Arm:
    """One arm of one step: who was dealt to it, how it scored, what its labels cost."""

    exposures: int = 0
    bins: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    losses: Sums = field(default_factory=Sums)


@dataclass(slots=True)
class Pair:
    """A version in the shadow beside the one that answered: both scored the same."""

    exposures: int = 0
    nulls: int = 0
    answered: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    shadowed: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    differences: Sums = field(default_factory=Sums)
    """Loss in the shadow minus loss of the answer."""
    losses: Sums = field(default_factory=Sums)
    """Of the answers."""


@dataclass
class EvidenceState:
    answers: LabelJoin[Answer]
    shadows: LabelJoin[Shadow]
    arms: dict[str, Arm] = field(default_factory=dict)
    """'<rollout id>/<step>/<arm>' -> what it showed."""
    pairs: dict[str, Pair] = field(default_factory=dict)
    """rollout or promotion id -> what the shadow showed."""
    levels: dict[str, dict[int, Sums]] = field(default_factory=dict)
    """version -> start of ten minutes (ms) -> losses."""
    answered: Watermark = field(default_factory=Watermark)
    labelled: Watermark = field(default_factory=Watermark)
    shadowed: Watermark = field(default_factory=Watermark)
    swept: int = 0
    revisions: dict[str, int] = transient(default_factory=dict)
    """version -> how often its levels changed: whoever sums them up need not do it again."""


class Evidence:
    """What one event adds to the state of a task. Pure."""

    def __init__(self, task: Task, partitions: int) -> None:
        self._partitions = partitions
        self._delay = task.label_delay_ms
        self._predictions = predictions_topic(task.name)
        self._labels = labels_topic(task.name)
        self._shadows = shadows_topic(task.name)
        policy = task.rollout
        self._paired = policy.strategy == "shadow" or policy.shadow_previous
        self.topics: tuple[str, ...] = (self._predictions, self._labels)
        if self._paired:
            self.topics += (self._shadows,)
        self._keep_ms = max(policy.baseline_ms, policy.watch_ms) + self._delay + DAY_MS
        self._idle_ms = 2 * task.window_ms + self._delay

    def initial(self) -> EvidenceState:
        return EvidenceState(LabelJoin(self._delay), LabelJoin(self._delay))

    def add(self, state: EvidenceState, event: Event) -> bool:
        """True if something can be decided by it that could not before."""
        partition = event.at.partition if event.at else 0
        data = event.data
        if event.topic == self._predictions:
            state.answered.see(partition, event.time)
            news = self._answer(state, event, data)
        elif event.topic == self._labels:
            state.labelled.see(partition, event.time)
            news = self._label(state, data["prediction_id"], event.time, data["label"])
        else:
            state.shadowed.see(partition, event.time)
            news = self._shadow(state, event.time, data)
        self._sweep(state)
        return news

    def settle(self, state: EvidenceState) -> None:
        """Forget what can no longer meet, as of the watermarks."""
        labels = self._hour(state.labelled)
        answers = self._hour(state.answered)
        state.answers.expire(labels, answers)
        if self._paired:
            slowest = answers - self._idle_ms // HOUR_MS * HOUR_MS
            state.shadows.expire(labels, max(self._hour(state.shadowed), slowest))

    def _hour(self, watermark: Watermark) -> int:
        return watermark.low(self._partitions, self._idle_ms) // HOUR_MS * HOUR_MS

    def _answer(self, state: EvidenceState, event: Event, data: Any) -> bool:
        version, score, route = data["model_version"], data["score"], data.get("route")
        if route is not None and len(route) > MAX_ROUTE:
            route = None
        if route is not None:
            arm = state.arms.setdefault(route, Arm())
            arm.exposures += 1
            arm.bins[_bin(score)] += 1
        match = state.answers.prediction(event.id, event.time, (version, score, route))
        if match is not None:
            self._known(state, match.time, match.payload, match.label)
        return match is not None or route is not None

    def _label(self, state: EvidenceState, of: str, time: int, label: int) -> bool:
        match = state.answers.label(of, time, label)
        if match is not None:
            self._known(state, match.time, match.payload, match.label)
        if not self._paired:
            return match is not None
        pair = state.shadows.label(of, time, label)
        if pair is not None:
            _compared(state, pair.payload, pair.label)
        return match is not None or pair is not None

    def _shadow(self, state: EvidenceState, time: int, data: Any) -> bool:
        pair = state.pairs.setdefault(data["reason_id"], Pair())
        pair.exposures += 1
        pair.answered[_bin(data["answered_score"])] += 1
        if data["score"] is None:
            pair.nulls += 1
            return True
        pair.shadowed[_bin(data["score"])] += 1
        payload = data["reason_id"], data["answered_score"], data["score"]
        match = state.shadows.prediction(data["prediction_id"], time, payload)
        if match is not None:
            _compared(state, match.payload, match.label)
        return match is not None

    def _known(self, state: EvidenceState, time: int, answer: Answer, label: int) -> None:
        version, score, route = answer
        cost = loss(score, label)
        if route is not None:
            state.arms.setdefault(route, Arm()).losses.add(cost)
        bucket = time // LEVEL_MS * LEVEL_MS
        if bucket >= state.swept * HOUR_MS - self._keep_ms:
            state.levels.setdefault(version, {}).setdefault(bucket, Sums()).add(cost)
            state.revisions[version] = state.revisions.get(version, 0) + 1

    def _sweep(self, state: EvidenceState) -> None:
        """Each time the labels' watermark enters a new hour."""
        if state.labelled.high() // HOUR_MS <= state.swept:
            return
        hour = self._hour(state.labelled) // HOUR_MS
        if hour <= state.swept:
            return
        state.swept = hour
        self.settle(state)
        oldest = hour * HOUR_MS - self._keep_ms
        for version in list(state.levels):
            levels = state.levels[version]
            for start in [start for start in levels if start < oldest]:
                del levels[start]
                state.revisions[version] = state.revisions.get(version, 0) + 1
            if not levels:
                del state.levels[version]


def level(state: EvidenceState, version: str, since: int, until: int | None = None) -> Sums:
    """Losses of a version's answers of [since, until) (ms), to ten minutes."""
    found = Sums()
    first = since // LEVEL_MS * LEVEL_MS
    for start, sums in state.levels.get(version, {}).items():
        if start >= first and (until is None or start < until):
            found.merge(sums)
    return found


def _compared(state: EvidenceState, shadow: Shadow, label: int) -> None:
    reason, answered, score = shadow
    pair = state.pairs.setdefault(reason, Pair())
    cost = loss(answered, label)
    pair.losses.add(cost)
    pair.differences.add(loss(score, label) - cost)


def _bin(score: float) -> int:
    return min(max(int(score * SCORE_BINS), 0), SCORE_BINS - 1)
