"""Outcome windows fed with columns: what `streams.outcomes.OutcomeWindows` does, a batch at a time.

The columns of one batch are those of one partition of one topic. Batches may be cut anywhere: the state is
the one that the same rows leave one by one, and of a window that was due several times within a batch the
last statement is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from schemas.columnar import Columns, Kind
from schemas.event import Event
from streams import canonical
from streams.column_join import LABEL, ColumnJoin, Matches
from streams.outcome_sums import SCORE_BINS, SUMS, Outcomes, add_up
from streams.outcomes import OutcomeRules, OutcomeState
from streams.store.hits import Mask, Store, Values
from streams.store.memory import MemoryStore
from streams.task import HOUR_MS, Task
from streams.waiting_rows import write_labels, write_predictions
from streams.watermark import Watermark

PREDICTION = np.dtype([("time", "<i8"), ("version", "<i8"), ("score", "<f8")])
"""A prediction that waits; `version` counts the versions of the state from 0."""
TIME = "time"
NEVER = 1 << 62
Name = Callable[[int], str]
"""The event id of a row of the batch: asked only for rows that make a window due."""
State = OutcomeState[ColumnJoin]


class OutcomeColumns:
    """PredictionMade and LabelObserved as columns -> SketchTaken(kind='outcomes')."""

    def __init__(self, task: Task, partitions: int) -> None:
        self.task = task
        self._rules = OutcomeRules(task, partitions)
        self.name = self._rules.name
        self.topics = self._rules.topics

    def projection(self, topic: str) -> dict[str, Kind]:
        """What it needs of the events of a topic; a runner that drops repeats needs their ids, too."""
        if topic == self._rules.predictions_topic:
            return {
                "event_id": "id",
                "event_time": "long",
                "model_version": "code",
                "score": "double",
            }
        return {"event_id": "id", "prediction_id": "id", "event_time": "long", "label": "long"}

    def initial(self, predictions: Store | None = None, labels: Store | None = None) -> State:
        """`predictions` holds PREDICTION, `labels` LABEL, with the time `TIME`; or both in memory."""
        return OutcomeState(
            ColumnJoin(
                self._rules.delay,
                MemoryStore(PREDICTION, TIME) if predictions is None else predictions,
                MemoryStore(LABEL, TIME) if labels is None else labels,
            )
        )

    def absorb(
        self, state: State, columns: Columns, texts: Mapping[str, Sequence[str]], name: Name
    ) -> list[Event]:
        """Apply a batch; returns the statements that it makes due.

        `texts["model_version"]`: the texts behind the codes of that path.
        """
        if not len(columns):
            return []
        state.due = {}
        predicted = columns.topic == self._rules.predictions_topic
        mine, other = (
            (state.predictions, state.labels) if predicted else (state.labels, state.predictions)
        )
        reached, hours = self._progress(mine, other, columns)
        before = np.concatenate(([state.closed_hour], hours[:-1]))
        closing = np.flatnonzero(hours > np.maximum(before, state.closed_hour)) + 1
        codes = state_codes(state, texts["model_version"]) if predicted else None
        begin = 0
        for end in [*closing.tolist(), len(columns)]:
            rows = slice(begin, end)
            if begin < end:
                if codes is not None:
                    self._predicted(state, columns, codes, rows)
                else:
                    self._labelled(state, columns, rows)
                mine.see(columns.partition, int(reached[end - 1]))
                self._rules.close(state, end - 1)
            begin = end
        return [
            self._rules.statement(window, state.windows[window], name(state.due[window]))
            for window in self._rules.due(state)
        ]

    def settle(self, state: State) -> State:
        """See `OutcomeWindows.settle`."""
        self._rules.expire(state)
        return state

    def fingerprint(self, state: State) -> str:
        """SHA-256 of the settled state: that of `OutcomeWindows` after the same events."""
        digest = hashlib.sha256()
        write = digest.update
        for spec in fields(state):
            if spec.metadata.get("transient"):
                continue
            canonical.encode(spec.name, write)
            if spec.name == "join":
                self._write_join(self.settle(state), write)
            else:
                canonical.encode(getattr(state, spec.name), write)
        return digest.hexdigest()

    def _write_join(self, state: State, write: Callable[[bytes], None]) -> None:
        """As the encoding of a LabelJoin that holds the same."""
        join = state.join
        canonical.encode("delay_ms", write)
        canonical.encode(join.delay_ms, write)
        canonical.encode("predictions", write)
        write_predictions(join.waiting_predictions, state.versions, write)
        canonical.encode("labels", write)
        write_labels(join.waiting_labels, join.more, write)

    def _progress(
        self, mine: Watermark, other: Watermark, columns: Columns
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Per row: stream time of the partition, and the hour that both topics have reached."""
        others = {p: t for p, t in mine.times.items() if p != columns.partition}
        reached = np.maximum.accumulate(columns.data["event_time"])
        reached = np.maximum(reached, mine.times.get(columns.partition, -1))
        high = np.maximum(reached, max(others.values(), default=-1))
        slowest = min(
            (others.get(p, -1) for p in range(self._rules.partitions) if p != columns.partition),
            default=NEVER,
        )
        counted = columns.partition < self._rules.partitions
        low = np.minimum(reached, slowest) if counted else np.full(len(reached), slowest)
        low = np.where(high < 0, -1, np.maximum(low, high - self._rules.idle_ms))
        until = other.low(self._rules.partitions, self._rules.idle_ms)
        return reached, np.minimum(low, until) // HOUR_MS

    def _predicted(
        self, state: State, columns: Columns, codes: NDArray[np.int64], rows: slice
    ) -> None:
        data = columns.data
        values = np.empty(rows.stop - rows.start, PREDICTION)
        values["time"] = data["event_time"][rows]
        values["version"] = _known(codes, data["model_version"][rows], columns)
        values["score"] = data["score"][rows]
        for outcomes, where in self._windows(state, values, np.arange(rows.start, rows.stop)):
            outcomes.count += int(where.sum())
        matches = state.join.predictions(data["event_id"][rows], values)
        self._matched(state, matches, rows.start)

    def _labelled(self, state: State, columns: Columns, rows: slice) -> None:
        data = columns.data
        matches = state.join.labels(
            data["prediction_id"][rows], data["event_time"][rows], data["label"][rows]
        )
        self._matched(state, matches, rows.start)

    def _matched(self, state: State, matches: Matches, begin: int) -> None:
        prediction, label = matches.prediction, matches.label["label"]
        for outcomes, where in self._windows(state, prediction, matches.row + begin):
            score = prediction["score"][where]
            known = ~np.isnan(score)
            counts = np.zeros((2, SCORE_BINS), np.int64)
            sums = np.zeros(SUMS, np.int64)
            add_up(score[known], label[where][known], counts, sums)
            outcomes.add_all(counts, sums)

    def _windows(
        self, state: State, values: Values, row: NDArray[np.int64]
    ) -> list[tuple[Outcomes, Mask]]:
        """The windows that predictions belong to, and which of them are whose; forgotten ones have none."""
        start = values["time"] // self._rules.width * self._rules.width
        kept = start >= self._rules.oldest(state.closed_hour)
        found = []
        for version, begin in _distinct(values["version"][kept], start[kept]):
            where = kept & (values["version"] == version) & (start == begin)
            window = state.versions[version], begin
            self._rules.changed(state, window, int(row[where][-1]))
            found.append((state.windows.setdefault(window, Outcomes()), where))
        return found


def state_codes(state: State, texts: Sequence[str]) -> NDArray[np.int64]:
    """The number that each of `texts` has in the state, which may have been restored from another process."""
    for text in texts:
        if text not in state.versions:
            state.versions.append(text)
    return np.array([state.versions.index(text) for text in texts], np.int64)


def _known(
    codes: NDArray[np.int64], found: NDArray[np.int32], columns: Columns
) -> NDArray[np.int64]:
    if found.min() < 0:
        raise ValueError(
            f"{columns.topic}[{columns.partition}]: more model versions than the decoder's dictionary holds; "
            "give it a larger capacity"
        )
    return codes[found]


def _distinct(version: NDArray[np.int64], start: NDArray[np.int64]) -> list[tuple[int, int]]:
    if not len(start):
        return []
    if (version == version[0]).all() and (start == start[0]).all():
        return [(int(version[0]), int(start[0]))]
    pairs = np.unique(np.stack((version, start), axis=1), axis=0)
    return [(version, start) for version, start in pairs.tolist()]
