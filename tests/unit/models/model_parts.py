"""A task with labels that can be learned, rows of it, and events of its registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.dataset import Dataset
from schemas.catalogue import DEPLOYMENTS, MODEL_VERSIONS, RETRAIN_REQUESTS
from schemas.event import Event
from streams.task import DAY_MS, HOUR_MS, Category, GatePolicy, Numeric, Recipe, Task

START_MS = 1_367_366_400_000
DELAY_MS = 6 * HOUR_MS

WEAR = Task(
    name="wear",
    features=(Numeric("size"), Numeric("speed"), Category("colour")),
    label="breaks",
    prior_score=0.5,
    recipe=Recipe("gradient_boosting", {"iterations": 12, "leaves": 8, "min_leaf": 20}),
    gate=GatePolicy(recent_days=3, golden_share=0.1, min_rows=50),
)


def rows(count: int = 1_500, seed: int = 1, noise: float = 0.15, turned: bool = False) -> Dataset:
    """`count` rows over 20 days. The label follows the product of two numbers; `turned`: its opposite."""
    chance = np.random.default_rng(seed)
    size, speed = chance.random(count), chance.random(count)
    speed[chance.random(count) < 0.1] = np.nan
    colour = chance.choice(np.array(["red", "green", "blue", None], dtype=object), count)
    large = (size * np.nan_to_num(speed, nan=0.5) > 0.3) ^ (colour == "red")
    labels = large ^ (chance.random(count) < noise) ^ turned
    times = START_MS + np.arange(count) * (20 * DAY_MS) // count
    return Dataset(
        np.array([f"{seed}-{n}" for n in range(count)], dtype=object),
        times.astype(np.int64),
        labels.astype(np.int8),
        (times + DELAY_MS).astype(np.int64),
        {"size": size, "speed": speed, "colour": colour},
    )


UNTIL_MS = START_MS + 20 * DAY_MS + DELAY_MS


def vectors(data: Dataset) -> list[dict[str, Any]]:
    """The rows as served vectors: None is missing."""
    return [
        {
            "size": float(size),
            "speed": None if np.isnan(speed) else float(speed),
            "colour": colour,
        }
        for size, speed, colour in zip(*data.columns.values(), strict=True)
    ]


def asked(id_: str, time: int = 0, task: str = "wear", trigger: str = "drift") -> Event:
    return _event(
        RETRAIN_REQUESTS,
        "RetrainRequested",
        id_,
        time,
        task,
        trigger=trigger,
        reason=f"because of {id_}",
        actor="policy",
        labels_until=time,
        evidence={"psi.size": 0.3},
    )


def registered(version: str, time: int = 0, request_id: str = "r", **fields: Any) -> Event:
    return _event(
        MODEL_VERSIONS,
        "ModelRegistered",
        f"registered {version}",
        time,
        version.rpartition("-")[0],
        model_version=version,
        parent=None,
        request_id=request_id,
        artifact="0" * 64,
        path=f"models/{'0' * 64}.onnx",
        bytes=1,
        recipe="constant",
        parameters="{}",
        seed=0,
        environment={},
        features=["size"],
        **{
            "snapshot": None,
            "golden": None,
            "metrics": {},
            "reference_count": 0,
            "reference": [],
            **fields,
        },
    )


def decided(
    version: str,
    time: int = 0,
    kind: str = "ModelPromoted",
    previous: str | None = None,
    request_id: str | None = None,
    gates: tuple[Mapping[str, Any], ...] = (),
) -> Event:
    return _event(
        DEPLOYMENTS,
        kind,
        f"{kind} {version} {time}",
        time,
        version.rpartition("-")[0],
        model_version=version,
        previous_version=previous,
        reason=f"{kind} at {time}",
        actor="trainer",
        request_id=request_id,
        gates=list(gates),
    )


def _event(topic: str, type_: str, id_: str, time: int, task: str, **fields: Any) -> Event:
    envelope = {"event_id": id_, "event_time": time, "caused_by": None, "task": task}
    return Event(topic, type_, envelope | fields)
