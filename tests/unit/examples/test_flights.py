"""The flights: a real year, told as it became known."""

from __future__ import annotations

from itertools import islice

import pandas as pd
import pytest

from driftlog import Ask, Observation, Truth
from examples.flights import task
from examples.flights_data import ASKED_BEFORE_MS, EASTERN, HOUR_MS, _file, load_flights, moments
from tests.unit.examples.stream import check_stream

LATE_BY_MONTH = [0.227, 0.228, 0.228, 0.279, 0.220, 0.308, 0.315, 0.238, 0.132, 0.168, 0.174, 0.326]
DAY_MS = 24 * HOUR_MS


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return load_flights()


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return pd.read_csv(_file("flights.csv.zip"))


@pytest.fixture(scope="module")
def stream() -> list[Ask | Truth | Observation]:
    return list(moments())


def test_moments_come_in_time_order_and_each_label_after_its_question(
    stream: list[Ask | Truth | Observation],
) -> None:
    check_stream(stream)


def test_the_whole_year_is_there(stream: list[Ask | Truth | Observation]) -> None:
    count = {kind: sum(type(m) is kind for m in stream) for kind in (Ask, Truth, Observation)}
    assert count == {Ask: 336_776, Truth: 327_346, Observation: 26_115}


def test_share_of_late_arrivals_by_month(flights: pd.DataFrame) -> None:
    departure = pd.to_datetime(flights["asked"] + ASKED_BEFORE_MS, unit="ms", utc=True)
    month = departure.dt.tz_convert(EASTERN).dt.month
    found = flights["late"].groupby(month).mean()
    assert found.index.tolist() == list(range(1, 13))
    assert found.tolist() == pytest.approx(LATE_BY_MONTH, abs=0.005)


def test_a_question_holds_the_schedule_and_nothing_of_the_flight_itself(
    stream: list[Ask | Truth | Observation],
) -> None:
    asks = [moment for moment in stream if isinstance(moment, Ask)]
    for ask in asks[::5_000]:
        assert set(ask.instance) == set(task.given)
        assert None not in ask.instance.values()


def test_the_same_schedule_is_asked_alike_however_late_the_flight_was(
    flights: pd.DataFrame,
) -> None:
    """Scheduled minutes come from the timetable: they do not depend on the actual times."""
    same = ["asked", "carrier", "origin", "dest"]
    spread = flights.groupby(same)["scheduled_minutes"].nunique()
    assert (spread > 1).mean() < 0.001
    known = flights.dropna(subset="late")
    assert abs(known["scheduled_minutes"].corr(known["late"].astype(float))) < 0.05


def test_it_is_asked_two_hours_before_the_scheduled_departure(
    flights: pd.DataFrame, raw: pd.DataFrame
) -> None:
    row = 0  # UA 1545, 1 January, scheduled 05:15 in New York, which is 10:15 UTC
    assert raw.loc[row, ["carrier", "flight", "sched_dep_time"]].tolist() == ["UA", 1545, 515]
    asked = pd.Timestamp(flights.loc[row, "asked"], unit="ms", tz="UTC")
    assert asked == pd.Timestamp("2013-01-01 08:15", tz="UTC")


def test_labels_come_at_the_actual_arrival(flights: pd.DataFrame, raw: pd.DataFrame) -> None:
    # UA 1545 landed in Houston (central time) at 08:30, 11 minutes behind its schedule: not late.
    landed = pd.Timestamp(flights.loc[0, "landed"], unit="ms", tz="UTC")
    assert landed == pd.Timestamp("2013-01-01 14:30", tz="UTC")
    assert flights.loc[0, "late"] == 0
    # For all: what the clocks say agrees with the delay that the airline reported.
    scheduled = flights["asked"] + ASKED_BEFORE_MS + flights["scheduled_minutes"] * 60_000
    told = (flights["landed"] - scheduled) / 60_000
    agrees = (told - raw["arr_delay"].reindex(flights.index)).abs() <= 1
    assert agrees[flights["landed"].notna()].mean() > 0.999


def test_cancelled_and_diverted_flights_never_get_a_label(
    flights: pd.DataFrame, raw: pd.DataFrame
) -> None:
    lost = raw.index[raw["arr_delay"].isna()]
    assert flights.loc[lost, ["landed", "late"]].isna().all().all()


def test_nearly_all_labels_come_within_the_delay_of_the_task(flights: pd.DataFrame) -> None:
    waits = (flights["landed"] - flights["asked"]).dropna()
    assert (waits <= task.label_delay_ms).mean() > 0.999


def test_weather_is_known_when_its_hour_is_over_and_holds_what_the_task_uses(
    stream: list[Ask | Truth | Observation],
) -> None:
    weather = pd.read_csv(_file("weather.csv"))
    hours = pd.to_datetime(weather["time_hour"], utc=True).dt.as_unit("ms").astype("int64")
    due = sorted(zip((hours + HOUR_MS).tolist(), weather["origin"].tolist(), strict=True))
    seen = [moment for moment in stream if isinstance(moment, Observation)]
    assert [(each.time, each.key) for each in seen] == due
    assert {each.entity for each in seen} == {"origin"}
    # Another value would not fit the derived schema, and the log would refuse it.
    assert all(set(each.values) == set(task.observed_values) for each in seen)


def test_every_call_repeats_the_same_moments(stream: list[Ask | Truth | Observation]) -> None:
    assert list(islice(moments(), 20_000)) == stream[:20_000]
