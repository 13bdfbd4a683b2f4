"""The record reader against real brokers: byte for byte what the official client hands out."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra.settings import Settings
from schemas.columnar.records import Records
from streams.log import LogUnavailable
from streams.reader import OffsetGone, RecordReader, read_records
from tests.integration.clusters import BROKERS, eventually, pid_of, running

pytestmark = pytest.mark.integration

Item = tuple[int, int, bytes | None]
"""Offset, Kafka timestamp in ms, payload."""


def create(settings: Settings, topic: str, partitions: int = 1) -> str:
    client = AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    client.create_topics([NewTopic(topic, partitions)], request_timeout=20)[topic].result(20)
    return topic


def producer(settings: Settings, **more: object) -> Producer:
    return Producer(
        {"bootstrap.servers": settings.bootstrap, "acks": "all", "linger.ms": 5, **more}
    )


def fill(settings: Settings, topic: str, count: int, partitions: int = 1, **more: object) -> None:
    """`count` records per partition; the payload says its offset."""
    writer = producer(settings, **{"queue.buffering.max.messages": 2_000_000, **more})
    for number in range(count):
        for partition in range(partitions):
            writer.produce(topic, b"%d" % number + b"." * (number % 200), partition=partition)
    assert writer.flush(60) == 0


def items(records: Records | None) -> list[Item]:
    if records is None:
        return []
    return [
        (int(records.offset[i]), int(records.recorded[i]), records.payload(i))
        for i in range(len(records))
    ]


def to_end(
    reader: RecordReader, topic: str, partition: int = 0, at_once: int = 10_000
) -> list[Item]:
    """All records up to the end of the partition."""
    found: list[Item] = []

    def at_end() -> bool:
        while got := items(reader.poll(topic, partition, at_once, 0.5)):
            found.extend(got)
        return reader.at_end(topic, partition)

    eventually(at_end)
    return found


def official(settings: Settings, topic: str, partition: int = 0) -> list[Item]:
    """The same by the official client."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap,
            "group.id": "official",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    found: list[Item] = []

    def at_end() -> bool:
        for message in consumer.consume(1_000, 0.5):
            if message.error() is not None:
                return True
            found.append((message.offset(), message.timestamp()[1], message.value()))
        return False

    eventually(at_end)
    consumer.close()
    return found


@pytest.fixture
def reader(cluster: Settings) -> Iterator[RecordReader]:
    with RecordReader(cluster.bootstrap) as made:
        yield made


@pytest.mark.parametrize("codec", ["none", "lz4", "gzip", "snappy", "zstd"])
def test_bytes_offsets_and_timestamps_are_those_of_the_official_client(
    cluster: Settings, reader: RecordReader, codec: str
) -> None:
    topic = create(cluster, f"reader-bytes-{codec}")
    rng = random.Random(codec)
    writer = producer(cluster, **{"compression.type": codec, "batch.size": 20_000})
    for number in range(3_000):
        size = rng.choice([0, 1, 7, 130, 4_000])
        payload = None if number % 11 == 0 else rng.randbytes(size)
        writer.produce(
            topic, payload, key=rng.choice([None, b"", b"key"]), timestamp=1 + number * 7
        )
        if number % 500 == 0:
            writer.flush(30)
    assert writer.flush(30) == 0
    reader.assign(topic, 0, 0)
    found = to_end(reader, topic, at_once=rng.choice([1, 100, 10_000]))
    assert found == official(cluster, topic)
    assert [offset for offset, _, _ in found] == list(range(3_000))
    assert {payload for _, _, payload in found[::11]} == {None}
    assert reader.position(topic, 0) == reader.high(topic, 0) == 3_000


def test_aborted_transactions_are_left_out_and_the_position_passes_their_markers(
    cluster: Settings, reader: RecordReader
) -> None:
    topic = create(cluster, "reader-transactions")
    writer = producer(cluster, **{"transactional.id": "reader-transactions"})
    writer.init_transactions(30)
    for number in range(6):
        writer.begin_transaction()
        for _ in range(10):
            writer.produce(topic, b"%d" % number, partition=0)
        writer.flush(30)
        if number % 2:
            writer.abort_transaction(30)
        else:
            writer.commit_transaction(30)
    reader.assign(topic, 0, 0)
    found = to_end(reader, topic)
    assert found == official(cluster, topic)
    assert [payload for _, _, payload in found] == [b"0"] * 10 + [b"2"] * 10 + [b"4"] * 10
    assert reader.position(topic, 0) == 66
    # What an open transaction holds is not the end of the committed log's business.
    writer.begin_transaction()
    writer.produce(topic, b"open", partition=0)
    writer.flush(30)
    assert reader.poll(topic, 0, timeout_s=0.5) is None
    assert reader.at_end(topic, 0) and reader.position(topic, 0) == 66
    writer.commit_transaction(30)
    assert [payload for _, _, payload in to_end_again(reader, topic, 68)] == [b"open"]


