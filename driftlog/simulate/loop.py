"""The closed loop in memory and virtual time: predictions, labels, windows, policy, real training, gates.

The folds, the reactors and `models.training.train` are the live system's own; only the log is in memory, with
one partition, and a model answers `LATENCY_MS` after it was asked for. What asks for models is any reactor:
so policies are compared that differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftlog.simulate.history import History
from models.dataset import Dataset
from models.gates import Verdict
from models.recipes import CannotTrain, constant
from models.scorer import Scorer
from models.training import Champion, golden_set, train
from schemas.catalogue import (
    DEPLOYMENTS,
    DRIFT_SCORES,
    MODEL_VERSIONS,
    PERFORMANCE_SCORES,
    QUALITY_REPORTS,
    SKETCHES,
    labels_topic,
    predictions_topic,
)
from schemas.event import Event, derive
from streams.estimation import Estimation
from streams.fold import Fold, Reactor
from streams.outcomes import OutcomeWindows
from streams.policy import RetrainReactor
from streams.scoring import Scoring
from streams.task import DAY_MS, HOUR_MS, Task
from streams.window_rows import InputWindows

LATENCY_MS = 10 * 60_000
"""Virtual time from a request for a model to its first answer."""
CHUNK = 2_000
"""Rows that a champion scores at once; what follows a promotion is scored anew."""
SCORED = frozenset((SKETCHES, DRIFT_SCORES, PERFORMANCE_SCORES, QUALITY_REPORTS))
"""Topics that a policy can only read if windows are summarised and scored."""

Tell = Callable[[int], None]
"""Told the event time that was reached."""


@dataclass(frozen=True)
class Retrain:
    """One training: `time` it was asked for (ms), by what trigger and why, and what became of it."""

    time: int
    trigger: str
    reason: str
    rows: int
    promoted: bool
    verdict: str


@dataclass
class Run:
    """What one arm did: `scores` of all rows (NaN where it had no trained model yet)."""

    name: str
    scores: NDArray[np.float64]
    retrains: list[Retrain] = field(default_factory=list)
    read: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """Rows whose labels some training read."""
    drift: list[dict[str, Any]] = field(default_factory=list)
    """Data of the drift and performance events, for a look behind the decisions."""


@dataclass(frozen=True)
class First:
    """The first real model: its file, since when it answers, until when it learned."""

    onnx: bytes
    since: int
    retrain: Retrain


class Trainer:
    """What the live trainer does on a request: a snapshot, a challenger, its gates, the golden set."""

    def __init__(self, task: Task, history: History) -> None:
        self._task = task
        self._history = history
        self._golden: Dataset | None = None
        self.champion: Champion | None = None
        self.versions = 1
        self.verdicts: list[Verdict] = []
        """Of all challengers, with everything that was measured about them."""
        self.read = np.zeros(len(history.data), dtype=np.bool_)

    def serve(self, request: Event) -> tuple[list[Event], Retrain, bytes | None]:
        """ModelRegistered and its decision (nothing if no model could be made), and the file if promoted."""
        asked, until = request.data, request.data["labels_until"]
        since = until - self._task.recipe.training_days * DAY_MS
        times, label_times = self._history.data.times, self._history.data.label_times
        self.read |= (times >= since) & (label_times < until)
        rows = self._history.known(since, until)
        if self._golden is None and (mask := golden_set(self._task, rows)) is not None:
            self._golden = rows.where(mask)
        version = f"{self._task.name}-{self.versions}"

        def done(promoted: bool, verdict: str) -> Retrain:
            why = asked["trigger"], asked["reason"]
            return Retrain(request.time, *why, len(rows), promoted, verdict)

        try:
            made = train(
                *(self._task, rows, until, self.champion, self._golden, version),
                tried_since=asked.get("tried_since", ()),
            )
        except CannotTrain as error:
            return [], done(False, str(error)), None
        self.versions += 1
        passed = made.verdict.passed
        answers = [
            registered(
                *(self._task, version, request, made.metrics, made.reference, len(rows)),
                calibration=list(made.calibration),
                estimate_errors=dict(made.estimate_errors),
            ),
            derive(
                *(DEPLOYMENTS, "ModelPromoted" if passed else "PromotionRejected", version),
                time=request.time + LATENCY_MS,
                caused_by=request.id,
                task=self._task.name,
                model_version=version,
                reason=made.verdict.reason,
            ),
        ]
        if passed:
            scorer = Scorer.from_bytes(made.onnx)
            self.champion = Champion(version, scorer, until, len(made.onnx))
        self.verdicts.append(made.verdict)
        return answers, done(passed, made.verdict.reason), made.onnx if passed else None


def registered(
    task: Task,
    version: str,
    request: Event | None,
    metrics: dict[str, float],
    reference: list[dict[str, Any]],
    count: int,
    **more: Any,
) -> Event:
    """A ModelRegistered with the fields that folds read."""
    return derive(
        *(MODEL_VERSIONS, "ModelRegistered", version),
        time=request.time + LATENCY_MS if request else 0,
        caused_by=request.id if request else None,
        task=task.name,
        model_version=version,
        metrics=metrics,
        reference=reference,
        reference_count=count,
        **more,
    )


class Answers:
    """The scores of whoever is champion: scored ahead in chunks, from a promotion on by the new one."""

    def __init__(self, history: History, scorer: Scorer) -> None:
        self._history = history
        self.scores = np.empty(len(history.data))
        self._ready = 0
        self.install(scorer, 0)

    def install(self, scorer: Scorer, row: int) -> None:
        """`scorer` answers from `row` on."""
        self._scorer, self._ready = scorer, row

    def score(self, row: int) -> float:
        if row >= self._ready:
            end = min(row + CHUNK, len(self.scores))
            self.scores[row:end] = score_rows(self._scorer, self._history, row, end)
            self._ready = end
        return float(self.scores[row])


def score_rows(scorer: Scorer, history: History, start: int, end: int) -> NDArray[np.float64]:
    columns = {name: values[start:end] for name, values in history.data.columns.items()}
    return scorer.score_columns(columns, end - start)


class Loop:
    """The closed loop over a history's moments, under a policy (default: the task's own)."""

    def __init__(
        self, task: Task, history: History, policy: Reactor | None = None, name: str = "loop"
    ) -> None:
        """`policy`: answers RetrainRequested, and may read any topic that the loop knows.

        The task's own policy asks for the first real model, then `policy` takes over. None: no other does.
        """
        self._task = task
        self._history = history
        self._name = name
        self._policy = policy
        self._folds: list[tuple[Fold, Any]] = []
        self._drive([*_monitors(task), RetrainReactor(task)])
        self._trainer = Trainer(task, history)
        self._answers = Answers(history, Scorer.from_bytes(constant(task, None, 0)))
        self._version = f"{task.name}-0"
        self._promotions: list[tuple[int, list[Event], bytes | None]] = []
        self._waiting: list[Event] = []
        self._hours: dict[str, int] = {}
        self.retrains: list[Retrain] = []
        self.drift: list[dict[str, Any]] = []
        self.first: First | None = None
        self.first_row = 0

    def run(self, tell: Tell = lambda time: None, *, only_first: bool = False) -> Run:
        """Live through the history; with `only_first` until the first real model answers."""
        self._publish([registered(self._task, self._version, None, {}, [], 0)])
        for row, event in self._events():
            self._promote(event.time, row)
            if event.type == "PredictionMade":
                event.data["model_version"] = self._version  # type: ignore[index]
                event.data["score"] = self._answers.score(row)  # type: ignore[index]
            self._waiting.append(event)
            hour = event.time // HOUR_MS
            if self._hours.get(event.topic) != hour:  # nothing closes or is decided within an hour
                self._hours[event.topic] = hour
                self._flush()
                tell(event.time)
            if only_first and self.first:
                break
        self._flush()
        scores = self._answers.scores
        scores[: self.first_row if self.first else len(scores)] = np.nan
        return Run(self._name, scores, self.retrains, self._trainer.read, self.drift)

    def _events(self) -> Iterator[tuple[int, Event]]:
        data = self._history.data
        vectors = zip(*(_values(column) for column in data.columns.values()), strict=True)
        topics = predictions_topic(self._task.name), labels_topic(self._task.name)
        names, ids, times = list(data.columns), data.ids, data.times.tolist()
        labels, label_times = data.labels.tolist(), data.label_times.tolist()
        for row, labelled in self._history.moments:
            if labelled:
                about = {"prediction_id": ids[row], "label": labels[row]}
                id_, time = f"label-{row}", label_times[row]
            else:
                about = {"features": dict(zip(names, next(vectors), strict=True))}
                id_, time = ids[row], times[row]
            fields = {"event_id": id_, "event_time": time, "caused_by": None, **about}
            kind = "LabelObserved" if labelled else "PredictionMade"
            yield row, Event(topics[labelled], kind, fields)

    def _drive(self, folds: Sequence[Fold]) -> None:
        known = {fold.name: state for fold, state in self._folds}
        self._folds = [(f, known[f.name] if f.name in known else f.initial()) for f in folds]

    def _flush(self) -> None:
        self._publish(self._waiting)
        self._waiting = []

    def _publish(self, events: Sequence[Event]) -> None:
        """Append to the log in memory: every fold reads it, and what reactors answer is appended too."""
        while events:
            more: list[Event] = []
            for place, (fold, state) in enumerate(self._folds):
                mine = [event for event in events if event.topic in fold.topics]
                if not mine:
                    continue
                after = fold.apply(state, mine)
                self._folds[place] = fold, after
                if isinstance(fold, Reactor):
                    more += fold.react(after, mine[-1])
            for answer in more:
                if answer.type == "RetrainRequested":
                    self._train(answer)
                elif answer.type in (*("DriftScored", "PerformanceMeasured"), "EstimateReconciled"):
                    self.drift.append(dict(answer.data))
            events = [answer for answer in more if answer.type != "RetrainRequested"]

    def _train(self, request: Event) -> None:
        answers, retrain, onnx = self._trainer.serve(request)
        self.retrains.append(retrain)
        self._promotions.append((request.time + LATENCY_MS, answers, onnx))

    def _promote(self, now: int, row: int) -> None:
        """The trainer's answers appear in the log when their time has come."""
        while self._promotions and self._promotions[0][0] <= now:
            self._flush()
            since, events, onnx = self._promotions.pop(0)
            if onnx is not None:
                row = int(np.searchsorted(self._history.data.times, now))
                self._answers.install(Scorer.from_bytes(onnx), row)
                self._version = events[0].data["model_version"]
                if self.first is None:
                    self.first = First(onnx, since, self.retrains[-1])
                    self.first_row = row
            if self._policy and self.first:
                needed = _monitors(self._task) if SCORED.intersection(self._policy.topics) else []
                self._drive([*needed, self._policy])
            self._publish(events)


def _monitors(task: Task) -> list[Fold]:
    return [InputWindows(task), OutcomeWindows(task, 1), Scoring(task, 1), Estimation(task, 1)]


def _values(column: NDArray[Any]) -> list[Any]:
    """As a served vector has them: None where a number is missing."""
    return [None if value != value else value for value in column.tolist()]
