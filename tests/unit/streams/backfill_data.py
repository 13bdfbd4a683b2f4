"""A messy history of the small task: what a backfill must get right, partition by partition, as bytes."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.catalogue import predictions_topic
from schemas.codec import Codec, SchemaRegistry
from schemas.columnar import Records
from schemas.event import Event
from tests.unit.streams.build import DAY, HOUR, TASK, prediction, registered

TOPIC = predictions_topic(TASK.name)
MODELS = (registered("toy-1"), registered("toy-2", time=DAY))
NONSENSE = (None, b"", b"nonsense", b"\0\0\0\0\1", b"\0\0\0\3\xe7abc")
Payloads = list[bytes | None]


def codec(registry: SchemaRegistry) -> Codec:
    return Codec(registry, TASK.topics())


def old_codec(registry: SchemaRegistry) -> Codec:
    """Of a writer from before `wind` was a feature: its events have another schema id."""
    topic = copy.deepcopy(TASK.topics()[0])
    (fields,) = (f for f in topic.schemas[0]["fields"] if f["name"] == "features")
    fields["type"]["fields"] = [f for f in fields["type"]["fields"] if f["name"] != "wind"]
    return Codec(registry, [topic])


def partition(
    seed: int, number: int, count: int, registry: SchemaRegistry, days: int = 30
) -> Payloads:
    """Events of two registered models and one that is not: some late, some too late, some said twice."""
    rng = random.Random(f"{seed}/{number}")
    codecs = old_codec(registry), codec(registry)
    payloads: Payloads = []
    for n in range(count):
        time = n * days * DAY // count + rng.randrange(HOUR)
        kind = rng.random()
        if kind < 0.03:
            payloads.append(rng.choice(NONSENSE))
        elif kind < 0.08 and payloads:
            payloads.append(rng.choice(payloads[-40:]))
        else:
            if kind < 0.16:
                time -= rng.randrange(3 * DAY)
            elif kind < 0.18:
                time -= rng.randrange(9 * DAY, 20 * DAY)
            payloads.append(
                _payload(rng, f"{seed}-{number}-{n}", max(0, time), codecs, n > count // 2)
            )
    return payloads


def history(
    seed: int, registry: SchemaRegistry, counts: Sequence[int], days: int = 30
) -> dict[int, Payloads]:
    """So many records of each partition, over so many days."""
    return {n: partition(seed, n, count, registry, days) for n, count in enumerate(counts)}


def records(
    number: int, payloads: Payloads, size: int, begin: int = 0, end: int | None = None
) -> Iterator[Records]:
    """Offsets `begin` to `end` of a partition in batches of `size`."""
    end = len(payloads) if end is None else end
    for start in range(begin, end, size):
        stop = min(start + size, end)
        yield Records.of(TOPIC, number, payloads[start:stop], list(range(start, stop)))


def _payload(
    rng: random.Random, name: str, time: int, codecs: tuple[Codec, Codec], later: bool
) -> bytes:
    version = rng.choices(["toy-1", "toy-2", "toy-9"], [9, 9 if later else 1, 0.2])[0]
    features: dict[str, Any] = {
        "distance": rng.choice([None, float("nan"), 1.0, rng.gauss(1.5, 1.0)]),
        "carrier": rng.choice(["UA", "AA", "??", None]),
    }
    event = prediction(name, time, version, score=rng.random(), **features)
    old = not later and rng.random() < 0.5
    return codecs[not old].encode(_without_wind(event) if old else event)


def _without_wind(event: Event) -> Event:
    features = {name: v for name, v in event.data["features"].items() if name != "wind"}
    return Event(event.topic, event.type, {**event.data, "features": features})


def plain(events: Sequence[Event]) -> list[Mapping[str, Any]]:
    return [event.data for event in events]
