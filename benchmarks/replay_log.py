"""The log that `benchmarks.replay` reads: predictions of two models, a label for each, and the models."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from confluent_kafka import Producer

from benchmarks.drift_windows import workload
from benchmarks.drift_windows.encoder import encode, keys
from benchmarks.replay_arms import Job, task_of
from infra.settings import Settings
from schemas.catalogue import MODEL_VERSIONS, labels_topic, predictions_topic
from schemas.event import Event, derive
from schemas.registry.client import RegistryClient
from streams import log
from streams.log import CLIENT_SETTINGS
from streams.topics import ensure_topics, register_schemas

PARTITIONS = 4
LABEL_AFTER_MS = 60_000
_CHUNK = 20_000


def fill(settings: Settings, count: int) -> Job:
    """Write `count` predictions with their labels a minute later, side by side as they would come."""
    job = Job(count, PARTITIONS)
    task = task_of(job)
    topics = log.all_topics(settings, [task])
    ensure_topics(settings.bootstrap, topics, settings.replication)
    registry = RegistryClient(settings.registry, settings.home / "schemas")
    register_schemas(registry, topics)
    codec = log.connect_codec(settings, [task])
    models = [registered(task.name, version) for version in workload.MODELS]
    log.LogWriter(settings.bootstrap, codec).append(models)
    named = {topic.name: topic for topic in topics}
    ids = {}
    for name in (predictions_topic(task.name), labels_topic(task.name)):
        topic = named[name]
        ids[name] = registry.schema_id(topic.subject, topic.value_schema)
    producer = Producer(
        {
            **CLIENT_SETTINGS,
            "bootstrap.servers": settings.bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 4 * _CHUNK,
        }
    )
    work = workload.make(count, PARTITIONS)
    for first in range(0, count, _CHUNK):
        last = min(first + _CHUNK, count)
        for topic_name, partition, key, value in _records(work, ids, first, last):
            while True:
                try:
                    producer.produce(topic_name, value, key, partition)
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.poll(0)
    if producer.flush(120):
        raise SystemExit("the log could not be filled")
    return job


def registered(task: str, version: str) -> Event:
    """A version with the workload's reference."""
    reference = [
        {"name": c["name"], "edges": c["edges"], "categories": [], "counts": c["counts"],
         "missing": c["missing"], "swing": c["swing"]}
        for c in workload.reference()
    ]  # fmt: skip
    return derive(
        MODEL_VERSIONS,
        "ModelRegistered",
        version,
        time=workload.START_MS,
        caused_by=None,
        task=task,
        model_version=version,
        request_id="benchmark",
        artifact="0" * 64,
        path="models/none.onnx",
        bytes=0,
        recipe="constant",
        parameters="{}",
        seed=0,
        features=list(workload.FEATURES),
        metrics={"log_loss": 0.6},
        environment={},
        reference=reference,
        reference_count=sum(reference[0]["counts"]),
    )


def _records(
    work: workload.Workload, schemas: dict[str, int], first: int, last: int
) -> Iterator[tuple[str, int, bytes, bytes]]:
    (predictions, prediction_id), (labels, label_id) = schemas.items()
    payloads, ends = encode(work, prediction_id, first, last)
    names = keys(work, first, last)
    head = struct.pack(">bI", 0, label_id)
    begin = 0
    rows = zip(
        work.partition[first:last].tolist(),
        ends.tolist(),
        work.time[first:last].tolist(),
        work.label[first:last].tolist(),
        strict=True,
    )
    for row, (partition, end, time, label) in enumerate(rows):
        name = names[36 * row : 36 * row + 36]
        yield predictions, partition, name, payloads[begin:end]
        # event_id, event_time, caused_by null, prediction_id, label
        body = b"\x4a" + b"L" + name + _long(time + LABEL_AFTER_MS) + b"\x00\x48" + name
        yield labels, partition, name, head + body + _long(label)
        begin = end


def _long(value: int) -> bytes:
    """Avro's zigzag varint of a non-negative number."""
    value <<= 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
