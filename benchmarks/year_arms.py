"""The arms of the year: the loop, and what is trained on a calendar or never. All answer the same requests.

The loop is the live system's own: one `Projector` drives the windows, the scoring and the retrain policy;
`models.training.train` makes and judges the challengers. Only the log is in memory, and time is virtual: a
model answers `LATENCY_MS` after it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.year_stream import Year
from models.dataset import Dataset, golden_rows
from models.gates import Verdict
from models.recipes import CannotTrain, constant, fit
from models.scorer import Scorer
from models.training import Champion, golden_set, train
from schemas.catalogue import DEPLOYMENTS, MODEL_VERSIONS, labels_topic, predictions_topic
from schemas.event import Event, derive
from streams.estimation import Estimation
from streams.fold import Projector
from streams.outcomes import OutcomeWindows
from streams.policy import RetrainReactor
from streams.scoring import Scoring
from streams.task import DAY_MS, Task
from streams.window_rows import InputWindows

LATENCY_MS = 10 * 60_000
"""Virtual time from a request for a model to its first answer."""
CHUNK = 2_000
"""Rows that a champion scores at once; what follows a promotion is scored anew."""

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
    """The first real model, which all arms share: its file, since when it answers, until when it learned."""

    onnx: bytes
    since: int
    retrain: Retrain


class Trainer:
    """What the live trainer does on a request: a snapshot, a challenger, its gates, the golden set."""

    def __init__(self, task: Task, year: Year) -> None:
        self._task = task
        self._year = year
        self._golden: Dataset | None = None
        self.champion: Champion | None = None
        self.versions = 1
        self.verdicts: list[Verdict] = []
        """Of all challengers, with everything that was measured about them."""
        self.read = np.zeros(len(year.data), dtype=np.bool_)

    def serve(self, request: Event) -> tuple[list[Event], Retrain, bytes | None]:
        """ModelRegistered and its decision (nothing if no model could be made), and the file if promoted."""
        asked, until = request.data, request.data["labels_until"]
        since = until - self._task.recipe.training_days * DAY_MS
        times, label_times = self._year.data.times, self._year.data.label_times
        self.read |= (times >= since) & (label_times < until)
        rows = self._year.known(since, until)
        if self._golden is None and (mask := golden_set(self._task, rows)) is not None:
            self._golden = rows.where(mask)
        version = f"{self._task.name}-{self.versions}"

        def done(promoted: bool, verdict: str) -> Retrain:
            why = asked["trigger"], asked["reason"]
            return Retrain(request.time, *why, len(rows), promoted, verdict)

        try:
            made = train(self._task, rows, until, self.champion, self._golden, version)
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

    def __init__(self, year: Year, scorer: Scorer) -> None:
        self._year = year
        self.scores = np.empty(len(year.data))
        self._ready = 0
        self.install(scorer, 0)

    def install(self, scorer: Scorer, row: int) -> None:
        """`scorer` answers from `row` on."""
        self._scorer, self._ready = scorer, row

    def score(self, row: int) -> float:
        if row >= self._ready:
            end = min(row + CHUNK, len(self.scores))
            self.scores[row:end] = score_rows(self._scorer, self._year, row, end)
            self._ready = end
        return float(self.scores[row])


def score_rows(scorer: Scorer, year: Year, start: int, end: int) -> NDArray[np.float64]:
    columns = {name: values[start:end] for name, values in year.data.columns.items()}
    return scorer.score_columns(columns, end - start)


class Loop:
    """The closed loop over the year's moments."""

    def __init__(self, task: Task, year: Year) -> None:
        self._task = task
        self._year = year
        self._projector = Projector(
            [
                InputWindows(task),
                OutcomeWindows(task, 1),
                Scoring(task, 1),
                Estimation(task, 1),
                RetrainReactor(task),
            ]
        )
        self._trainer = Trainer(task, year)
        self._answers = Answers(year, Scorer.from_bytes(constant(task, None, 0)))
        self._version = f"{task.name}-0"
        self._promotions: list[tuple[int, list[Event], bytes | None]] = []
        self.retrains: list[Retrain] = []
        self.drift: list[dict[str, Any]] = []
        self.first: First | None = None
        self.first_row = 0

    def run(self, tell: Tell = lambda time: None, *, only_first: bool = False) -> Run:
        """Live through the year; with `only_first` until the first real model answers."""
        self._publish([registered(self._task, self._version, None, {}, [], 0)])
        for row, event in self._events():
            self._promote(event.time, row)
            if event.type == "PredictionMade":
                event.data["model_version"] = self._version  # type: ignore[index]
                event.data["score"] = self._answers.score(row)  # type: ignore[index]
                tell(event.time)
            self._publish([event])
            if only_first and self.first:
                break
        scores = self._answers.scores
        scores[: self.first_row] = np.nan
        return Run("loop", scores, self.retrains, self._trainer.read, self.drift)

    def _events(self) -> Iterator[tuple[int, Event]]:
        data = self._year.data
        vectors = zip(*(_values(column) for column in data.columns.values()), strict=True)
        topics = predictions_topic(self._task.name), labels_topic(self._task.name)
        names, ids, times = list(data.columns), data.ids, data.times.tolist()
        labels, label_times = data.labels.tolist(), data.label_times.tolist()
        for row, labelled in self._year.moments:
            if labelled:
                about = {"prediction_id": ids[row], "label": labels[row]}
                id_, time = f"label-{row}", label_times[row]
            else:
                about = {"features": dict(zip(names, next(vectors), strict=True))}
                id_, time = ids[row], times[row]
            fields = {"event_id": id_, "event_time": time, "caused_by": None, **about}
            kind = "LabelObserved" if labelled else "PredictionMade"
            yield row, Event(topics[labelled], kind, fields)

    def _publish(self, events: list[Event]) -> None:
        """Append to the log in memory: every fold reads it, and what reactors answer is appended too."""
        while events:
            event = events.pop(0)
            answers = self._projector.react(event)
            events += [answer for answer in answers if answer.type != "RetrainRequested"]
            for answer in answers:
                if answer.type == "RetrainRequested":
                    self._train(answer)
                elif answer.type in (*("DriftScored", "PerformanceMeasured"), "EstimateReconciled"):
                    self.drift.append(dict(answer.data))

    def _train(self, request: Event) -> None:
        answers, retrain, onnx = self._trainer.serve(request)
        self.retrains.append(retrain)
        self._promotions.append((request.time + LATENCY_MS, answers, onnx))

    def _promote(self, now: int, row: int) -> None:
        """The trainer's answers appear in the log when their time has come."""
        while self._promotions and self._promotions[0][0] <= now:
            since, events, onnx = self._promotions.pop(0)
            if onnx is not None:
                row = int(np.searchsorted(self._year.data.times, now))
                self._answers.install(Scorer.from_bytes(onnx), row)
                self._version = events[0].data["model_version"]
                if self.first is None:
                    self.first = First(onnx, since, self.retrains[-1])
                    self.first_row = row
            self._publish(events)


