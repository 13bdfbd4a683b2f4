"""How fast records come out of the log in one Python process: the record reader and its bounds.

    python -m benchmarks.consume [--quick] [--json FILE] [--bootstrap ADDRESSES]

Payloads of 130 bytes in four partitions, uncompressed and lz4. The floor is what everybody can have: the
official client's `consume(10_000)`, nothing decoded, with the better of two settings. The reader hands out
arrays of all payloads' addresses.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.harness import Goal, Used, cluster, console, finish, measure, show_table
from infra.settings import Settings

PARTITIONS = 4
PAYLOAD_BYTES = 130
RECORDS, QUICK_RECORDS = 2_000_000, 400_000
ROUNDS, QUICK_ROUNDS = 5, 3
PORT_OFFSET = 1_100
BATCH = 10_000
GOAL = 1.5
CODECS = ("none", "lz4")
TUNED = {
    "isolation.level": "read_committed",
    "check.crcs": True,
    "fetch.wait.max.ms": 100,
    "fetch.message.max.bytes": 1 << 20,
    "fetch.queue.backoff.ms": 1,
    "queued.min.messages": 20_000,  # more no longer fits the processor's caches
    "queued.max.messages.kbytes": 8_192,
}


@dataclass(frozen=True, slots=True)
class Row:
    """The median run of one contender on one topic."""

    codec: str
    contender: str
    events_per_s: float
    ratio: float
    cpu_s: float
    peak_mb: float
    digest: list[int] | None


def official(bootstrap: str, topic: str, count: int) -> list[int]:
    """confluent-kafka's `consume(10_000)` with its own settings but one.

    By default it stands still for a second whenever its queue is full; without that it would be no rival.
    """
    return _official({"fetch.queue.backoff.ms": 5}, bootstrap, topic, count)


def official_tuned(bootstrap: str, topic: str, count: int) -> list[int]:
    """confluent-kafka with the settings that were the best of those tried: less waits, more often."""
    return _official(TUNED, bootstrap, topic, count)


def _official(settings: dict[str, object], bootstrap: str, topic: str, count: int) -> list[int]:
    consumer = Consumer(
        {
            "enable.auto.commit": False,
            **settings,
            "bootstrap.servers": bootstrap,
            "group.id": "bench",
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    seen = 0
    while seen < count:
        seen += len(consumer.consume(BATCH, 0.1))
    return [seen]


def reader(bootstrap: str, topic: str, count: int) -> list[int]:
    """The record reader, polled by one thread."""
    return _reader(1, bootstrap, topic, count)


def reader_two_threads(bootstrap: str, topic: str, count: int) -> list[int]:
    """The record reader, polled by two threads with two partitions each."""
    return _reader(2, bootstrap, topic, count)


def _reader(threads: int, bootstrap: str, topic: str, count: int) -> list[int]:
    from streams.reader import RecordReader

    with RecordReader(bootstrap) as made:
        totals: list[list[int]] = []

        def work(first: int) -> None:
            left = set(range(first, PARTITIONS, threads))
            seen = size = offsets = 0
            for partition in left:
                made.assign(topic, partition, 0)
            while left:
                before = seen
                for partition in list(left):
                    records = made.poll(topic, partition, BATCH)
                    if records is not None:
                        seen += len(records)
                        size += int(records.length.sum())
                        offsets += int(records.offset.sum())
                    elif made.at_end(topic, partition):
                        left.discard(partition)
                if seen == before:
                    made.wait(0.1 if threads == 1 else 0.001)
            totals.append([seen, size, offsets])

        workers = [threading.Thread(target=work, args=(first,)) for first in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    total = [sum(column) for column in zip(*totals, strict=True)]
    assert total[0] == count, f"{total[0]} of {count} records"
    return total


CONTENDERS: dict[str, Callable[[str, str, int], list[int]]] = {
    "official": official,
    "official-tuned": official_tuned,
    "reader": reader,
    "reader-two-threads": reader_two_threads,
}
LABELS = {
    "official": "official client, consume(10_000)",
    "official-tuned": "official client, tuned",
    "reader": "record reader, one thread",
    "reader-two-threads": "record reader, two threads",
}


def contend(name: str, bootstrap: str, topic: str, count: int) -> None:
    """One contender, as the harness speaks to it."""
    import time

    run = CONTENDERS[name]
    run(bootstrap, f"{topic}-warm", PARTITIONS)  # imports, compilation, the first connections
    print("READY", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    digest = run(bootstrap, topic, count)
    seconds = time.perf_counter() - begin
    print("RESULT", json.dumps({"seconds": seconds, "digest": digest}), flush=True)
    sys.stdin.readline()


def fill(bootstrap: str, topic: str, codec: str, count: int) -> None:
    """`count` payloads of 130 bytes like encoded events: half text that repeats, half noise."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for name in (topic, f"{topic}-warm"):
        admin.create_topics([NewTopic(name, PARTITIONS)])[name].result(30)
    rng = random.Random(7)
    carriers = [rng.choice([b"UA", b"AA", b"B6", b"DL"]) + b"JFKLGAEWR" * 7 for _ in range(64)]
    noise = rng.randbytes(1 << 16)
    writer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": codec,
            "linger.ms": 50,
            "batch.size": 262_144,
            "queue.buffering.max.messages": 500_000,
        }
    )
    for number in range(-PARTITIONS, count):
        begin = number * 48 % 65_000
        text = b"%017d" % number + carriers[number % 64]
        payload = text + noise[begin : begin + PAYLOAD_BYTES - len(text)]
        name = topic if number >= 0 else f"{topic}-warm"
        while True:
            try:
                writer.produce(name, payload, partition=number % PARTITIONS)
                break
            except BufferError:
                writer.poll(0.1)
        if number % 1_000 == 0:
            writer.poll(0)
    if writer.flush(120):
        raise RuntimeError(f"{topic} could not be filled")


