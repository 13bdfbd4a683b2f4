"""A small task and makers of its events, as they come out of the log."""

from __future__ import annotations

from typing import Any

from schemas.catalogue import MODEL_VERSIONS, features_topic, labels_topic, predictions_topic
from schemas.event import Event, Position, derive
from streams.task import Category, DriftPolicy, Numeric, Observed, Rate, Task

HOUR = 3_600_000
DAY = 24 * HOUR

TASK = Task(
    name="toy",
    label="late",
    label_delay_hours=6,
    features=(
        Numeric("distance"),
        Category("carrier"),
        Rate("carrier_rate", by=("carrier",), hours=4, strength=2.0),
        Observed("wind", by="carrier", value="wind", max_age_hours=2),
    ),
    drift=DriftPolicy(window_hours=24, grace_minutes=60, min_rows=10),
)


def prediction(
    name: str, time: int, version: str = "toy-1", partition: int = 0, offset: int = 0, **more: Any
) -> Event:
    """A PredictionMade; `more` may give score and features."""
    score = more.pop("score", 0.5)
    features = {"distance": 1.0, "carrier": "UA", "carrier_rate": None, "wind": None, **more}
    topic = predictions_topic(TASK.name)
    data = {
        "event_id": name,
        "event_time": time,
        "caused_by": None,
        "model_version": version,
        "score": score,
        "label": int(score >= 0.5),
        "features": features,
    }
    return Event(topic, "PredictionMade", data, Position(topic, partition, offset))


def label(of: str, time: int, value: int, partition: int = 0, offset: int = 0) -> Event:
    topic = labels_topic(TASK.name)
    data = {
        "event_id": f"label-{of}",
        "event_time": time,
        "caused_by": None,
        "prediction_id": of,
        "label": value,
    }
    return Event(topic, "LabelObserved", data, Position(topic, partition, offset))


def observation(name: str, time: int, key: str, wind: float, offset: int = 0) -> Event:
    topic = features_topic(TASK.name)
    data = {
        "event_id": name,
        "event_time": time,
        "caused_by": None,
        "entity": "carrier",
        "key": key,
        "values": {"wind": wind},
    }
    return Event(topic, "FeatureObserved", data, Position(topic, 0, offset))


def registered(version: str = "toy-1", time: int = 0, task: str = TASK.name) -> Event:
    """A version whose reference has bins for distance, carrier and score."""
    reference = [
        column("distance", edges=[1.0, 2.0]),
        column("carrier", categories=["UA", "AA"]),
        column("score", edges=[0.25, 0.5, 0.75]),
    ]
    return derive(
        MODEL_VERSIONS,
        "ModelRegistered",
        version,
        time=time,
        caused_by=None,
        task=task,
        model_version=version,
        reference=reference,
        reference_count=300,
        metrics={"log_loss": 0.5},
    )


def column(
    name: str, edges: list[float] | None = None, categories: list[str] | None = None
) -> dict[str, Any]:
    size = len(edges if categories is None else categories) + 1 if (edges or categories) else 1
    return {
        "name": name,
        "edges": edges or [],
        "categories": categories or [],
        "counts": [100] * size,
        "missing": 0,
        "swing": 0.0,
    }