def to_end_again(reader: RecordReader, topic: str, position: int) -> list[Item]:
    found: list[Item] = []

    def there() -> bool:
        found.extend(items(reader.poll(topic, 0, timeout_s=0.5)))
        return reader.position(topic, 0) == position

    eventually(there)
    return found


def test_from_the_middle_back_and_forth(cluster: Settings, reader: RecordReader) -> None:
    topic = create(cluster, "reader-seek")
    fill(cluster, topic, 5_000)
    whole = official(cluster, topic)
    for start in (2_500, 0, 4_999, 17):
        reader.assign(topic, 0, start)
        assert reader.position(topic, 0) == start and not reader.at_end(topic, 0)
        first = reader.poll(topic, 0, max_records=10, timeout_s=30)
        assert items(first) == whole[start : start + len(first or [])]
        assert 1 <= len(first or []) <= 10
    assert items(first) + to_end(reader, topic) == whole[17:]
    reader.revoke(topic, 0)
    assert reader.assigned() == []
    with pytest.raises(KeyError, match="not assigned"):
        reader.poll(topic, 0)


def test_an_offset_that_is_gone_is_said_and_nothing_is_skipped(
    cluster: Settings, reader: RecordReader
) -> None:
    topic = create(cluster, "reader-gone")
    fill(cluster, topic, 100)
    client = AdminClient({"bootstrap.servers": cluster.bootstrap})
    place = TopicPartition(topic, 0, 40)
    client.delete_records([place], request_timeout=20)[place].result(20)
    for start in (10, 101):
        reader.assign(topic, 0, start)
        for _ in range(2):  # it stands until the caller decides
            with pytest.raises(
                OffsetGone, match=f"at offset {start}: the log holds offsets 40 to 99"
            ):
                reader.poll(topic, 0, timeout_s=30)
        assert reader.position(topic, 0) == start
    reader.assign(topic, 0, 40)
    assert [offset for offset, _, _ in to_end(reader, topic)] == list(range(40, 100))


@pytest.mark.parametrize(("name", "partition"), [("reader-no-such-topic", 0), ("reader-narrow", 7)])
def test_a_partition_that_does_not_exist_is_said(
    cluster: Settings, reader: RecordReader, name: str, partition: int
) -> None:
    if partition:
        create(cluster, name)
    reader.assign(name, partition, 0)
    with pytest.raises(LogUnavailable, match=rf"{name}\[{partition}\] cannot be read: .*nknown"):
        keep_polling(reader, name, partition)


def keep_polling(reader: RecordReader, topic: str, partition: int) -> None:
    for _ in range(60):
        assert reader.poll(topic, partition, timeout_s=1) is None


def test_a_backlog_is_read_in_bounded_memory(cluster: Settings) -> None:
    topic = create(cluster, "reader-bounded")
    fill(cluster, topic, 60_000)
    limits = {"fetch_bytes": 16_384, "queue_bytes": 150_000}
    # A fetch may bring a whole batch of the producer's, however small the limit.
    largest = (150_000 + 1_000_000) // 30
    seen: list[int] = []
    with RecordReader(cluster.bootstrap, **limits) as reader:
        reader.assign(topic, 0, 0)
        eventually(lambda: reader.queued(topic, 0) >= 1_000)
        expected = 0

        def read_on() -> bool:
            nonlocal expected
            while records := reader.poll(topic, 0, 500, 0.5):
                assert list(records.offset) == list(range(expected, expected + len(records)))
                expected += len(records)
                seen.append(reader.queued(topic, 0))
            return expected == 60_000

        eventually(read_on)
    assert max(seen) <= largest