def scheduled(
    task: Task, year: Year, name: str, first: First, every_days: int | None, tell: Tell
) -> Run:
    """The shared first model; then, every so many days at its hour, a model that is installed ungated.

    `every_days` None: never. This is what a cron job does: the same recipe on the same rows as the loop's.
    """
    data, start = year.data, first.retrain.time
    golden = golden_rows(data.ids, task.gate.golden_share)
    run = Run(name, np.full(len(data), np.nan), [], np.zeros(len(data), dtype=np.bool_))
    end = int(data.times[-1]) + 1
    asked = range(start, end, (every_days or len(data)) * DAY_MS)
    for time, until in zip(asked, [*asked[1:], end], strict=True):
        since = time - task.recipe.training_days * DAY_MS
        read = (data.times >= since) & (data.label_times < time)
        run.read |= read
        if time == start:
            onnx, retrain = first.onnx, first.retrain
        else:
            rows = data.where(read & ~golden)
            onnx = fit(task, rows, task.recipe.name, task.recipe.parameters, task.recipe.seed)
            why = "schedule", f"{every_days} days are over"
            retrain = Retrain(time, *why, len(rows), True, "not gated")
        run.retrains.append(retrain)
        begin, stop = np.searchsorted(data.times, [time + LATENCY_MS, until + LATENCY_MS])
        run.scores[begin:stop] = score_rows(Scorer.from_bytes(onnx), year, begin, stop)
        tell(until)
    return run


def _values(column: NDArray[Any]) -> list[Any]:
    """As a served vector has them: None where a number is missing."""
    return [None if value != value else value for value in column.tolist()]
