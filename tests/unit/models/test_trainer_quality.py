"""The trainer and the quality of its data: a leak ends the request in one line, whenever the trainer dies."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models.artifacts import ArtifactStore
from models.dataset import Dataset, to_arrow
from models.history import History
from models.snapshots import Snapshots
from models.trainer import Trainer
from models.trainer_metrics import TrainerMetrics
from schemas.catalogue import QUALITY_COMMANDS
from schemas.event import Event, derive
from streams.expectations import Expect
from streams.quarantine import RELEASED, SET
from streams.task import DAY_MS, Category, Numeric, Task
from tests.unit.models.memory_trainer import Killed, MemoryLog
from tests.unit.models.model_parts import START_MS, UNTIL_MS, WEAR, asked, rows


class Rows(History):
    """A history that answers each query with the rows outside the spans that the query leaves out."""

    def __init__(self, task: Task, data: Dataset) -> None:
        super().__init__("http://127.0.0.1:1")
        self._task, self._data = task, data

    def positions(self, partitions: Any) -> Any:
        return dict(partitions)

    def query(self, sql: str) -> pa.Table:
        mask = np.ones(len(self._data), np.bool_)
        for part in sql.split("AND NOT (")[1:]:
            start, end = (int(word.split(",")[0]) for word in part.split("Milli(")[1:3])
            mask &= ~((self._data.times >= start) & (self._data.times < end))
        return to_arrow(self._task, self._data.where(mask))


def lived(
    task: Task, data: Dataset, folder: Path, events: list[Event], until: int | None = None
) -> list[Event]:
    """What the log holds when a trainer has answered what is in it, or has died before event `until`."""
    log, store = MemoryLog(events, until, task=task), ArtifactStore(folder)
    snapshots = Snapshots(Rows(task, data), store)
    stop = threading.Event()
    trainer = Trainer([task], log, snapshots, store, TrainerMetrics(), stop)  # type: ignore[arg-type]
    try:
        trainer.start()
        while pending := trainer.pending():
            trainer._answer(pending[0])
    except Killed:
        pass
    return log.events


def of(type_: str, events: list[Event]) -> list[dict[str, Any]]:
    return [dict(event.data) for event in events if event.type == type_]


FEATURES = (*WEAR.features, Numeric("late_note"))
LEAKY = dataclasses.replace(WEAR, features=FEATURES)


def leaking(data: Dataset) -> Dataset:
    values = data.labels + np.random.default_rng(5).normal(0, 0.3, len(data))
    return dataclasses.replace(data, columns={**data.columns, "late_note": values})


def test_a_leaky_feature_ends_the_request_in_one_line(tmp_path: Path) -> None:
    events = lived(LEAKY, leaking(rows(1_500)), tmp_path, [asked("r1", UNTIL_MS)])
    (failed,) = of("TrainingFailed", events)
    assert failed["reason"].startswith("quality: late_note alone tells the label: AUC 0.99")
    assert of("TrainingStarted", events) == []
    assert len(of("ModelRegistered", events)) == 1, "the cold start's"
    (checked,) = of("QualityChecked", events)
    assert (checked["subject"], checked["passed"]) == ("snapshot", False)
    assert checked["caused_by"] == of("SnapshotTaken", events)[0]["event_id"]


@pytest.mark.parametrize("leaks", [False, True])
def test_a_trainer_that_dies_after_any_event_ends_in_the_same_log(
    leaks: bool, tmp_path: Path
) -> None:
    data = rows(800)
    data = leaking(data) if leaks else data
    task = LEAKY if leaks else WEAR
    whole = lived(task, data, tmp_path, [asked("r1", UNTIL_MS)])
    ids = [event.id for event in whole]
    assert of("TrainingFailed" if leaks else "TrainingFinished", whole)
    for until in range(1, len(whole)):
        cut = lived(task, data, tmp_path, [asked("r1", UNTIL_MS)], until)
        assert len(cut) == until
        again = [event.id for event in lived(task, data, tmp_path, cut)]
        assert again == ids, f"died before event {until}"


def test_a_feature_that_suddenly_matters_is_held_against_the_champion(tmp_path: Path) -> None:
    data = rows(1_500)
    noise = np.random.default_rng(6).normal(0, 1, len(data))
    honest = dataclasses.replace(data, columns={**data.columns, "late_note": noise})
    first = lived(LEAKY, honest, tmp_path, [asked("r1", UNTIL_MS)])
    assert of("TrainingFailed", first) == [] and len(of("ModelPromoted", first)) == 2
    leak = data.labels + noise * 0.5
    leaky = dataclasses.replace(data, columns={**data.columns, "late_note": leak})
    events = lived(LEAKY, leaky, tmp_path, [*first, asked("r2", UNTIL_MS)])
    (failed,) = of("TrainingFailed", events)
    assert failed["reason"].startswith("quality: late_note tells the label as never before")


BOUNDED = dataclasses.replace(
    WEAR,
    features=(Numeric("size", expect=Expect(maximum=1)), Numeric("speed"), Category("colour")),
)
DAY_ONE = START_MS // DAY_MS * DAY_MS + DAY_MS


def command(type_: str, start: int, end: int) -> Event:
    about = {"from_time": start, "to_time": end, "actor": "ann", "reason": "a broken sensor"}
    return derive(QUALITY_COMMANDS, type_, start, time=0, caused_by=None, task="wear", **about)


def spoilt() -> Dataset:
    """1,600 rows, 80 a day; on day one a size is 40."""
    data = rows(1_600)
    size = data.columns["size"].copy()
    size[100] = 40.0
    return dataclasses.replace(data, columns={**data.columns, "size": size})


def test_windows_out_of_range_and_spans_in_quarantine_do_not_train(tmp_path: Path) -> None:
    more = command(SET, DAY_ONE + 3 * DAY_MS, DAY_ONE + 4 * DAY_MS)
    events = lived(BOUNDED, spoilt(), tmp_path, [more, asked("r1", UNTIL_MS)])
    taken = of("SnapshotTaken", events)
    excluded = [
        {
            "from_time": DAY_ONE,
            "to_time": DAY_ONE + DAY_MS,
            "reason": "size: values up to 40, at most 1 expected",
        },
        {
            "from_time": DAY_ONE + 3 * DAY_MS,
            "to_time": DAY_ONE + 4 * DAY_MS,
            "reason": "a broken sensor",
        },
    ]
    assert [one["excluded"] for one in taken] == [excluded, excluded]
    assert taken[0]["rows"] == 1_600 - 2 * 80
    again = Rows(BOUNDED, spoilt()).query(taken[0]["sql"])
    assert len(again) == taken[0]["rows"], "the query leaves out the same"


def test_what_a_person_released_trains(tmp_path: Path) -> None:
    release = command(RELEASED, DAY_ONE, DAY_ONE + DAY_MS)
    events = lived(BOUNDED, spoilt(), tmp_path, [release, asked("r1", UNTIL_MS)])
    taken = of("SnapshotTaken", events)[0]
    assert (taken["excluded"], taken["rows"]) == ([], 1_600)
