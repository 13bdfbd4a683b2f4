"""A random stream in event time, served as it comes, with every trouble that features know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas.event import Event, Position
from streams.features import FeatureFold, assemble
from streams.fold import Projector
from streams.task import HOUR_MS, Category, Numeric, Observed, Rate, Task

MINUTE = 60_000
START = 1_367_366_400_000
TASK = Task(
    "trips",
    (
        Numeric("zone"),
        Category("carrier"),
        Category("origin"),
        Rate("late_2h", by=(), hours=2),
        Rate("carrier_late_6h", by=("carrier",), hours=6, strength=3.5),
        Rate("route_late_24h", by=("origin", "zone"), hours=24),
        Observed("wind", by="origin", value="speed", max_age_hours=2),
        Observed("noise", by="zone", value="noise", max_age_hours=5),
    ),
    label="late",
    label_delay_hours=9,
)
COMPUTED = [feature for feature in TASK.features if isinstance(feature, Rate | Observed)]


class Stream:
    """A random stream in event time, served as it comes: each vector is what the online store held."""

    def __init__(self, seed: int, nulls: bool = True) -> None:
        """`nulls`: whether keys may be missing."""
        self._chance = np.random.default_rng(seed)
        self._zones = [1.0, 2.5, None] if nulls else [1.0, 2.5]
        self._carriers = ["UA", "AA", None] if nulls else ["UA", "AA"]
        self._projector = Projector([FeatureFold(TASK, 1)])
        self._places: dict[str, int] = {}
        self.events: list[Event] = []
        self.served: dict[str, dict[str, Any]] = {}
        for time, kind, payload in sorted(self._moments(), key=lambda moment: moment[:2]):
            getattr(self, kind)(time, payload)

    def _moments(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        chance = self._chance
        for n, minute in enumerate(chance.permutation(60 * 60)[:900]):
            time = START + int(minute) * MINUTE
            yield time, "predict", {"id": f"trip-{n}"}
            for again in range(int(chance.choice([0, 1, 2], p=[0.1, 0.8, 0.1]))):
                # Some come after the task's label delay, and count for nothing.
                delay = int(chance.exponential(3 * HOUR_MS)) + again * 20 * MINUTE
                label = {"id": f"trip-{n}", "nth": again, "label": int(chance.random() < 0.3)}
                yield time + delay + 1, "label", label
        for n in range(400):
            time = START + int(chance.integers(0, 60 * 4)) * 15 * MINUTE
            yield time, "a_observe", {"id": f"seen-{n}"}

    def predict(self, time: int, payload: dict[str, Any]) -> None:
        chance = self._chance
        instance = {
            "zone": chance.choice(self._zones),
            "carrier": chance.choice(self._carriers),
            "origin": chance.choice(["JFK", "LGA"]),
        }
        state = self._projector.states["trips.features"]
        features = assemble(TASK, instance, time, state.blob)
        self.served[payload["id"]] = features
        fields = {"model_version": "trips-0", "score": 0.5, "label": 0, "features": features}
        self._append("trips.predictions", "PredictionMade", payload["id"], time, fields)

    def label(self, time: int, payload: dict[str, Any]) -> None:
        fields = {"prediction_id": payload["id"], "label": payload["label"]}
        name = f"{payload['id']}/{payload['nth']}"
        self._append("trips.labels", "LabelObserved", name, time, fields)

    def a_observe(self, time: int, payload: dict[str, Any]) -> None:
        chance = self._chance
        entity = str(chance.choice(["origin", "zone"]))
        key = str(chance.choice(["JFK", "LGA"] if entity == "origin" else ["1.0", "2.5", "None"]))
        values = {"speed": chance.choice([None, 1.25, 7.0]), "noise": float(chance.normal())}
        fields = {"entity": entity, "key": key, "values": values}
        self._append("trips.features", "FeatureObserved", payload["id"], time, fields)

    def predictions(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(id, event time, served vector) of each."""
        for event in self.events:
            if event.type == "PredictionMade":
                yield event.id, event.time, event.data["features"]

    def _append(self, topic: str, kind: str, id_: str, time: int, fields: dict[str, Any]) -> None:
        place = self._places[topic] = self._places.get(topic, -1) + 1
        data = {"event_id": id_, "event_time": time, "caused_by": None, **fields}
        event = Event(topic, kind, data, Position(topic, 0, place))
        self.events.append(event)
        self._projector.feed([event])


SPAN = START, START + 100 * HOUR_MS
