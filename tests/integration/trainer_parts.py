"""A small task with labels that can be learned, and the history of a few weeks of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.event import Event, derived_id
from streams.task import DAY_MS, HOUR_MS, Category, GatePolicy, Numeric, Recipe, Task

START_MS = 1_367_366_400_000
"""2013-05-01: the events of these tests happen long ago, as in a replay."""
DELAY_MS = 12 * HOUR_MS

WEAR = Task(
    name="wear",
    features=(Numeric("size"), Numeric("speed"), Category("colour")),
    label="breaks",
    label_delay_hours=24,
    prior_score=0.5,
    recipe=Recipe("gradient_boosting", {"iterations": 150, "min_leaf": 20}, training_days=14),
    gate=GatePolicy(recent_days=3, golden_share=0.1, min_rows=100),
)
TASK_FILE = f"""
from driftlog import *

task = {WEAR!r}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A prediction and, unless it never came, its label."""

    prediction: Event
    label: Event | None


def history(days: int, rows_a_day: int = 200, seed: int = 3) -> Iterator[Row]:
    """Rows in the order of their time: the label says mostly whether size and speed are large together."""
    chance = random.Random(seed)
    for number in range(days * rows_a_day):
        at = START_MS + number * DAY_MS // rows_a_day
        size = chance.random()
        speed = chance.random() if chance.random() < 0.9 else None
        colour = chance.choice(["red", "green", "blue", None])
        odds = 0.85 if size * (speed or 0.5) > 0.3 else 0.15
        label = int(chance.random() < odds)
        id_ = derived_id("PredictionMade", seed, number)
        made: dict[str, object] = {"model_version": "wear-0", "score": 0.5, "label": 1}
        made["features"] = {"size": size, "speed": speed, "colour": colour}
        yield Row(
            Event("wear.predictions", "PredictionMade", _envelope(id_, at) | made),
            _label(id_, at + DELAY_MS, label) if chance.random() < 0.95 else None,
        )


def _label(prediction_id: str, at: int, label: int) -> Event:
    id_ = derived_id("LabelObserved", prediction_id)
    data = _envelope(id_, at) | {"prediction_id": prediction_id, "label": label}
    return Event("wear.labels", "LabelObserved", data)


def _envelope(event_id: str, event_time: int) -> dict[str, object]:
    return {"event_id": event_id, "event_time": event_time, "caused_by": None}
