"""The writers that `benchmarks.produce` compares, each in a process of its own: `NAME JOB-FILE`.

All send the same records (key: event id, value: Avro in Confluent's wire format) with the settings of
driftlog's `LogWriter`: acks=all, idempotent, lz4, 5 ms of linger. Settings come from the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.drift_windows import workload
from benchmarks.drift_windows.encoder import encode, keys
from benchmarks.drift_windows.job import now, wait_for_go
from infra.settings import Settings
from schemas.catalogue import Topic, task_topics
from schemas.codec import Codec
from schemas.event import Event
from schemas.registry.client import RegistryClient
from streams.log import CLIENT_SETTINGS, LogWriter

BATCH = 10_000
"""Records that are handed to `LogWriter` at once; it returns when all of them are acknowledged."""
DURABLE = {"acks": "all", "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4"}


@dataclass(frozen=True)
class Job:
    """`events` events for the predictions of the task `task`."""

    task: str
    events: int
    partitions: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @property
    def topics(self) -> tuple[Topic, ...]:
        kinds = dict.fromkeys(workload.FEATURES, "double")
        return task_topics(self.task, kinds, (), self.partitions)

    def records(self, schema_id: int) -> list[tuple[bytes, bytes]]:
        """(key, value) of each event."""
        work = workload.make(self.events, self.partitions)
        values, ends = encode(work, schema_id, 0, self.events)
        ids = keys(work, 0, self.events)
        places = [0, *ends.tolist()]
        return [
            (ids[36 * row : 36 * row + 36], values[places[row] : places[row + 1]])
            for row in range(self.events)
        ]

    def made(self) -> list[Event]:
        work = workload.make(self.events, self.partitions)
        ids = keys(work, 0, self.events).decode()
        vectors = work.features.tolist()
        return [
            Event(
                self.topics[0].name,
                "PredictionMade",
                {
                    "event_id": ids[36 * row : 36 * row + 36],
                    "event_time": int(work.time[row]),
                    "caused_by": None,
                    "model_version": workload.MODELS[work.model[row]],
                    "score": float(work.score[row]),
                    "label": int(work.label[row]),
                    "features": {
                        name: None if value != value else value
                        for name, value in zip(workload.FEATURES, vectors[row], strict=True)
                    },
                },
            )
            for row in range(self.events)
        ]


@dataclass(frozen=True)
class World:
    """Where to write what."""

    job: Job
    settings: Settings
    codec: Codec
    topic: str
    schema_id: int

    @property
    def records(self) -> list[tuple[bytes, bytes]]:
        return self.job.records(self.schema_id)


def bare(world: World) -> tuple[float, float]:
    """confluent-kafka: produce, poll, flush."""
    from confluent_kafka import KafkaError, Message, Producer

    records, failed = world.records, []
    settings = {**CLIENT_SETTINGS, **DURABLE, "bootstrap.servers": world.settings.bootstrap}
    producer = Producer(settings)
    producer.list_topics(world.topic, timeout=10)
    acknowledged = 0

    def delivered(error: KafkaError | None, _: Message) -> None:
        nonlocal acknowledged
        if error is None:
            acknowledged += 1
        else:
            failed.append(error)

    wait_for_go()
    began = now()
    for key, value in records:
        while True:
            try:
                producer.produce(world.topic, value, key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush(60)
    ended = now()
    if failed or acknowledged != len(records):
        raise SystemExit(f"{acknowledged} of {len(records)} acknowledged: {failed[:1]}")
    return began, ended


def aio(world: World) -> tuple[float, float]:
    """aiokafka: send, then wait for every acknowledgement."""
    return asyncio.run(_aio(world))


async def _aio(world: World) -> tuple[float, float]:
    from aiokafka import AIOKafkaProducer

    records = world.records
    producer = AIOKafkaProducer(
        bootstrap_servers=world.settings.bootstrap,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        linger_ms=5,
        max_batch_size=1_000_000,
    )
    await producer.start()
    await producer.partitions_for(world.topic)
    await asyncio.to_thread(wait_for_go)
    began = now()
    for first in range(0, len(records), BATCH):
        sent = [
            await producer.send(world.topic, value, key)
            for key, value in records[first : first + BATCH]
        ]
        await asyncio.gather(*sent)
    ended = now()
    await producer.stop()
    return began, ended


def raw(world: World) -> tuple[float, float]:
    """LogWriter with payloads that are ready."""
    records = [(world.topic, key, value, []) for key, value in world.records]
    writer = LogWriter(world.settings.bootstrap, world.codec)
    wait_for_go()
    began = now()
    for first in range(0, len(records), BATCH):
        writer.append_raw(records[first : first + BATCH])
    return began, now()


def events(world: World) -> tuple[float, float]:
    """LogWriter with events: validated, encoded, with CloudEvents headers."""
    made = world.job.made()
    writer = LogWriter(world.settings.bootstrap, world.codec)
    wait_for_go()
    began = now()
    for first in range(0, len(made), BATCH):
        writer.append(made[first : first + BATCH])
    return began, now()


ARMS: dict[str, tuple[str, Callable[[World], tuple[float, float]]]] = {
    "bare": ("confluent-kafka, ready payloads", bare),
    "aiokafka": ("aiokafka, ready payloads", aio),
    "raw": ("driftlog LogWriter.append_raw, ready payloads", raw),
    "events": ("driftlog LogWriter.append, events", events),
}


def main() -> None:
    name, path = sys.argv[1:]
    job = Job(**json.loads(Path(path).read_text("utf-8")))
    settings = Settings.from_env(os.environ)
    registry = RegistryClient(settings.registry, settings.home / "schemas")
    predictions = job.topics[0]
    schema_id = registry.schema_id(predictions.subject, predictions.value_schema)
    world = World(job, settings, Codec(registry, job.topics), predictions.name, schema_id)
    began, ended = ARMS[name][1](world)
    print("RESULT " + json.dumps({"began": began, "ended": ended}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
