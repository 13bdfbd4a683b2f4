"""Lag against real brokers: in events, and in seconds between what was processed and the log's end."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client import CollectorRegistry

from infra.settings import Settings
from streams.lag import LagMeter, RecordTimes, measure
from tests.integration.clusters import eventually

pytestmark = pytest.mark.integration
START_MS = 1_700_000_000_000


@pytest.fixture
def times(cluster: Settings) -> Iterator[RecordTimes]:
    made = RecordTimes(cluster.bootstrap)
    yield made
    made.close()


def create(settings: Settings, topic: str, partitions: int) -> str:
    client = AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    client.create_topics([NewTopic(topic, partitions)], request_timeout=20)[topic].result(20)
    return topic


def fill(settings: Settings, topic: str, partition: int, count: int, stated: bool) -> None:
    """A record per second of event time, stated in `ce_time` or only as Kafka's timestamp."""
    writer = Producer({"bootstrap.servers": settings.bootstrap, "linger.ms": 5})
    for number in range(count):
        at = START_MS + number * 1_000
        stamp = datetime.fromtimestamp(at / 1000, UTC).isoformat().replace("+00:00", "Z")
        headers = [("ce_time", stamp.encode())] if stated else []
        writer.produce(
            topic, b"x", partition=partition, headers=headers, timestamp=0 if stated else at
        )
    assert writer.flush(30) == 0


def test_events_and_event_time_between_the_position_and_the_end(
    cluster: Settings, times: RecordTimes
) -> None:
    topic = create(cluster, "lag-measure", 3)
    fill(cluster, topic, 0, 100, stated=True)
    fill(cluster, topic, 1, 50, stated=False)
    at = {(topic, 0): 100, (topic, 1): 50, (topic, 2): 0}
    assert measure(times, at) == {topic: (0, 0)}
    assert measure(times, {**at, (topic, 0): 90}) == {topic: (10, 10)}
    assert measure(times, {**at, (topic, 0): 90, (topic, 1): 10}) == {topic: (50, 40)}
    # Before the first record nothing was processed: its own time is where event time begins.
    assert measure(times, {**at, (topic, 0): 0}) == {topic: (100, 99)}
    fill(cluster, topic, 2, 1, stated=True)
    assert measure(times, at) == {topic: (1, 0)}


def test_markers_of_transactions_are_looked_past(cluster: Settings, times: RecordTimes) -> None:
    topic = create(cluster, "lag-transactions", 1)
    writer = Producer({"bootstrap.servers": cluster.bootstrap, "transactional.id": "lag"})
    writer.init_transactions(30)
    for number in range(20):
        writer.begin_transaction()
        writer.produce(topic, b"x", partition=0, timestamp=START_MS + number * 1_000)
        writer.flush(30)  # an abort would drop what was not sent yet
        if number < 10:
            writer.commit_transaction(30)
        else:
            writer.abort_transaction(30)
    # Records at 0, 2, ... 18, each followed by its marker; ten aborted ones after them.
    eventually(lambda: times.ends([(topic, 0)]) == {(topic, 0): 40})
    assert measure(times, {(topic, 0): 11}) == {topic: (29, 4)}


def test_the_gauges_follow_the_positions(cluster: Settings) -> None:
    topic = create(cluster, "lag-gauges", 1)
    fill(cluster, topic, 0, 30, stated=True)
    registry = CollectorRegistry()
    labels = {"group": "lag-gauges", "topic": topic}

    def shown() -> tuple[float | None, float | None]:
        return (
            registry.get_sample_value("driftlog_lag_events", labels),
            registry.get_sample_value("driftlog_lag_event_seconds", labels),
        )

    meter = LagMeter(cluster.bootstrap, "lag-gauges", registry, interval_s=0.05)
    meter.observe({(topic, 0): 10})
    eventually(lambda: shown() == (20, 20))
    meter.observe({(topic, 0): 30})
    eventually(lambda: shown() == (0, 0))
    meter.observe({})  # another member owns it now, and says so itself
    eventually(lambda: shown() == (None, None))
    meter.close()


def test_lag_is_unknown_while_no_broker_answers() -> None:
    registry = CollectorRegistry()
    meter = LagMeter("127.0.0.1:1", "lag-down", registry, interval_s=0.05)
    meter.observe({("topic", 0): 10})
    labels = {"group": "lag-down", "topic": "topic"}

    def unknown() -> bool:
        value = registry.get_sample_value("driftlog_lag_events", labels)
        return value is not None and math.isnan(value)

    eventually(unknown)
    meter.close()


def test_a_consumer_that_hangs_is_told_from_one_that_works_or_has_nothing_to_do(
    cluster: Settings,
) -> None:
    topic = create(cluster, "lag-stalled", 1)
    fill(cluster, topic, 0, 30, stated=True)
    stalled, registry = threading.Event(), CollectorRegistry()
    meter = LagMeter(cluster.bootstrap, "lag-stalled", registry, 0.01, stalled.set, 0.45)
    meter.observe({(topic, 0): 30})
    assert not stalled.wait(1.5)  # some hundred looks
    for position in range(30):
        meter.observe({(topic, 0): position})
        assert not stalled.wait(0.05)
    assert stalled.wait(30)  # at 29, with one more to read
    meter.close()
