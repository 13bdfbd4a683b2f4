"""Takes dataset snapshots: history -> Parquet under its hash -> SnapshotTaken; reads them back verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from models import snapshot_file, training
from models.artifacts import ArtifactStore
from models.dataset import Dataset, from_arrow
from models.history import History
from models.lineage import Cut, Run
from models.snapshot_file import Offsets, Span
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

    def take(self, run: Run, offsets: Offsets, pause: Callable[[float], object]) -> Cut:
        """Cut the training set out of the log before `offsets`, once the history holds that part.

        `pause(seconds)` is called between looks. Raises HistoryUnavailable.
        """
        span = snapshot_file.training_span(run.task, int(run.asked["labels_until"]))
        sql = snapshot_file.snapshot_sql(run.task, span, offsets)
        self._history.wait_for(offsets, self._patience_s, pause)
        return self._store_rows(
            run.task, from_arrow(run.task, self._history.query(sql)), span, sql, offsets
        )

    def take_golden(self, run: Run, training_set: Taken, rows: Dataset) -> Cut | None:
        """Set the golden rows of a training set aside for good; None while they are too few."""
        mask = training.golden_set(run.task, rows)
        if mask is None:
            return None
        offsets = {(at["topic"], at["partition"]): at["offset"] for at in training_set["offsets"]}
        span = Span(training_set["from_time"], training_set["to_time"])
        sql = snapshot_file.golden_sql(training_set["sql"], run.task.gate.golden_share)
        return self._store_rows(run.task, rows.where(mask), span, sql, offsets)

    def load(self, task: Task, taken: Taken) -> Dataset:
        """The rows of a snapshot; raises ArtifactRefused if its file is not the one that was taken."""
        data = self._store.read(taken["path"], taken["snapshot"])
        return snapshot_file.from_parquet(task, data)

    def _store_rows(self, task: Task, rows: Dataset, span: Span, sql: str, offsets: Offsets) -> Cut:
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
        )
