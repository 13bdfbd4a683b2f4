"""Labels that cost something: they are asked for when drift or the estimate says so, and for few predictions.

Which predictions of a window can be chosen is settled within each partition, when its stream time passes the
end and the grace of the window; whether they are is settled by the first statement of its drift and the first
estimate of its performance. So a request depends on no order between topics or partitions.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import (
    DRIFT_SCORES,
    LABEL_REQUESTS,
    PERFORMANCE_ESTIMATES,
    predictions_topic,
)
from schemas.event import Event, derive
from streams.canonical import transient
from streams.complete import KEPT_WINDOWS
from streams.fold import id_hash
from streams.task import LABEL, SCORE, LabelPolicy, Task
from streams.verdict import DriftFacts

STRATA = 10
"""Equal bins of the score."""
LEAST_WEIGHT = 1e-6
Window = tuple[int, str]
"""(start, model version)"""


@dataclass(slots=True)
class Candidates:
    """The best of a window's predictions, per stratum (key, id, score), least key first."""

    count: int = 0
    best: dict[int, list[tuple[float, str, float]]] = field(default_factory=dict)

    def add(self, stratum: int, entry: tuple[float, str, float], most: int) -> None:
        """Keep the `most` least keys: the same whatever the order."""
        self.count += 1
        known = self.best.setdefault(stratum, [])
        if len(known) < most or entry < known[-1]:
            bisect.insort(known, entry)
            del known[most:]

    def chosen(self, budget: int) -> list[tuple[float, str, float]]:
        """In turn from each stratum until the budget is spent."""
        found: list[tuple[float, str, float]] = []
        for place in range(budget):
            for stratum in sorted(self.best):
                if place < len(self.best[stratum]) and len(found) < budget:
                    found.append(self.best[stratum][place])
        return found


@dataclass(slots=True)
class Said:
    """What is known of a window: a sentence per trigger ('' if it did not fire), and whose event that was."""

    end: int = 0
    drift: str | None = None
    drift_id: str = ""
    estimate: str | None = None
    estimate_id: str = ""


@dataclass(slots=True)
class LabellingState:
    times: dict[int, int] = field(default_factory=dict)
    """Partition -> its stream time."""
    candidates: dict[Window, Candidates] = field(default_factory=dict)
    said: dict[Window, Said] = field(default_factory=dict)
    reading: dict[str, tuple[int, int, DriftFacts]] = field(default_factory=dict)
    """Version -> window start, revision, and the facts of the drift statement that is being read."""
    drifted: dict[str, int] = field(default_factory=dict)
    """Version -> start of the last window whose drift was stated."""
    estimated: dict[str, int] = field(default_factory=dict)
    due: list[Event] = transient(default_factory=list)