def one_run(name: str, codec: str, bootstrap: str, topic: str, count: int, logs: Path) -> Row:
    argv = [sys.executable, "-m", "benchmarks.consume", "--contender", name]
    argv += ["--bootstrap", bootstrap, "--topic", topic, "--count", str(count)]
    result, used = measure(argv, logs / f"{name}-{codec}.log")
    return _row(name, codec, count, result, used)


def _row(name: str, codec: str, count: int, result: dict[str, object], used: Used) -> Row:
    seconds = float(str(result["seconds"]))
    digest = result["digest"]
    assert isinstance(digest, list)
    return Row(codec, name, count / seconds, 0.0, used.cpu_s, used.peak_mb, digest)


def compare(codec: str, bootstrap: str, count: int, rounds: int, logs: Path) -> list[Row]:
    """All contenders in turn, `rounds` times: noise of the machine meets all alike."""
    topic = f"consume-{codec}"
    fill(bootstrap, topic, codec, count)
    runs: dict[str, list[Row]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name in CONTENDERS:
            runs[name].append(one_run(name, codec, bootstrap, topic, count, logs))
    floor = max(
        statistics.median(row.events_per_s for row in runs[name])
        for name in ("official", "official-tuned")
    )
    rows = []
    for name, found in runs.items():
        speed = statistics.median(row.events_per_s for row in found)
        cpu = statistics.median(row.cpu_s for row in found)
        peak = max(row.peak_mb for row in found)
        rows.append(Row(codec, name, speed, speed / floor, cpu, peak, found[0].digest))
    return rows


def check(rows: list[Row], count: int) -> None:
    """All saw as many records; the readers, which look, the same bytes and offsets."""
    per_partition = count // PARTITIONS
    whole = [count, count * PAYLOAD_BYTES, PARTITIONS * per_partition * (per_partition - 1) // 2]
    for row in rows:
        assert row.digest is not None
        assert row.digest == whole[: len(row.digest)], (
            f"{row.contender} saw {row.digest}, not {whole}"
        )


@contextmanager
def brokers(bootstrap: str) -> Iterator[str]:
    """The given brokers, or three of the benchmark's own."""
    if bootstrap:
        yield bootstrap
        return
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(
            home=Path(home), port_offset=PORT_OFFSET, cache=Settings().cache.expanduser()
        )
        with cluster(settings, ("broker-1", "broker-2", "broker-3")):
            yield settings.bootstrap


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer records and rounds")
    parser.add_argument("--json", type=Path, help="write the report here, too")
    parser.add_argument("--bootstrap", default="", help="brokers to use; three of its own if empty")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--topic", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        contend(given.contender, given.bootstrap, given.topic, given.count)
        return 0
    count, rounds = (QUICK_RECORDS, QUICK_ROUNDS) if given.quick else (RECORDS, ROUNDS)
    rows: list[Row] = []
    with brokers(given.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as logs:
        for codec in CODECS:
            rows += compare(codec, bootstrap, count, rounds, Path(logs))
    check(rows, count)
    out = console()
    show_table(
        out,
        f"{count:,} records of {PAYLOAD_BYTES} bytes, {PARTITIONS} partitions, median of {rounds}",
        ("", "codec", "events/s", "x floor", "CPU s", "peak MB"),
        [
            (
                LABELS[row.contender],
                row.codec,
                f"{row.events_per_s:,.0f}",
                f"{row.ratio:.2f}",
                f"{row.cpu_s:.2f}",
                f"{row.peak_mb:.0f}",
            )
            for row in rows
        ],
    )
    goals = [
        Goal(
            f"the reader gives at least {GOAL} x what the official client gives at its best, {row.codec}",
            f"{row.ratio:.2f} x",
            row.ratio >= GOAL,
        )
        for row in rows
        if row.contender == "reader"
    ]
    report = {"records": count, "rounds": rounds, "rows": [asdict(row) for row in rows]}
    return finish(out, goals, report, given.json)


if __name__ == "__main__":
    raise SystemExit(main())
