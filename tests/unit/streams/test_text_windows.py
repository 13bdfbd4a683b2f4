"""Windows of texts: the same from payload bytes as from decoded events, whenever the model becomes known."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schemas.codec import Codec
from schemas.columnar import Records
from schemas.event import Event, Position
from streams.canonical import fingerprint
from streams.fold import Projector
from streams.reference import build_reference
from streams.task import DriftPolicy, Numeric, Task, Text
from streams.texts import words
from streams.window_partition import WindowPartition
from streams.window_rows import InputWindows
from tests.unit.schemas.memory_registry import MemoryRegistry
from tests.unit.streams.build import DAY, HOUR, registered

MAIL = Task("mail", (Text("body"), Numeric("age")), "x", drift=DriftPolicy(min_rows=1))
TOPIC = MAIL.topics(1)[0].name
CODEC = Codec(MemoryRegistry(), MAIL.topics(1))
WORDS = [*words("late plane thanks gate caf\u00e9 \u0437\u0438\u043c\u0430 don't"), "\U0001f600"]


def model() -> Event:
    texts = np.array(
        [" ".join(random.Random(n).choices(WORDS[:5], k=4)) for n in range(200)], object
    )
    columns: Any = {"body": texts, "age": np.arange(200.0)}
    kinds: Any = MAIL.kinds
    built = build_reference(columns, kinds, [0.5] * 200, [n // 20 for n in range(200)], MAIL.drift)
    event = registered("mail-1", task="mail")
    return replace(event, data={**event.data, "reference": built, "reference_count": 200})


def history() -> list[Event]:
    rng = random.Random(4)
    events = []
    for n in range(90):
        text = rng.choice([None, "", " ".join(rng.choices(WORDS, k=rng.randrange(1, 600)))])
        data = {
            "event_id": f"e{n}",
            "event_time": n * HOUR,
            "caused_by": None,
            "model_version": "mail-1",
            "score": rng.random(),
            "label": 1,
            "features": {"body": text, "age": 1.0},
        }
        events.append(Event(TOPIC, "PredictionMade", data, Position(TOPIC, 0, n)))
    return events


@pytest.mark.parametrize("known_from", [0, 40, 90])
def test_columns_say_what_rows_say(known_from: int) -> None:
    events, registration = history(), model()
    projector = Projector([InputWindows(MAIL)])
    rows = [*events[:known_from], registration, *events[known_from:]]
    said = [answer for event in rows for answer in projector.react(event)]
    references: dict[str, Any] = {}
    run = WindowPartition(MAIL, CODEC, 0, references)
    payloads = [CODEC.encode(event) for event in events]
    found = []
    for at in range(0, 90, 10):
        if at == known_from:
            references["mail-1"] = registration.data["reference"]
        records = Records.of(TOPIC, 0, payloads[at : at + 10], offset=range(at, at + 10))  # type: ignore[arg-type]
        answers, bad = run.take(records)
        assert not bad
        found += answers + run.release()
    references["mail-1"] = registration.data["reference"]
    found += run.release()
    assert {e.id: e.data for e in found} == {e.id: e.data for e in said}
    assert len(found) >= 90 * HOUR // DAY
    names = {column["name"] for event in found for column in event.data["columns"]}
    assert names == {"age", "score", "body.length", "body.unknown", "body.surprise"}
    state = projector.states["mail.windows"].partitions[0]
    assert fingerprint(run.state) == fingerprint(state)
