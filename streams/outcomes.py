"""Outcome windows: predictions joined with their labels, as histograms of the score by label.

A window closes when both topics have passed its end plus the label delay, so that its first statement is
complete; whatever changes it later restates it. Sums are integers in fixed point: they add up to the same
number in any order.

Two ways in: `OutcomeWindows` takes events one by one (simulation, replay of decoded events), and
`streams.outcome_columns` takes columns. They share all but the join, and leave the same state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from schemas.catalogue import SKETCHES, labels_topic, predictions_topic
from schemas.event import Event, derive
from streams.canonical import transient
from streams.column_join import ColumnJoin
from streams.event_key import event_key
from streams.join import LabelJoin, Match
from streams.outcome_sums import Outcomes, log_loss
from streams.task import HOUR_MS, Task
from streams.watermark import Watermark
from streams.windows import KEPT_WINDOWS, Window

__all__ = ["OutcomeRules", "OutcomeState", "OutcomeWindows", "Outcomes", "log_loss"]

Payload = tuple[str, float]
"""(model version, score)"""
J = TypeVar("J", LabelJoin[Payload], ColumnJoin)


@dataclass
class OutcomeState(Generic[J]):
    join: J
    windows: dict[Window, Outcomes] = field(default_factory=dict)
    predictions: Watermark = field(default_factory=Watermark)
    labels: Watermark = field(default_factory=Watermark)
    closed_hour: int = -1
    versions: list[str] = transient(default_factory=list)
    """Of columns: the texts behind the numbers in the join."""
    due: dict[Window, int] = transient(default_factory=dict)
    """Windows to be stated, and the row of the batch that was the cause."""


class OutcomeRules:
    """When windows close, are restated and forgotten, and what is said of them."""

    def __init__(self, task: Task, partitions: int) -> None:
        self.task = task
        self.name = f"{task.name}.outcomes"
        self.predictions_topic = predictions_topic(task.name)
        self.topics = (self.predictions_topic, labels_topic(task.name))
        self.partitions = partitions
        self.width = task.window_ms
        self.delay = task.label_delay_ms
        self.idle_ms = 2 * self.width + self.delay

    def start_of(self, time: int) -> int:
        """Of the window that holds `time`."""
        return time // self.width * self.width

    def oldest(self, closed_hour: int) -> int:
        """Windows that begin before this are forgotten."""
        return closed_hour * HOUR_MS - self.width * KEPT_WINDOWS - self.delay

    def changed(self, state: OutcomeState[J], window: Window, row: int) -> None:
        """A window that had closed is due again; one that is open will be stated when it closes."""
        if window[1] + self.width + self.delay <= state.closed_hour * HOUR_MS:
            state.due[window] = max(row, state.due.get(window, row))

    def hour(self, state: OutcomeState[J]) -> int:
        """The hour that both topics have reached."""
        predicted = state.predictions.low(self.partitions, self.idle_ms)
        labelled = state.labels.low(self.partitions, self.idle_ms)
        return min(predicted, labelled) // HOUR_MS

    def close(self, state: OutcomeState[J], row: int) -> None:
        """State what closes at the watermarks, and forget what is too old."""
        hour = self.hour(state)
        if hour <= state.closed_hour:
            return
        before, state.closed_hour = state.closed_hour * HOUR_MS, hour * HOUR_MS
        for window in state.windows:
            if before < window[1] + self.width + self.delay <= state.closed_hour:
                state.due[window] = row
        state.closed_hour = hour
        oldest = self.oldest(hour)
        for window in [w for w in state.windows if w[1] < oldest]:
            del state.windows[window]
            state.due.pop(window, None)
        self.expire(state)

    def expire(self, state: OutcomeState[J]) -> None:
        """Forget what can no longer meet, as of the watermarks in whole hours."""
        labels = state.labels.low(self.partitions, self.idle_ms) // HOUR_MS * HOUR_MS
        predictions = state.predictions.low(self.partitions, self.idle_ms) // HOUR_MS * HOUR_MS
        state.join.expire(labels, predictions)

    def due(self, state: OutcomeState[J]) -> list[Window]:
        """Windows to be stated, by start and version."""
        return sorted(state.due, key=lambda window: (window[1], window[0]))

    def statement(self, window: Window, outcomes: Outcomes, cause: str) -> Event:
        """SketchTaken of a window as it stands; `cause`: id of the event that made it due."""
        version, start = window
        return derive(
            SKETCHES,
            "SketchTaken",
            *(self.task.name, version, "outcomes", start, -1, outcomes.revision),
            time=start + self.width + self.delay,
            caused_by=cause,
            task=self.task.name,
            model_version=version,
            kind="outcomes",
            window_start=start,
            window_end=start + self.width,
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


class OutcomeWindows:
    """Reactor: PredictionMade + LabelObserved -> SketchTaken(kind='outcomes')."""

    def __init__(self, task: Task, partitions: int) -> None:
        self.task = task
        self._rules = OutcomeRules(task, partitions)
        self.name = self._rules.name
        self.topics = self._rules.topics

    def initial(self) -> OutcomeState[LabelJoin[Payload]]:
        return OutcomeState(LabelJoin(self._rules.delay))

    def apply(
        self, state: OutcomeState[LabelJoin[Payload]], batch: Sequence[Event]
    ) -> OutcomeState[LabelJoin[Payload]]:
        state.due = {}
        for row, event in enumerate(batch):
            self._apply(state, event, row)
            self._rules.close(state, row)
        return state

    def settle(self, state: OutcomeState[LabelJoin[Payload]]) -> OutcomeState[LabelJoin[Payload]]:
        """Forget what can no longer count as of the watermarks: what is left depends on no order."""
        self._rules.expire(state)
        return state

    def react(self, state: OutcomeState[LabelJoin[Payload]], event: Event) -> list[Event]:
        return [
            self._rules.statement(window, state.windows[window], event.id)
            for window in self._rules.due(state)
        ]

    def _apply(self, state: OutcomeState[LabelJoin[Payload]], event: Event, row: int) -> None:
        partition = event.at.partition if event.at else 0
        match: Match[Payload] | None
        if event.topic == self._rules.predictions_topic:
            state.predictions.see(partition, event.time)
            version, score = event.data["model_version"], event.data["score"]
            outcomes = self._window(state, version, event.time, row)
            if outcomes is not None:
                outcomes.count += 1
            match = state.join.prediction(event_key(event.id), event.time, (version, score))
        else:
            state.labels.see(partition, event.time)
            prediction = event_key(event.data["prediction_id"])
            match = state.join.label(prediction, event.time, event.data["label"])
        if match:
            version, score = match.payload
            outcomes = self._window(state, version, match.time, row)
            if outcomes is not None and score == score:
                outcomes.add(score, 1 if match.label else 0)

    def _window(
        self, state: OutcomeState[LabelJoin[Payload]], version: str, time: int, row: int
    ) -> Outcomes | None:
        """The window of an event that changes it; None if it was forgotten."""
        window = version, self._rules.start_of(time)
        if window[1] < self._rules.oldest(state.closed_hour):
            return None
        self._rules.changed(state, window, row)
        return state.windows.setdefault(window, Outcomes())
