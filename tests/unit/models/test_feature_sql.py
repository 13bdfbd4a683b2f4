"""No training-serving skew: what the history computes for a moment is what serving had answered with then."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from models.feature_sql import feature_sql, logged
from models.feature_store import one_row, skew, skew_sql, vector_at
from models.history import History
from streams.features import FeatureFold, assemble
from streams.fold import Projector
from streams.task import HOUR_MS, Observed, Rate
from tests.unit.models.feature_stream import COMPUTED, SPAN, START, TASK, Stream
from tests.unit.models.snapshot_history import answer, apart

TAMPERED, ASKED_AT = "trip-7", START + 40 * HOUR_MS + 123
GIVEN = {"zone": 2.5, "carrier": "UA", "origin": "JFK"}


class Answered(History):
    """A history with answers at hand."""

    def __init__(self, answers: dict[str, pa.Table]) -> None:
        super().__init__("")
        self._answers = answers

    def query(self, sql: str) -> pa.Table:
        return self._answers[sql]


@pytest.fixture(scope="module")
def stream() -> Stream:
    return Stream(seed=4)


@pytest.fixture(scope="module")
def history(stream: Stream, tmp_path_factory: pytest.TempPathFactory) -> History:
    """ClickHouse's answers over the stream, in which one prediction was served a feature too high."""
    (place,) = (n for n, event in enumerate(stream.events) if event.id == TAMPERED)
    event = stream.events[place]
    features = {**event.data["features"], "late_2h": event.data["features"]["late_2h"] + 0.25}
    events = list(stream.events)
    events[place] = replace(event, data={**event.data, "features": features})
    spines = logged(TASK, *SPAN), one_row(TASK, GIVEN, ASKED_AT)
    queries = [feature_sql(TASK, feature, spine) for feature in COMPUTED for spine in spines]
    queries += [skew_sql(TASK, feature, SPAN) for feature in COMPUTED]
    folder = tmp_path_factory.mktemp("features")
    tables = apart(answer, folder, TASK, events, queries)
    return Answered(dict(zip(queries, tables, strict=True)))


@pytest.mark.parametrize("feature", COMPUTED, ids=lambda feature: feature.name)
def test_the_history_computes_what_was_served(
    stream: Stream, history: History, feature: Rate | Observed
) -> None:
    served = {id_: vector[feature.name] for id_, vector in stream.served.items()}
    found = history.query(feature_sql(TASK, feature, logged(TASK, *SPAN))).to_pydict()
    assert dict(zip(found["id"], found["value"], strict=True)) == served, "bit for bit"
    known = [value for value in served.values() if value is not None]
    assert len(set(known)) > 1, "the test has something to compare"
    assert len(known) < len(served), "missing values, too"


def test_a_vector_of_any_moment_is_what_serving_would_have_assembled(
    stream: Stream, history: History
) -> None:
    before = Projector([FeatureFold(TASK, 1)])
    before.feed([event for event in stream.events if event.time <= ASKED_AT])
    state = before.states["trips.features"]
    assert vector_at(history, TASK, GIVEN, ASKED_AT) == assemble(TASK, GIVEN, ASKED_AT, state.blob)


def test_what_was_served_otherwise_is_found_and_named(history: History) -> None:
    found = [skew(history, TASK, feature, SPAN) for feature in COMPUTED]
    assert [each.feature for each in found if not each.passed] == ["late_2h"]
    assert found[0].rows == found[1].equal == 900
    assert (found[0].equal, found[0].example) == (899, TAMPERED)
    assert found[0].largest == pytest.approx(0.25)