class LabelRequests:
    """Reactor: PredictionMade + DriftScored + PerformanceEstimated -> LabelsRequested, once a window at most.

    Of a version that was registered without a calibration nothing is estimated, and nothing asked for.
    """

    def __init__(self, task: Task, partitions: int) -> None:
        self.task = task
        self.name = f"{task.name}.labelling"
        self.topics = (predictions_topic(task.name), DRIFT_SCORES, PERFORMANCE_ESTIMATES)
        self._policy = task.labelling or LabelPolicy()
        self._partitions = partitions
        self._width = task.window_ms

    def initial(self) -> LabellingState:
        return LabellingState()

    def apply(self, state: LabellingState, batch: Sequence[Event]) -> LabellingState:
        state.due = []
        for event in batch:
            if event.topic == self.topics[0]:
                self._predicted(state, event)
            elif event.data["task"] != self.task.name:
                continue
            elif event.topic == DRIFT_SCORES:
                self._drifted(state, event)
            else:
                self._estimated(state, event)
        return state

    def react(self, state: LabellingState, event: Event) -> list[Event]:  # noqa: ARG002
        return state.due

    def _predicted(self, state: LabellingState, event: Event) -> None:
        partition = event.at.partition if event.at else 0
        before = state.times.get(partition, -1)
        start = event.time // self._width * self._width
        score = event.data["score"]
        if score == score and before < self._closes(start):
            found = state.candidates.setdefault((start, event.data["model_version"]), Candidates())
            stratum, key = self._key(event.id, score)
            found.add(stratum, (key, event.id, score), self._policy.budget)
        if event.time > before:
            state.times[partition] = event.time
            if event.time // self._width > before // self._width or any(
                before < closes <= event.time
                for start, _ in state.said
                for closes in (self._closes(start), self._closes(start) + 2 * self._width)
            ):
                self._decide_all(state)
                self._forget(state)

    def _key(self, event_id: str, score: float) -> tuple[int, float]:
        """(stratum, key); keys are uniform, or races of exponentials whose rate is p (1 - p).

        Of the latter the least key is the next of a weighted draw without replacement (Efraimidis & Spirakis
        2006).
        """
        uniform = (id_hash(f"{self._policy.seed}|{event_id}") + 0.5) / 2**64
        p = min(max(score, 0.0), 1.0)
        if self._policy.strategy == "uncertainty":
            return 0, -math.log(uniform) / max(p * (1 - p), LEAST_WEIGHT)
        stratum = min(int(p * STRATA), STRATA - 1)
        return stratum if self._policy.strategy == "stratified" else 0, uniform

    def _drifted(self, state: LabellingState, event: Event) -> None:
        data, start, version = event.data, event.data["window_start"], event.data["model_version"]
        if data["feature"] == LABEL or start <= state.drifted.get(version, -1):
            return
        known = state.reading.get(version)
        if known is None or known[:2] != (start, data["revision"]):
            known = state.reading[version] = start, data["revision"], DriftFacts(data["count"])
        known[2].add(data)
        if data["feature"] != SCORE:
            return
        del state.reading[version]
        state.drifted[version] = start
        asked = "drift" in self._policy.triggers and known[2].votes(self.task)
        said = self._said(state, data)
        if said is not None:
            said.drift, said.drift_id = str(known[2]) if asked else "", event.id
            self._decide(state, (start, version))

    def _estimated(self, state: LabellingState, event: Event) -> None:
        data, start, version = event.data, event.data["window_start"], event.data["model_version"]
        if start <= state.estimated.get(version, -1):
            return
        state.estimated[version] = start
        said = self._said(state, data)
        if said is None:
            return
        expected, limit = data["expected_log_loss"], self._policy.max_log_loss_ratio
        worse = expected is not None and data["log_loss"] > expected * limit
        if worse and "estimate" in self._policy.triggers:
            said.estimate = (
                f"estimated log-loss {data['log_loss']:.3f} > {expected * limit:.3f}"
                f" ({expected:.3f} expected)"
            )
        else:
            said.estimate = ""
        said.estimate_id = event.id
        self._decide(state, (start, version))

    def _said(self, state: LabellingState, data: Mapping[str, Any]) -> Said | None:
        """Where to note what was said of a window; None if it is forgotten."""
        if data["window_start"] < self._horizon(state):
            return None
        window = data["window_start"], data["model_version"]
        return state.said.setdefault(window, Said(data["window_end"]))

    def _closes(self, start: int) -> int:
        return start + self._width + self.task.grace_ms

    def _closed(self, state: LabellingState, start: int) -> bool:
        """True if no partition can still add to the window; one that is two windows behind counts as idle."""
        closes = self._closes(start)
        return max(state.times.values(), default=-1) >= closes + 2 * self._width or all(
            state.times.get(partition, -1) >= closes for partition in range(self._partitions)
        )

    def _decide_all(self, state: LabellingState) -> None:
        for window in sorted(state.said):
            self._decide(state, window)

    def _decide(self, state: LabellingState, window: Window) -> None:
        said = state.said[window]
        if said.drift is None or said.estimate is None or not self._closed(state, window[0]):
            return
        del state.said[window]
        candidates = state.candidates.pop(window, None)
        sentences = [sentence for sentence in (said.drift, said.estimate) if sentence]
        if candidates is None or not sentences:
            return
        start, version = window
        policy = self._policy
        fired = (("drift", said.drift), ("estimate", said.estimate))
        state.due.append(
            derive(
                LABEL_REQUESTS,
                "LabelsRequested",
                *(self.task.name, version, start),
                time=self._closes(start),
                caused_by=said.drift_id if said.drift else said.estimate_id,
                task=self.task.name,
                model_version=version,
                window_start=start,
                window_end=said.end,
                trigger=",".join(name for name, sentence in fired if sentence),
                reason="; ".join(sentences),
                budget=policy.budget,
                strategy=policy.strategy,
                seed=policy.seed,
                candidates=candidates.count,
                predictions=[
                    {"prediction_id": name, "score": score}
                    for _, name, score in candidates.chosen(policy.budget)
                ],
            )
        )

    def _horizon(self, state: LabellingState) -> int:
        """Windows that begin before this are forgotten, decided or not."""
        slowest = min(state.times.get(partition, 0) for partition in range(self._partitions))
        return (slowest // self._width - KEPT_WINDOWS) * self._width

    def _forget(self, state: LabellingState) -> None:
        horizon = self._horizon(state)
        for start, version in [w for w in state.candidates if w[0] < horizon]:
            del state.candidates[start, version]
        for window in [w for w in state.said if w[0] < horizon]:
            del state.said[window]
