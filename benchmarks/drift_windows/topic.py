"""The workload in a topic: created as driftlog creates it, produced once with acks=all."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path

import fastavro
import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from benchmarks.drift_windows import workload
from benchmarks.drift_windows.encoder import encode, keys
from benchmarks.drift_windows.job import Job
from benchmarks.drift_windows.workload import Workload
from infra.settings import Settings
from schemas.catalogue import Topic, task_topics
from schemas.codec import without
from schemas.registry.client import RegistryClient
from streams.log import CLIENT_SETTINGS
from streams.topics import ensure_topics, register_schemas

_CHUNK = 50_000
_CHECKED = 500
"""Events that fastavro must read back as they were made."""


def task_name(events: int) -> str:
    """Each size of the workload is a task of its own."""
    return f"{workload.TASK}{events}"


def catalogue(events: int, partitions: int) -> tuple[Topic, ...]:
    """The task's topics, the predictions first."""
    kinds = dict.fromkeys(workload.FEATURES, "double")
    return task_topics(task_name(events), kinds, (), partitions)


def job_for(settings: Settings, work: Workload, scores: Path, run: str, replication: int) -> Job:
    """What a contender is told about this workload."""
    topic = catalogue(work.events, work.partitions)[0]
    registry = RegistryClient(settings.registry, settings.home / "schemas")
    return Job(
        bootstrap=settings.bootstrap,
        topic=topic.name,
        events=work.events,
        ends=work.ends,
        schema=without(topic.schemas[0], frozenset({"logicalType"})),
        schema_id=registry.schema_id(topic.subject, topic.value_schema),
        models=list(workload.MODELS),
        features=list(workload.FEATURES),
        reference=workload.reference(),
        start_ms=workload.START_MS,
        windows=work.windows,
        window_ms=workload.WINDOW_MS,
        lateness_ms=workload.LATENESS_MS,
        scores=str(scores),
        run=run,
        replication=replication,
    )


def produce(
    settings: Settings,
    work: Workload,
    replication: int,
    progress: Callable[[int], None] = lambda done: None,
) -> float:
    """Create the topics and fill the predictions; the seconds that producing took.

    What was filled before, in this home folder and in the same way, is left as it is: 0 seconds.
    """
    topics = catalogue(work.events, work.partitions)
    told = json.dumps([work.events, work.partitions, replication])
    note = settings.home / f"{topics[0].name}.json"
    if note.exists() and note.read_text("utf-8") == told:
        progress(len(work))
        return 0.0
    ensure_topics(settings.bootstrap, topics, replication)
    registry = RegistryClient(settings.registry, settings.home / "schemas")
    register_schemas(registry, topics)
    schema_id = registry.schema_id(topics[0].subject, topics[0].value_schema)
    check_encoder(work, schema_id, topics[0])
    began = time.monotonic()
    _send(settings, topics[0].name, work, schema_id, progress)
    note.write_text(told, encoding="utf-8")
    return time.monotonic() - began


def _send(
    settings: Settings,
    topic: str,
    work: Workload,
    schema_id: int,
    progress: Callable[[int], None],
) -> None:
    producer = Producer(
        {
            **CLIENT_SETTINGS,
            "bootstrap.servers": settings.bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 2 * _CHUNK,
        }
    )
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            errors.append(error)

    for first in range(0, len(work), _CHUNK):
        last = min(first + _CHUNK, len(work))
        payloads, ends = encode(work, schema_id, first, last)
        ids = keys(work, first, last)
        begin = 0
        for row, (partition, end) in enumerate(
            zip(work.partition[first:last].tolist(), ends.tolist(), strict=True)
        ):
            while True:
                try:
                    producer.produce(
                        topic,
                        payloads[begin:end],
                        ids[36 * row : 36 * row + 36],
                        partition,
                        on_delivery=delivered,
                    )
                    break
                except BufferError:
                    producer.poll(0.05)
            begin = end
        producer.poll(0)
        progress(last)
    if producer.flush(60) or errors:
        raise SystemExit(f"the topic could not be filled: {errors[0] if errors else 'no answer'}")


def check_encoder(work: Workload, schema_id: int, topic: Topic) -> None:
    """A sample of the compiled encoder's events, as fastavro reads them, must be the workload's."""
    schema = fastavro.parse_schema(topic.schemas[0], named_schemas={})
    rows = np.random.default_rng(1).integers(0, len(work), _CHECKED)
    for row in rows.tolist():
        payload, _ = encode(work, schema_id, row, row + 1)
        assert payload[:5] == struct.pack(">bI", 0, schema_id)
        body = io.BytesIO(payload[5:])
        event = fastavro.schemaless_reader(body, schema)
        assert not body.read(), "bytes after the end"
        assert event["event_id"].encode() == keys(work, row, row + 1)
        assert round(event["event_time"].timestamp() * 1000) == work.time[row]
        assert event["model_version"] == workload.MODELS[work.model[row]]
        assert (event["score"], event["label"]) == (work.score[row], work.label[row])
        made = [None if np.isnan(x) else x for x in work.features[row].tolist()]
        assert list(event["features"].values()) == made
