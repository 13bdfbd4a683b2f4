"""Snapshots: the point-in-time join on real tables, the same bytes for the same rows, the golden set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.artifacts import ArtifactRefused, ArtifactStore
from models.dataset import Dataset, from_arrow, golden_rows, to_arrow
from models.history import History, HistoryUnavailable
from models.lineage import Run
from models.snapshot_file import (
    Span,
    from_parquet,
    golden_sql,
    snapshot_sql,
    to_parquet,
    training_span,
)
from models.snapshots import Snapshots
from schemas.event import Event, Position
from streams import quarantine
from streams.task import DAY_MS, HOUR_MS, Numeric, Recipe, Task
from tests.unit.models.model_parts import START_MS, WEAR, asked, rows
from tests.unit.models.snapshot_history import answer, apart

SHORT = Task(
    name="wear",
    features=WEAR.features,
    label="breaks",
    label_delay_hours=10,
    recipe=Recipe(training_days=2),
)
HOUR = HOUR_MS


def prediction(name: str, at: int, place: int, size: float = 1.0) -> Event:
    features = {"size": size, "speed": None, "colour": "red"}
    data = {"event_id": name, "event_time": at, "caused_by": None, "features": features}
    data |= {"model_version": "wear-0", "score": 0.5, "label": 0}
    return Event("wear.predictions", "PredictionMade", data, Position("wear.predictions", 0, place))


def label(name: str, at: int, place: int, value: int) -> Event:
    data = {"event_id": f"{name}@{place}", "event_time": at, "caused_by": None}
    data |= {"prediction_id": name, "label": value}
    return Event("wear.labels", "LabelObserved", data, Position("wear.labels", 1, place))


UNTIL = START_MS + 2 * DAY_MS
SINCE = START_MS
EVENTS = [
    prediction("too old", SINCE - 1, 0),
    prediction("oldest", SINCE, 1),
    prediction("plain", SINCE + HOUR, 2),
    prediction("same time", SINCE + HOUR, 3),
    prediction("label in the future", UNTIL - HOUR, 4),
    prediction("label too late", SINCE + 2 * HOUR, 5),
    prediction("last moment", SINCE + 3 * HOUR, 6),
    prediction("never labelled", SINCE + 4 * HOUR, 7),
    prediction("labelled twice", SINCE + 5 * HOUR, 8),
    prediction("plain", SINCE + HOUR, 9, size=2.0),
    prediction("beyond the offset", SINCE + 6 * HOUR, 10),
    prediction("label beyond the offset", SINCE + 7 * HOUR, 8 + 3),
    label("too old", SINCE + HOUR, 0, 1),
    label("oldest", SINCE + HOUR, 1, 1),
    label("plain", SINCE + 2 * HOUR, 2, 0),
    label("same time", SINCE + 2 * HOUR, 3, 7),
    label("label in the future", UNTIL, 4, 1),
    label("label too late", SINCE + 12 * HOUR + 1, 5, 1),
    label("last moment", SINCE + 13 * HOUR, 6, 1),
    label("labelled twice", SINCE + 9 * HOUR, 7, 1),
    label("labelled twice", SINCE + 8 * HOUR, 8, 0),
    label("beyond the offset", SINCE + 8 * HOUR, 9, 1),
    label("label beyond the offset", SINCE + 8 * HOUR, 30, 1),
    label("of nobody", SINCE + 8 * HOUR, 10, 1),
]
OFFSETS = {("wear.predictions", 0): 10, ("wear.labels", 1): 30}
ALL = {("wear.predictions", 0): 99, ("wear.labels", 1): 99}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[pa.Table]:
    folder = tmp_path_factory.mktemp("snapshots")
    span = training_span(SHORT, UNTIL)
    queries = [snapshot_sql(SHORT, span, offsets) for offsets in (OFFSETS, ALL, {})]
    queries.append(golden_sql(queries[0], 0.05))
    left_out = [
        quarantine.Span(SINCE, SINCE + HOUR, ""),
        quarantine.Span(SINCE + 5 * HOUR, UNTIL, ""),
    ]
    queries.append(snapshot_sql(SHORT, span, OFFSETS, left_out))
    return apart(answer, folder, SHORT, EVENTS, queries)


def test_a_snapshot_holds_what_was_known_then_and_no_more(answers: list[pa.Table]) -> None:
    found = from_arrow(SHORT, answers[0])
    assert list(zip(found.ids.tolist(), found.labels.tolist(), strict=True)) == [
        ("oldest", 1),
        ("plain", 0),
        ("same time", 1),
        ("last moment", 1),
        ("labelled twice", 1),
    ]
    assert found.times.tolist()[:2] == [SINCE, SINCE + HOUR]
    assert found.label_times.tolist()[-1] == SINCE + 9 * HOUR
    assert found.columns["size"].tolist() == [1.0] * 5, "the first record of an event counts"
    assert np.isnan(found.columns["speed"]).all()
    assert found.columns["colour"].tolist() == ["red"] * 5


def test_the_query_names_its_part_of_the_log(answers: list[pa.Table]) -> None:
    more = set(answers[1].column("event_id").to_pylist()) - set(
        answers[0].column("event_id").to_pylist()
    )
    assert more == {"beyond the offset", "label beyond the offset"}
    assert answers[2].num_rows == 0
    assert answers[3].equals(answers[0])


def test_predictions_in_quarantine_are_left_out(answers: list[pa.Table]) -> None:
    found = answers[4].column("event_id").to_pylist()
    assert found == ["plain", "same time", "last moment"]


def test_equal_rows_are_equal_bytes(answers: list[pa.Table]) -> None:
    data = from_arrow(SHORT, answers[0])
    first = to_parquet(SHORT, data)
    again = from_parquet(SHORT, first)
    assert to_parquet(SHORT, again) == first
    assert again.columns["colour"].tolist() == data.columns["colour"].tolist()
    flipped = Dataset(data.ids, data.times, 1 - data.labels, data.label_times, data.columns)
    assert to_parquet(SHORT, flipped) != first


def test_a_feature_that_came_later_is_missing_in_an_old_file() -> None:
    old = to_parquet(WEAR, rows(10))
    newer = Task("wear", (*WEAR.features, Numeric("weight")), label="breaks")
    found = from_parquet(newer, old)
    assert np.isnan(found.columns["weight"]).all()
    assert found.columns["size"].tolist() == rows(10).columns["size"].tolist()


class Stored(History):
    """A history whose queries are answered from here."""

    def __init__(self, table: pa.Table, positions: list[int | None]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.table, self._places, self.asked = table, positions, list[str]()

    def query(self, sql: str) -> pa.Table:
        if "positions" not in sql:
            self.asked.append(sql)
            return self.table
        place = self._places.pop(0) if len(self._places) > 1 else self._places[0]
        if place is None:
            raise HistoryUnavailable("it is away")
        names = {"topic": ["wear.labels"], "partition": [1], "stored": [place]}
        return pa.table(names)


def test_nothing_is_read_before_the_history_is_there() -> None:
    history = Stored(to_arrow(WEAR, rows(1)), [0, None, 12, 29, 30])
    pauses: list[float] = []
    history.wait_for({("wear.labels", 1): 30}, 60, pauses.append)
    assert len(pauses) == 4


def test_a_history_that_stands_still_is_given_up_with_the_number_of_events() -> None:
    history = Stored(to_arrow(WEAR, rows(1)), [12])
    with pytest.raises(HistoryUnavailable, match="18 events of the log are not in the history yet"):
        history.wait_for({("wear.labels", 1): 30}, 0, lambda _: None)


def test_a_server_that_does_not_answer_is_said_in_one_line() -> None:
    with pytest.raises(HistoryUnavailable, match="the history does not answer") as caught:
        History("http://127.0.0.1:1").query("SELECT 1")
    assert "\n" not in str(caught.value)


def test_the_golden_set_is_cut_from_a_training_set_that_is_large_enough(tmp_path: Path) -> None:
    data = rows(1_500)
    store = ArtifactStore(tmp_path)
    snapshots = Snapshots(Stored(to_arrow(WEAR, data), [30]), store)
    run = Run(WEAR, asked("r1", START_MS + 30 * DAY_MS).data, "wear-1")
    cut = snapshots.take(run, {("wear.labels", 1): 30}, lambda _: None)
    taken = run.snapshot_taken(cut, "training").data
    assert (taken["rows"], taken["positives"]) == (1_500, data.positives)
    assert taken["offsets"] == [{"topic": "wear.labels", "partition": 1, "offset": 30}]
    assert hashlib.sha256((tmp_path / taken["path"]).read_bytes()).hexdigest() == taken["snapshot"]
    assert snapshots.load(WEAR, taken).ids.tolist() == data.ids.tolist()

    golden = snapshots.take_golden(run, taken, data)
    assert golden is not None
    kept = snapshots.load(WEAR, run.snapshot_taken(golden, "golden").data)
    assert kept.ids.tolist() == data.ids[golden_rows(data.ids, 0.1)].tolist()
    assert snapshots.take_golden(run, taken, data.where(np.arange(1_500) < 200)) is None

    (tmp_path / taken["path"]).unlink()
    with pytest.raises(ArtifactRefused):
        snapshots.load(WEAR, taken)


def test_the_span_is_that_of_the_recipe() -> None:
    assert training_span(SHORT, UNTIL) == Span(UNTIL - 2 * DAY_MS, UNTIL)