def test_one_wait_serves_all_partitions(cluster: Settings, reader: RecordReader) -> None:
    topic = create(cluster, "reader-wait", partitions=3)
    for partition in range(3):
        reader.assign(topic, partition, 0)
        to_end(reader, topic, partition)
    writer = producer(cluster)
    found: list[tuple[int, bytes | None]] = []
    for round_ in range(9):
        writer.produce(topic, b"%d" % round_, partition=round_ % 3)
        assert writer.flush(30) == 0

        def arrived(wanted: int = round_ + 1) -> bool:
            for partition in range(3):
                got = items(reader.poll(topic, partition))
                found.extend((partition, payload) for _, _, payload in got)
            # A wake-up that is lost would leave the record unread until the test's patience ends.
            return len(found) == wanted or (reader.wait(60) and False)

        eventually(arrived)
    assert found == [(n % 3, b"%d" % n) for n in range(9)]


def test_threads_poll_different_partitions_at_once(cluster: Settings, reader: RecordReader) -> None:
    topic = create(cluster, "reader-threads", partitions=4)
    fill(cluster, topic, 20_000, partitions=4)
    found: dict[int, list[Item]] = {}

    def work(partition: int) -> None:
        reader.assign(topic, partition, 0)
        found[partition] = to_end(reader, topic, partition, at_once=777)

    threads = [threading.Thread(target=work, args=(partition,)) for partition in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    for partition in range(4):
        assert found[partition] == official(cluster, topic, partition)


def test_a_bounded_read_ends_at_its_offsets_and_tells_how_far_it_is(cluster: Settings) -> None:
    topic = create(cluster, "reader-replay", partitions=3)
    fill(cluster, topic, 4_000, partitions=3)
    start, end = {(topic, 0): 100}, {(topic, 0): 3_333, (topic, 1): 4_000, (topic, 2): 0}
    progress: list[tuple[int, int]] = []
    found: dict[int, list[int]] = {0: [], 1: []}
    batches = read_records(
        cluster.bootstrap, start, end, 250, lambda done, total: progress.append((done, total))
    )
    for records in batches:
        found[records.partition] += records.offset.tolist()
    assert found == {0: list(range(100, 3_333)), 1: list(range(4_000))}
    assert progress == sorted(progress) and progress[-1] == (7_233, 7_233)


def test_records_outlive_the_reader(cluster: Settings) -> None:
    topic = create(cluster, "reader-outlive")
    fill(cluster, topic, 1_000)
    reader = RecordReader(cluster.bootstrap)
    reader.assign(topic, 0, 0)
    kept = reader.poll(topic, 0, timeout_s=30)
    reader.close()
    reader.close()
    assert kept is not None and items(kept) == official(cluster, topic)[: len(kept)]
    for use in (reader.poll, reader.revoke, reader.position):
        with pytest.raises(ValueError, match="closed"):
            use(topic, 0)
    with pytest.raises(ValueError, match="closed"):
        reader.wait(0)


LEAVES_WITHOUT_CLOSING = """
import sys, threading
from streams.reader import RecordReader

reader = RecordReader(sys.argv[1])
reader.assign(sys.argv[2], 0, 0)
kept = reader.poll(sys.argv[2], 0, timeout_s=30)
threading.Thread(target=lambda: reader.poll(sys.argv[2], 0, timeout_s=1), daemon=True).start()
print(len(kept) > 0)
"""


def test_an_interpreter_that_ends_without_closing_ends_cleanly(cluster: Settings) -> None:
    topic = create(cluster, "reader-exit")
    fill(cluster, topic, 1_000)
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_WITHOUT_CLOSING, cluster.bootstrap, topic],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_killed_leader_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with running(tmp_path, BROKERS) as settings:
        topic = create(settings, "reader-leader", partitions=2)
        fill(settings, topic, 60_000, partitions=2)
        with RecordReader(settings.bootstrap, fetch_bytes=20_000, queue_bytes=20_000) as reader:
            for partition in range(2):
                reader.assign(topic, partition, 0)
            found: dict[int, list[int]] = {0: [], 1: []}

            def read(until: int) -> Callable[[], bool]:
                def enough() -> bool:
                    for partition, offsets in found.items():
                        for _ in range(10):
                            got = items(reader.poll(topic, partition, 500, 0.01))
                            offsets.extend(offset for offset, _, _ in got)
                    return all(len(offsets) >= until for offsets in found.values())

                return enough

            eventually(read(5_000))
            os.kill(pid_of(settings, leader_of(settings, topic)), signal.SIGKILL)
            eventually(read(60_000))
    assert found == {0: list(range(60_000)), 1: list(range(60_000))}


def leader_of(settings: Settings, topic: str) -> str:
    client = AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    return f"broker-{client.list_topics(topic, 20).topics[topic].partitions[0].leader}"
