"""The flights of New York in 2013 (nycflights13, CC0) as moments in event-time order.

Times are milliseconds since the epoch. Departures are scheduled in US Eastern time, arrivals are noted in
the local time of the destination; the data set's `time_hour` is UTC already.
"""

from __future__ import annotations

import heapq
import math
import uuid
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from driftlog import Ask, Observation, Truth

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
ASKED_BEFORE_MS = 2 * HOUR_MS
"""A prediction is asked for two hours before the scheduled departure."""
LATE_MINUTES = 15
EASTERN = "America/New_York"
CARIBBEAN = "America/Puerto_Rico"
"""Zone of the four destinations (BQN, PSE, SJU, STT) that the table of airports lacks."""
WEATHER = ("humid", "wind_speed", "precip", "pressure", "visib")
"""What the task observes: each name is the `value` of one of its Observed features."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def moments() -> Iterator[Ask | Truth | Observation]:
    """All predictions, labels and weather reports of the year, merged by time."""
    flights = load_flights()
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"nycflights13/{row}")) for row in flights.index]
    return heapq.merge(
        _asks(flights, ids), _truths(flights, ids), _reports(), key=attrgetter("time")
    )


def load_flights() -> pd.DataFrame:
    """One row per flight, by the time of its prediction: what is known then, and how it went.

    `asked` and `landed` are times in ms; `landed` and `late` are missing (NaN) where a flight was cancelled
    or diverted: it never gets a label.
    """
    raw = pd.read_csv(_file("flights.csv.zip"))
    departure = _ms(raw["time_hour"]) + raw["minute"] * MINUTE_MS
    local = pd.to_datetime(departure, unit="ms", utc=True).dt.tz_convert(EASTERN)
    flights = pd.DataFrame(
        {
            "asked": departure - ASKED_BEFORE_MS,
            "landed": _landed(raw, departure),
            "late": np.where(raw["arr_delay"].isna(), np.nan, raw["arr_delay"] > LATE_MINUTES),
            "departure_hour": raw["hour"] + raw["minute"] / 60,
            "weekday": local.dt.day_of_week.map(dict(enumerate(DAYS))),
            "scheduled_minutes": _minutes_between(
                departure, _clock_minutes(raw["sched_arr_time"]), raw["dest"]
            ),
            "distance": raw["distance"].astype(float),
            **{name: raw[name] for name in ("carrier", "origin", "dest")},
        }
    )
    return flights.sort_values("asked", kind="stable")


def _landed(raw: pd.DataFrame, departure: pd.Series) -> pd.Series:
    """When each flight arrived (ms): its clock at the destination, first met after it took off."""
    left = departure + raw["dep_delay"] * MINUTE_MS
    clock = _clock_minutes(raw["arr_time"])
    landed = left + _minutes_between(left, clock, raw["dest"]) * MINUTE_MS
    return landed.where(raw["arr_delay"].notna())


def _minutes_between(start: pd.Series, clock: pd.Series, dest: pd.Series) -> pd.Series:
    """Minutes from `start` (ms, UTC) until the clocks at `dest` next show `clock` (minutes of a day)."""
    utc = pd.to_datetime(start, unit="ms", utc=True)
    offset = pd.Series(np.nan, start.index)
    zones = dest.map(_zones()).fillna(CARIBBEAN)
    for zone, rows in zones.groupby(zones).groups.items():
        there = utc.loc[rows].dt.tz_convert(zone).dt.tz_localize(None)
        offset.loc[rows] = (there - utc.loc[rows].dt.tz_localize(None)).dt.total_seconds() / 60
    return (clock - offset - start / MINUTE_MS) % (24 * 60)


def _zones() -> Mapping[str, str]:
    airports = pd.read_csv(_file("airports.csv"))
    return dict(zip(airports["faa"], airports["tzone"], strict=True))


def _clock_minutes(hhmm: pd.Series) -> pd.Series:
    return hhmm // 100 * 60 + hhmm % 100


def _asks(flights: pd.DataFrame, ids: list[str]) -> Iterator[Ask]:
    names = (
        "departure_hour",
        "weekday",
        "carrier",
        "origin",
        "dest",
        "scheduled_minutes",
        "distance",
    )
    columns = (flights[name].tolist() for name in names)
    for time, id_, *values in zip(flights["asked"].tolist(), ids, *columns, strict=True):
        yield Ask(time, id_, dict(zip(names, values, strict=True)))


def _truths(flights: pd.DataFrame, ids: list[str]) -> Iterator[Truth]:
    known = flights.assign(id=ids).dropna(subset="landed").sort_values("landed", kind="stable")
    landed, late = known["landed"].astype("int64").tolist(), known["late"].astype("int64").tolist()
    return map(Truth, landed, known["id"].tolist(), late)


def _reports() -> Iterator[Observation]:
    """Hourly weather. A report is made at minute 51 and filed under its hour: known when that is over."""
    weather = pd.read_csv(_file("weather.csv"))
    weather["known"] = _ms(weather["time_hour"]) + HOUR_MS
    weather = weather.sort_values(["known", "origin"], kind="stable")
    columns = (weather[name].tolist() for name in WEATHER)
    for time, origin, *values in zip(
        weather["known"].tolist(), weather["origin"].tolist(), *columns, strict=True
    ):
        seen: dict[str, Any] = {
            name: None if math.isnan(value) else value
            for name, value in zip(WEATHER, values, strict=True)
        }
        yield Observation(time, "origin", origin, seen)


def _ms(stamps: pd.Series) -> pd.Series:
    return pd.to_datetime(stamps, utc=True).dt.as_unit("ms").astype("int64")


def _file(name: str) -> str:
    """Path of a data file of the installed package (importing it would need pkg_resources)."""
    for file in distribution("nycflights13").files or ():
        if file.name == name:
            return str(file.locate())
    raise FileNotFoundError(f"nycflights13 has no file {name}: install it anew")
