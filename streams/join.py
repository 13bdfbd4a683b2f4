"""The label join: predictions meet labels that come hours later, in any order, exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from streams.canonical import transient

T = TypeVar("T")


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
    its partition wins. Which of the two topics was read further does not change the outcome.
    """

    delay_ms: int
    predictions: dict[str, tuple[int, T]] = field(default_factory=dict)
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)
    late: int = transient(default=0)

    def prediction(self, event_id: str, time: int, payload: T) -> Match[T] | None:
        """The match, if its label was waiting."""
        label = self.labels.pop(event_id, None)
        if label is None:
            self.predictions[event_id] = (time, payload)
            return None
        return self._match(time, payload, *label)

    def label(self, prediction_id: str, time: int, label: int) -> Match[T] | None:
        """The match, if its prediction was waiting."""
        prediction = self.predictions.pop(prediction_id, None)
        if prediction is None:
            self.labels[prediction_id] = (time, label)
            return None
        return self._match(*prediction, time, label)

    def expire(self, labels_until: int, predictions_until: int) -> None:
        """Forget predictions whose label can no longer count, and labels whose prediction cannot come.

        `labels_until` / `predictions_until`: watermarks of the two topics (ms).
        """
        for key in [
            k for k, (time, _) in self.predictions.items() if time + self.delay_ms < labels_until
        ]:
            del self.predictions[key]
        for key in [k for k, (time, _) in self.labels.items() if time < predictions_until]:
            del self.labels[key]

    def _match(self, time: int, payload: T, label_time: int, label: int) -> Match[T] | None:
        if label_time > time + self.delay_ms:
            self.late += 1
            return None
        return Match(time, payload, label_time, label)
