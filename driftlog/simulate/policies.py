"""What may ask for a new model, besides a task's policy: a calendar, ADWIN, an oracle, nobody. Reactors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import RETRAIN_REQUESTS, labels_topic, predictions_topic
from schemas.event import Event, derive
from streams.task import DAY_MS, HOUR_MS, Task


def request(task: Task, time: int, cause: str, trigger: str, reason: str) -> Event:
    """RetrainRequested at `time`, with all labels that were known by then."""
    return derive(
        RETRAIN_REQUESTS,
        "RetrainRequested",
        *(task.name, trigger, time),
        time=time,
        caused_by=cause,
        task=task.name,
        trigger=trigger,
        reason=reason,
        actor="policy",
        labels_until=time,
        evidence={},
    )


class Calendar:
    """Reactor: asks every so many ms, counted from `since`; never if `every_ms` is None."""

    def __init__(self, task: Task, every_ms: int | None) -> None:
        self.task = task
        self.name = f"{task.name}.calendar"
        self.topics: tuple[str, ...] = (predictions_topic(task.name),) if every_ms else ()
        self._every = every_ms

    def initial(self) -> dict[str, Any]:
        return {"next": None, "due": []}

    def apply(self, state: dict[str, Any], batch: Sequence[Event]) -> dict[str, Any]:
        assert self._every is not None
        state["due"] = []
        for event in batch:
            if state["next"] is None:
                state["next"] = event.time // HOUR_MS * HOUR_MS + self._every
            while event.time >= state["next"]:
                reason = f"{self._every / DAY_MS:g} days are over"
                time = state["next"]
                state["due"].append(request(self.task, time, event.id, "schedule", reason))
                state["next"] += self._every
        return state

    def react(self, state: dict[str, Any], event: Event) -> list[Event]:  # noqa: ARG002
        due: list[Event] = state["due"]
        return due


class Oracle:
    """Reactor: knows when the world changes; asks `lags_ms` after each change."""

    def __init__(self, task: Task, changes: Sequence[int], lags_ms: Sequence[int]) -> None:
        self.task = task
        self.name = f"{task.name}.oracle"
        self.topics: tuple[str, ...] = (predictions_topic(task.name),)
        self._times = sorted(change + lag for change in changes for lag in lags_ms)

    def initial(self) -> dict[str, Any]:
        return {"told": -1, "due": []}

    def apply(self, state: dict[str, Any], batch: Sequence[Event]) -> dict[str, Any]:
        state["due"] = []
        for event in batch:
            passed = [time for time in self._times if state["told"] < time <= event.time]
            if passed and state["told"] >= 0:
                reason = "the world has changed"
                cause = event.id
                state["due"] += [request(self.task, t, cause, "oracle", reason) for t in passed]
            state["told"] = max(state["told"], event.time)
        return state

    def react(self, state: dict[str, Any], event: Event) -> list[Event]:  # noqa: ARG002
        due: list[Event] = state["due"]
        return due


@dataclass
class AdwinState:
    detector: Any
    scores: dict[str, float] = field(default_factory=dict)
    """Prediction -> its score, until its label comes."""
    due: list[Event] = field(default_factory=list)


class Adwin:
    """Reactor: river's ADWIN (Bifet & Gavalda 2007) on whether each decision was wrong, as labels come in.

    An alarm asks for a model, whichever way the error went, and the detector begins anew.
    """

    def __init__(self, task: Task, delta: float = 0.002) -> None:
        """`delta`: river's default."""
        self.task = task
        self.name = f"{task.name}.adwin"
        self.topics: tuple[str, ...] = (predictions_topic(task.name), labels_topic(task.name))
        self._delta = delta

    def initial(self) -> AdwinState:
        from river.drift import ADWIN  # takes seconds to import

        kind: Any = ADWIN
        return AdwinState(kind(delta=self._delta))

    def apply(self, state: AdwinState, batch: Sequence[Event]) -> AdwinState:
        state.due = []
        for event in batch:
            if event.topic == self.topics[0]:
                state.scores[event.id] = event.data["score"]
                continue
            score = state.scores.pop(event.data["prediction_id"], None)
            if score is None:
                continue
            decided = score >= self.task.decision_threshold
            state.detector.update(int(decided != bool(event.data["label"])))
            if state.detector.drift_detected:
                reason = f"ADWIN: the error has become {state.detector.estimation:.3f}"
                state.due.append(request(self.task, event.time, event.id, "adwin", reason))
                state.detector = self.initial().detector
        return state

    def react(self, state: AdwinState, event: Event) -> list[Event]:  # noqa: ARG002
        return state.due
