"""The label join: predictions meet labels that come hours later, in any order, exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from streams.canonical import transient

T = TypeVar("T")
Key = str | bytes
"""The id of a prediction: its text, or the 128 bits that stand for it."""


@dataclass(slots=True)
class Counts:
    """What became of predictions and labels so far, apart from those that wait."""

    matched: int = 0
    unmatched: int = 0
    """Predictions that aged out: no label came in time."""
    unused: int = 0
    """Labels that aged out: too late, a second one, or of a prediction that is not known."""
    late: int = 0
    """Labels that met their prediction too late; they are among those that age out."""


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """A prediction that met its label; times in ms."""

    time: int
    payload: T
    label_time: int
    label: int


@dataclass(slots=True)
class LabelJoin(Generic[T]):
    """Waiting predictions (with the payload of interest) and waiting labels.

    A label counts if its event time is at most `delay_ms` after its prediction's, and the first one in
    its partition wins. Which of the two topics was read further does not change the outcome, nor, once
    `expire` has been called with the watermarks, what is left waiting: so a late label does not take its
    prediction away (it might have been forgotten by then), both are left to time.
    """

    delay_ms: int
    predictions: dict[Key, tuple[int, T]] = field(default_factory=dict)
    labels: dict[Key, list[tuple[int, int]]] = field(default_factory=dict)
    """prediction id -> (time, label) in the order of their partition."""
    counts: Counts = transient(default_factory=Counts)

    def prediction(self, event_id: Key, time: int, payload: T) -> Match[T] | None:
        """The match, if its label was waiting."""
        waiting = self.labels.get(event_id)
        if waiting and self._in_time(time, waiting[0][0]):
            label_time, label = waiting.pop(0)
            if not waiting:
                del self.labels[event_id]
            self.counts.matched += 1
            return Match(time, payload, label_time, label)
        self.predictions[event_id] = (time, payload)
        return None

    def label(self, prediction_id: Key, time: int, label: int) -> Match[T] | None:
        """The match, if its prediction was waiting."""
        prediction = self.predictions.get(prediction_id)
        first = prediction_id not in self.labels
        if prediction is not None and first and self._in_time(prediction[0], time):
            del self.predictions[prediction_id]
            self.counts.matched += 1
            return Match(*prediction, time, label)
        self.labels.setdefault(prediction_id, []).append((time, label))
        return None

    def expire(self, labels_until: int, predictions_until: int) -> None:
        """Forget predictions whose label can no longer count, and labels whose prediction cannot come.

        `labels_until` / `predictions_until`: watermarks of the two topics (ms).
        """
        for key in [
            k for k, (time, _) in self.predictions.items() if time + self.delay_ms < labels_until
        ]:
            del self.predictions[key]
            self.counts.unmatched += 1
        for key in [
            k for k, labels in self.labels.items() if any(t < predictions_until for t, _ in labels)
        ]:
            waiting = self.labels[key]
            kept = [label for label in waiting if label[0] >= predictions_until]
            self.counts.unused += len(waiting) - len(kept)
            if kept:
                self.labels[key] = kept
            else:
                del self.labels[key]

    def _in_time(self, time: int, label_time: int) -> bool:
        in_time = label_time <= time + self.delay_ms
        self.counts.late += not in_time
        return in_time
