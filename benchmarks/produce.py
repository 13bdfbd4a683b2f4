"""How fast events get into the log: acknowledged by all in-sync replicas, with equal settings.

    python -m benchmarks.produce [--quick] [--json FILE]

Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.produce_arms import ARMS, Job
from infra.settings import Settings
from schemas.registry.client import RegistryClient
from streams.topics import ensure_topics, register_schemas

EVENTS = 200_000
QUICK_EVENTS = 40_000
PARTITIONS = 4
RAW_SHARE = 0.5
"""What the log's guarantees (positions, errors by record) may cost of confluent-kafka's own rate."""
EVENT_RATE = 20_000
"""Events a second from one writer, validated, encoded and with headers: what a busy service may say."""
HEADER = (
    "writer",
    "events/s",
    "x bare",
    "x aiokafka",
    "peak MB",
    "CPU s",
    "brokers'\nCPU s",
    "log",
)


@dataclass
class Outcome:
    """What a writer did."""

    name: str
    rates: list[float] = field(default_factory=list)
    used: list[harness.Used] = field(default_factory=list)
    broker_cpu_s: float = 0.0
    right: bool = True
    note: str = ""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates) if self.rates else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.produce", description=__doc__)
    add: Any = parser.add_argument
    add("--quick", action="store_true", help=f"{QUICK_EVENTS:,} events, one run of each")
    add("--events", type=int, metavar="N", help=f"{EVENTS:,} unless said otherwise")
    add("--runs", type=int, metavar="N", help="of each writer, 3 unless said otherwise")
    add("--port-offset", type=int, default=600, metavar="N")
    add("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    events = asked.events or (QUICK_EVENTS if asked.quick else EVENTS)
    runs = asked.runs or (1 if asked.quick else 3)
    outcomes = [Outcome(name) for name in ARMS]
    with tempfile.TemporaryDirectory(prefix="produce-") as home:
        settings = Settings(
            home=Path(home), port_offset=asked.port_offset, cache=Settings().cache.expanduser()
        )
        with harness.cluster(settings):
            for turn in range(runs):
                for outcome in outcomes:
                    _turn(settings, outcome, turn, events)
    console = harness.console()
    title = f"{events:,} predictions in the log: {PARTITIONS} partitions, three replicas, acks=all"
    harness.show_table(console, title, HEADER, rows(outcomes))
    for outcome in outcomes:
        if outcome.note:
            console.print(f"{outcome.name}: {outcome.note}", highlight=False)
    report = {
        "events": events,
        "writers": [
            {
                "name": outcome.name,
                "events_per_second": round(outcome.rate),
                "runs": [round(rate) for rate in outcome.rates],
                "peak_mb": max((used.peak_mb for used in outcome.used), default=None),
                "cpu_s": outcome.used[-1].cpu_s if outcome.used else None,
                "broker_cpu_s": round(outcome.broker_cpu_s, 2),
                "right": outcome.right,
                "note": outcome.note,
            }
            for outcome in outcomes
        ],
    }
    return harness.finish(console, goals(outcomes), report, asked.json)


def _turn(settings: Settings, outcome: Outcome, turn: int, events: int) -> None:
    """One run into a topic of its own, which is then read back."""
    job = Job(f"produce_{outcome.name}_{turn}", events, PARTITIONS)
    ensure_topics(settings.bootstrap, job.topics[:1], settings.replication)
    registry = RegistryClient(settings.registry, settings.home / "schemas")
    register_schemas(registry, job.topics[:1])
    path = settings.home / f"{job.task}.json"
    job.write(path)
    before = harness.broker_cpu_seconds(settings)
    try:
        result, used = harness.measure(
            [sys.executable, "-m", "benchmarks.produce_arms", outcome.name, str(path)],
            settings.logs / f"{job.task}.log",
            env=settings.to_env(),
        )
    except harness.NotRun as reason:
        outcome.note, outcome.right = f"not run: {reason}", False
        return
    outcome.broker_cpu_s = harness.broker_cpu_seconds(settings) - before
    outcome.rates.append(events / (result["ended"] - result["began"]))
    outcome.used.append(used)
    topic = job.topics[0]
    sent = job.records(registry.schema_id(topic.subject, topic.value_schema))
    if digest(sent) != digest(_read(settings, topic.name)):
        outcome.right, outcome.note = False, "the log does not hold what was sent, each once"


def _read(settings: Settings, topic: str) -> Iterable[tuple[bytes, bytes]]:
    """(key, value) of every record."""
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": "benchmark"})
    try:
        left = 0
        for partition in range(PARTITIONS):
            place = TopicPartition(topic, partition, 0)
            left += consumer.get_watermark_offsets(place, timeout=10)[1]
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        while left:
            for message in consumer.consume(10_000, 1.0):
                if message.error():
                    raise SystemExit(str(message.error()))
                left -= 1
                yield message.key(), message.value()
    finally:
        consumer.close()


def digest(records: Iterable[tuple[bytes, bytes]]) -> str:
    """Of the records in any order."""
    whole = hashlib.sha256()
    for key, value in sorted(records):
        whole.update(key + value)
    return whole.hexdigest()


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """One row a writer, the fastest first."""
    rates = {outcome.name: outcome.rate for outcome in outcomes}
    table = []
    for outcome in sorted(outcomes, key=lambda one: -one.rate):
        title = ARMS[outcome.name][0]
        if not outcome.rates:
            table.append([title, "not run", *[""] * 6])
            continue
        table.append(
            [
                title,
                f"{outcome.rate:,.0f}",
                *(
                    f"{outcome.rate / rates[other]:.2f}" if rates[other] else ""
                    for other in ("bare", "aiokafka")
                ),
                f"{max(used.peak_mb for used in outcome.used):,.0f}",
                f"{outcome.used[-1].cpu_s:.1f}",
                f"{outcome.broker_cpu_s:.1f}",
                "each once" if outcome.right else "wrong",
            ]
        )
    return table


def goals(outcomes: Sequence[Outcome]) -> list[Goal]:
    rates = {outcome.name: outcome.rate for outcome in outcomes}
    wrong = [outcome.name for outcome in outcomes if not outcome.right]
    share = rates["raw"] / rates["bare"] if rates["bare"] else 0.0
    return [
        Goal(
            "every record is in the log once, whoever wrote it",
            f"{len(outcomes) - len(wrong)} of {len(outcomes)} writers",
            not wrong,
        ),
        Goal(
            f"with ready payloads LogWriter keeps {RAW_SHARE:.0%} of confluent-kafka's own rate",
            f"{rates['raw']:,.0f} of {rates['bare']:,.0f} events/s: {share:.0%}",
            share >= RAW_SHARE,
        ),
        Goal(
            f"LogWriter takes {EVENT_RATE:,} events/s from one thread",
            f"{rates['events']:,.0f} events/s",
            rates["events"] >= EVENT_RATE,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
