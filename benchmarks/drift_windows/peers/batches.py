"""Batches of records by confluent-kafka, as fast as it hands them on."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import Consumer, Message, TopicPartition

from benchmarks.drift_windows.job import Job

BATCH = 10_000
SETTINGS = {
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "check.crcs": False,
    "fetch.wait.max.ms": 50,
    "fetch.message.max.bytes": 4_194_304,
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 131_072,
    "fetch.queue.backoff.ms": 5,
    "log_level": 2,
}
"""Large fetches and queues, no checksums, no second of standing still when a queue is full."""


def make_consumer(job: Job) -> Consumer:
    """Connected, nothing assigned yet."""
    made = Consumer(
        {**SETTINGS, "bootstrap.servers": job.bootstrap, "group.id": f"bench-{job.run}"}
    )
    made.list_topics(job.topic, timeout=10)
    return made


def batches(consumer: Consumer, job: Job) -> Iterator[list[Message]]:
    """All records of the job's topic."""
    consumer.assign([TopicPartition(job.topic, number, 0) for number in range(len(job.ends))])
    left = sum(job.ends)
    while left:
        messages = consumer.consume(BATCH, 0.1)
        if not messages:
            continue
        if messages[0].error():
            raise SystemExit(str(messages[0].error()))
        left -= len(messages)
        yield messages
