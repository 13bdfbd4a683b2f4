"""Takes dataset snapshots: history -> Parquet under its hash -> SnapshotTaken; reads them back verified."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models import expected_rows, snapshot_file, training
from models.artifacts import ArtifactStore
from models.dataset import Dataset, from_arrow, golden_rows
from models.history import History
from models.lineage import Cut, Run
from models.snapshot_file import Offsets, Span
from streams import quarantine
from streams.quarantine import QuarantineState
from streams.task import Task

HISTORY_S = 120.0
"""How long the history may stand still before a snapshot fails for its sake."""

Taken = Mapping[str, Any]
"""The fields of a SnapshotTaken."""


class Snapshots:
    """Cuts and loads the datasets of a request."""

    def __init__(
        self, history: History, store: ArtifactStore, patience_s: float = HISTORY_S
    ) -> None:
        self._history = history
        self._store = store
        self._patience_s = patience_s

    def take(
        self,
        run: Run,
        offsets: Offsets,
        pause: Callable[[float], object],
        kept_out: QuarantineState | None = None,
    ) -> Cut:
        """Cut the training set out of the log before `offsets`, once the history holds that part.

        Left out is what is in quarantine (`kept_out`), and each window whose rows are not what the task
        expects of its features: windows of a version without a reference were never judged. `pause(seconds)`
        is called between looks. Raises HistoryUnavailable.
        """
        task = run.task
        span = snapshot_file.training_span(task, int(run.asked["labels_until"]))
        state = kept_out or QuarantineState()
        spans = quarantine.quarantined(state)
        excluded = quarantine.within(spans, span.from_time, span.to_time)
        sql = snapshot_file.snapshot_sql(task, span, offsets, excluded)
        self._history.wait_for(offsets, self._patience_s, pause)
        rows = from_arrow(task, self._history.query(sql))
        bad = expected_rows.failing_windows(task, rows)
        more = quarantine.without(bad, [*spans, *quarantine.released(state)])
        if more:
            excluded = sorted([*excluded, *more], key=lambda one: one.from_time)
            sql = snapshot_file.snapshot_sql(task, span, offsets, excluded)
            rows = rows.where(~expected_rows.inside(rows.times, more))
        return self._store_rows(task, rows, span, sql, offsets, excluded)

    def take_golden(self, run: Run, training_set: Taken, rows: Dataset) -> Cut | None:
        """Set the golden rows of a training set aside for good; None while they are too few."""
        mask = training.golden_set(run.task, rows)
        if mask is None:
            return None
        offsets = {(at["topic"], at["partition"]): at["offset"] for at in training_set["offsets"]}
        excluded = [
            quarantine.Span(one["from_time"], one["to_time"], one["reason"])
            for one in training_set.get("excluded", ())
        ]
        span = Span(training_set["from_time"], training_set["to_time"])
        sql = snapshot_file.golden_sql(training_set["sql"], run.task.gate.golden_share)
        return self._store_rows(run.task, rows.where(mask), span, sql, offsets, excluded)

    def rebuild(
        self, task: Task, taken: Taken, pause: Callable[[float], object] = time.sleep
    ) -> bytes:
        """The file of a snapshot made anew from the history, by the query that the log tells.

        Raises HistoryUnavailable.
        """
        offsets = {(at["topic"], at["partition"]): at["offset"] for at in taken["offsets"]}
        self._history.wait_for(offsets, self._patience_s, pause)
        rows = from_arrow(task, self._history.query(taken["sql"]))
        if taken["purpose"] == "golden":
            rows = rows.where(golden_rows(rows.ids, task.gate.golden_share))
        return snapshot_file.to_parquet(task, rows)

    def restore(self, data: bytes) -> None:
        """Put the file of a snapshot (back) into the store."""
        self._store.put_snapshot(data)

    def load(self, task: Task, taken: Taken) -> Dataset:
        """The rows of a snapshot; raises ArtifactRefused if its file is not the one that was taken."""
        data = self._store.read(taken["path"], taken["snapshot"])
        return snapshot_file.from_parquet(task, data)

    def _store_rows(
        self,
        task: Task,
        rows: Dataset,
        span: Span,
        sql: str,
        offsets: Offsets,
        excluded: Sequence[quarantine.Span] = (),
    ) -> Cut:
        stored = self._store.put_snapshot(snapshot_file.to_parquet(task, rows))
        return Cut(
            sha256=stored.sha256,
            path=stored.path,
            bytes=stored.bytes,
            rows=len(rows),
            positives=rows.positives,
            from_time=span.from_time,
            to_time=span.to_time,
            sql=sql,
            offsets=offsets,
            excluded=tuple(excluded),
        )
