"""The batch runner: polls batches, reacts event by event, writes answers, then commits.

Crash anywhere and the same events are read again from the last commit: the answers get the same ids, and
whoever reads them drops the repeats.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.codec import Codec
from schemas.event import Event
from streams import log
from streams.fold import Fold, Projector
from streams.lag import LagMeter
from streams.merge import Merger
from streams.recovery import CheckpointKeeper, recover, state_hashes

logger = structlog.get_logger()
HASH_SECONDS = 5.0
FLUSH_SECONDS = 1.0


def run(
    bootstrap: str,
    codec: Codec,
    group: str,
    folds: Sequence[Fold],
    stop: threading.Event,
    flush: Callable[[Projector], None] = lambda _: None,
    on_batch: Callable[[int, Projector], None] = lambda count, projector: None,
    on_recovered: Callable[[], None] = lambda: None,
    checkpoints: Path | None = None,
) -> None:
    """Run until `stop` is set. `flush(projector)` writes derived stores before each commit.

    A folder of `checkpoints` saves the next start most of the way.

    Raises LogUnavailable when brokers stay away; the supervisor starts it again.
    """
    projector = recover(bootstrap, codec, group, folds, checkpoints)
    keeper = CheckpointKeeper(bootstrap, checkpoints) if checkpoints else None
    flush(projector)
    on_recovered()
    writer = log.LogWriter(bootstrap, codec)
    consumer = log.make_consumer(bootstrap, group)
    merger = Merger()
    meter = LagMeter(bootstrap, group)
    try:
        partitions = log.partitions_of(consumer, projector.topics)
        consumer.assign([TopicPartition(*key, projector.offsets.get(key, 0)) for key in partitions])
        for key in partitions:
            merger.open(key)
        hashed_at, hashed_events, flushed_at = 0.0, -1, 0.0
        ends: log.Offsets = {}
        balance = log.Balance(consumer, merger, partitions)
        committed = dict(projector.offsets)
        while not stop.is_set():
            _poll(consumer, codec, merger, ends)
            answers: list[Event] = []
            count = 0
            for event in merger.pop():
                answers += projector.react(event)
                count += 1
            balance.keep()
            _pass_over(projector, merger, ends)
            now = time.monotonic()
            if count and answers:
                writer.insist(answers, stop)
            # Idle, too: a store that was emptied is filled again.
            if count or now - flushed_at > FLUSH_SECONDS:
                flush(projector)
                flushed_at = now
            meter.observe(projector.offsets)
            if projector.offsets != committed:
                _commit(consumer, projector)
                committed = dict(projector.offsets)
                on_batch(count, projector)
                if keeper is not None:
                    keeper.keep(projector)
            if (
                now - hashed_at > HASH_SECONDS
                and projector.events != hashed_events
                and not len(merger)
            ):
                writer.insist(state_hashes(projector), stop)
                hashed_at, hashed_events = now, projector.events
        writer.insist(state_hashes(projector), threading.Event())
    finally:
        meter.close()
        consumer.close()


def _poll(consumer: Consumer, codec: Codec, merger: Merger, ends: log.Offsets) -> None:
    """Queue what arrived; `ends` gets the end offset of each partition that was read to its end."""
    messages = log.poll_batch(consumer, 1_000, 0.1)
    for message in messages:
        key = str(message.topic()), message.partition() or 0
        error = message.error()
        if error is None:
            merger.open(key)
            item = log.decode(codec, message)
            if isinstance(item, Event):
                merger.push(item)
            else:  # the history consumer owns the dead-letter topic
                logger.warning("undecodable record skipped", at=str(item.at), why=str(item.error))
        elif error.code() == KafkaError._PARTITION_EOF:
            merger.close(key)
            ends[key] = message.offset() or 0
        elif error.fatal():
            raise log.LogUnavailable(error.str())


def _pass_over(projector: Projector, merger: Merger, ends: log.Offsets) -> None:
    """At a partition's end, with nothing of it queued, all is done: bad and control records, too."""
    for topic, partition in list(ends):
        if not merger.queued((topic, partition)):
            projector.skip_to(topic, partition, ends.pop((topic, partition)))


def _commit(consumer: Consumer, projector: Projector) -> None:
    offsets = [TopicPartition(*key, offset) for key, offset in projector.offsets.items()]
    try:
        consumer.commit(offsets=offsets, asynchronous=True)
    except KafkaException as error:  # the next commit says the same and more
        logger.warning("commit failed", error=error.args[0].str())
