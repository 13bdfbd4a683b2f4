"""Outcome windows: predictions joined with their labels, as histograms of the score by label.

A window closes when both topics have passed its end plus the label delay, so that its first statement is
complete; a label that arrives out of order later restates it. Sums are integers in fixed point: they add up
to the same number in any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.catalogue import SKETCHES, labels_topic, predictions_topic
from schemas.event import Event, derive
from streams.canonical import transient
from streams.join import LabelJoin, Match
from streams.task import HOUR_MS, Task
from streams.watermark import Watermark
from streams.windows import KEPT_WINDOWS, Window

SCORE_BINS = 50
FIXED_POINT = 1_000_000


@dataclass
class Outcomes:
    """Counts of one window; `scores[label][bin]`; sums in 1e-6."""

    count: int = 0
    scores: tuple[list[int], list[int]] = field(
        default_factory=lambda: ([0] * SCORE_BINS, [0] * SCORE_BINS)
    )
    log_loss: int = 0
    brier: int = 0
    score: int = 0
    revision: int = -1


@dataclass
class OutcomeState:
    join: LabelJoin[tuple[str, float]]
    windows: dict[Window, Outcomes] = field(default_factory=dict)
    predictions: Watermark = field(default_factory=Watermark)
    labels: Watermark = field(default_factory=Watermark)
    closed_hour: int = -1
    due: dict[Window, Outcomes] = transient(default_factory=dict)


class OutcomeWindows:
    """Reactor: PredictionMade + LabelObserved -> SketchTaken(kind='outcomes')."""

    def __init__(self, task: Task, partitions: int) -> None:
        self.task = task
        self.name = f"{task.name}.outcomes"
        self._predictions = predictions_topic(task.name)
        self.topics = (self._predictions, labels_topic(task.name))
        self._partitions = partitions
        self._width = task.window_ms
        self._delay = task.label_delay_ms
        self._idle_ms = 2 * self._width + self._delay

    def initial(self) -> OutcomeState:
        return OutcomeState(LabelJoin(self._delay))

    def apply(self, state: OutcomeState, batch: Sequence[Event]) -> OutcomeState:
        state.due = {}
        for event in batch:
            self._apply(state, event)
        return state

    def settle(self, state: OutcomeState) -> OutcomeState:
        """Forget what can no longer count as of the watermarks: what is left depends on no order."""
        self._expire(state)
        return state

    def react(self, state: OutcomeState, event: Event) -> list[Event]:
        return [
            self._statement(window, outcomes, event)
            for window, outcomes in sorted(
                state.due.items(), key=lambda item: (item[0][1], item[0][0])
            )
        ]

    def _apply(self, state: OutcomeState, event: Event) -> None:
        partition = event.at.partition if event.at else 0
        match: Match[tuple[str, float]] | None
        if event.topic == self._predictions:
            state.predictions.see(partition, event.time)
            version = event.data["model_version"]
            if not self._forgotten(state, event.time):
                self._window(state, version, event.time).count += 1
            payload = version, event.data["score"]
            match = state.join.prediction(event.id, event.time, payload)
        else:
            state.labels.see(partition, event.time)
            prediction_id = event.data["prediction_id"]
            match = state.join.label(prediction_id, event.time, event.data["label"])
        if match and not self._forgotten(state, match.time):
            self._matched(state, match)
        self._close(state)

    def _forgotten(self, state: OutcomeState, time: int) -> bool:
        return time // self._width * self._width < self._oldest(state.closed_hour * HOUR_MS)

    def _oldest(self, now: int) -> int:
        return now - self._width * KEPT_WINDOWS - self._delay

    def _window(self, state: OutcomeState, version: str, time: int) -> Outcomes:
        return state.windows.setdefault((version, time // self._width * self._width), Outcomes())

    def _matched(self, state: OutcomeState, match: Match[tuple[str, float]]) -> None:
        version, score = match.payload
        outcomes = self._window(state, version, match.time)
        positive = 1 if match.label else 0
        outcomes.scores[positive][min(int(score * SCORE_BINS), SCORE_BINS - 1)] += 1
        outcomes.log_loss += fixed(log_loss(score, positive))
        outcomes.brier += fixed((score - positive) ** 2)
        outcomes.score += fixed(score)
        if outcomes.revision >= 0:
            self._state(state, (version, match.time // self._width * self._width), outcomes)

    def _close(self, state: OutcomeState) -> None:
        predicted = state.predictions.low(self._partitions, self._idle_ms)
        labelled = state.labels.low(self._partitions, self._idle_ms)
        hour = min(predicted, labelled) // HOUR_MS
        if hour <= state.closed_hour:
            return
        state.closed_hour = hour
        now = hour * HOUR_MS
        for window, outcomes in state.windows.items():
            if outcomes.revision < 0 and window[1] + self._width + self._delay <= now:
                self._state(state, window, outcomes)
        oldest = self._oldest(now)
        for window in [w for w in state.windows if w[1] < oldest]:
            del state.windows[window]
        self._expire(state)

    def _expire(self, state: OutcomeState) -> None:
        labels = state.labels.low(self._partitions, self._idle_ms) // HOUR_MS * HOUR_MS
        predictions = state.predictions.low(self._partitions, self._idle_ms) // HOUR_MS * HOUR_MS
        state.join.expire(labels, predictions)

    @staticmethod
    def _state(state: OutcomeState, window: Window, outcomes: Outcomes) -> None:
        outcomes.revision += 1
        state.due[window] = outcomes

    def _statement(self, window: Window, outcomes: Outcomes, cause: Event) -> Event:
        version, start = window
        return derive(
            SKETCHES,
            "SketchTaken",
            *(self.task.name, version, "outcomes", start, -1, outcomes.revision),
            time=start + self._width + self._delay,
            caused_by=cause.id,
            task=self.task.name,
            model_version=version,
            kind="outcomes",
            window_start=start,
            window_end=start + self._width,
            partition=-1,
            revision=outcomes.revision,
            count=outcomes.count,
            columns=[
                {"name": f"score|{label}", "counts": list(counts), "missing": 0, "unseen": 0}
                for label, counts in enumerate(outcomes.scores)
            ],
            totals={
                "log_loss": outcomes.log_loss,
                "brier": outcomes.brier,
                "score": outcomes.score,
                "positives": sum(outcomes.scores[1]),
            },
        )


def log_loss(score: float, label: int) -> float:
    """Negative log-likelihood in nats; the score is kept 1e-7 away from 0 and 1."""
    score = min(max(score, 1e-7), 1 - 1e-7)
    return -math.log(score if label else 1 - score)


def fixed(value: float) -> int:
    """Fixed point: `value` in units of 1e-6."""
    return round(value * FIXED_POINT)
