"""Three real brokers: nothing acknowledged is lost, and the system comes back whatever is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra import lifecycle, records
from infra.chaos import inject
from infra.errors import InfraError
from infra.kafka import broker_services
from infra.ports import check_free
from infra.settings import HOST, Settings
from tests.integration.clusters import BROKERS, eventually, fresh_settings, pid_of, ready, running

pytestmark = pytest.mark.integration

PARTITIONS = 6
REFUSALS = {
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError._MSG_TIMED_OUT,
}
UP = """
import os
from infra.kafka import broker_services
from infra.settings import Settings
from infra.supervisor import run_foreground

settings = Settings.from_env(os.environ)
run_foreground(settings, broker_services(settings))
"""
"""What `driftlog up` does in its daemon, for the brokers alone."""


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A cluster of this file's own, to be broken; each test leaves all three brokers ready."""
    with running(tmp_path_factory.mktemp("brokers"), BROKERS) as settings:
        yield settings


class Load:
    """A steady idempotent producer with `acks=all`; remembers what was acknowledged, and when."""

    def __init__(self, settings: Settings, topic: str, per_second: int = 400) -> None:
        create(settings, topic)
        self.acknowledged: list[tuple[int, float]] = []
        self.refused: list[KafkaError] = []
        self._topic = topic
        self._pause_s = 1 / per_second
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "request.timeout.ms": 3_000,
                "delivery.timeout.ms": 60_000,
                "topic.metadata.refresh.interval.ms": 2_000,
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)
        assert not self._thread.is_alive()

    def more(self, count: int) -> None:
        """Wait until this many more were acknowledged."""
        wanted = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= wanted)

    def longest_gap_s(self) -> float:
        times = sorted(moment for _, moment in self.acknowledged)
        return max((later - sooner for sooner, later in pairwise(times)), default=0.0)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                self._producer.produce(
                    self._topic,
                    str(number).encode(),
                    partition=number % PARTITIONS,
                    on_delivery=self._delivered,
                )
                number += 1
            except BufferError:
                self._producer.poll(0.1)
            self._producer.poll(0)
            self._stop.wait(self._pause_s)
        self._producer.flush(60)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            value = message.value()
            assert value is not None
            self.acknowledged.append((int(value), time.monotonic()))
        else:
            self.refused.append(error)


def admin(settings: Settings) -> AdminClient:
    return AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 0})


def create(settings: Settings, topic: str) -> None:
    wanted = NewTopic(topic, PARTITIONS)  # replicated as the brokers say
    client = admin(settings)  # kept until the answer is there: it ends with its last reference
    client.create_topics([wanted], request_timeout=20)[topic].result(20)


def known_end(consumer: Consumer, place: TopicPartition) -> int | None:
    try:
        return consumer.get_watermark_offsets(place, 20)[1]
    except KafkaException:
        return None


def logged(settings: Settings, topic: str) -> dict[int, list[int]]:
    """All numbers of the topic, in each partition's order."""
    consumer = Consumer(
        {"bootstrap.servers": settings.bootstrap, "group.id": "reader", "log_level": 0}
    )
    places = [TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)]
    # A new leader needs a moment to know where its partition ends.
    eventually(lambda: all(known_end(consumer, place) is not None for place in places), 30)
    left = {place.partition: consumer.get_watermark_offsets(place, 20)[1] for place in places}
    found: dict[int, list[int]] = {partition: [] for partition in left}
    consumer.assign(places)
    deadline = time.monotonic() + 30
    while any(len(found[partition]) < end for partition, end in left.items()):
        assert time.monotonic() < deadline, "the topic cannot be read to its end"
        for message in consumer.consume(1_000, 1):
            assert message.error() is None, message.error()
            partition, value = message.partition(), message.value()
            assert partition is not None and value is not None
            found[partition].append(int(value))
    consumer.close()
    return found


def assert_nothing_is_lost(load: Load, found: dict[int, list[int]], what: str) -> None:
    """Each acknowledged message is there, in order; prints the longest gap and the duplicates.

    The client library is known to repeat a message now and then when a leader changes. Our consumers
    leave out what they have seen, so a repetition counts as nothing lost and nothing out of order.
    """
    everything = [number for numbers in found.values() for number in numbers]
    lost = {number for number, _ in load.acknowledged} - set(everything)
    assert not lost, f"{len(lost)} of {len(load.acknowledged)} acknowledged messages are missing"
    assert not load.refused, load.refused[0]
    for numbers in found.values():
        first_seen = list(dict.fromkeys(numbers))
        assert first_seen == sorted(first_seen), "out of order"
    print(
        f"\n{what}: {len(load.acknowledged)} acknowledged, none lost, "
        f"{len(everything) - len(set(everything))} repeated, "
        f"longest gap between two acknowledgements {load.longest_gap_s():.1f} s"
    )


def leader_of(settings: Settings, topic: str) -> str:
    metadata = admin(settings).list_topics(topic, 20)
    return f"broker-{metadata.topics[topic].partitions[0].leader}"


def in_sync(settings: Settings, topic: str) -> set[int]:
    """The number of in-sync replicas of the topic's partitions."""
    metadata = admin(settings).list_topics(topic, 20)
    return {len(item.isrs) for item in metadata.topics[topic].partitions.values()}


def test_a_killed_leader_costs_no_acknowledged_message(brokers: Settings) -> None:
    with Load(brokers, "leader") as load:
        load.more(400)
        victim = leader_of(brokers, "leader")
        killed = pid_of(brokers, victim)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: started_again(brokers, victim, killed))
        load.more(800)
    assert_nothing_is_lost(load, logged(brokers, "leader"), f"{victim} killed")
    eventually(lambda: in_sync(brokers, "leader") == {3})


def started_again(settings: Settings, name: str, killed: int) -> bool:
    record = records.read_record(settings, name)
    return record is not None and record.pid not in (0, killed) and record.state == "ready"


def test_a_frozen_leader_is_replaced_and_its_late_writes_are_not_lost(brokers: Settings) -> None:
    with Load(brokers, "frozen") as load:
        load.more(400)
        victim = leader_of(brokers, "frozen")
        inject(brokers, "partition", victim, 6.0)
        eventually(lambda: leader_of(brokers, "frozen") != victim)
        load.more(800)
        eventually(lambda: ready(brokers, BROKERS))
    assert_nothing_is_lost(load, logged(brokers, "frozen"), f"{victim} frozen for 6 s")
    eventually(lambda: in_sync(brokers, "frozen") == {3})


def test_with_one_broker_left_writes_are_refused_until_others_return(brokers: Settings) -> None:
    create(brokers, "refused")
    with Load(brokers, "alone") as load:
        load.more(200)
        for victim in BROKERS[1:]:
            inject(brokers, "kill", victim)
        eventually(lambda: not any(runs(brokers, victim) for victim in BROKERS[1:]))
        assert refusal(brokers, "refused") in REFUSALS
        assert lifecycle.is_up(brokers) and not any(runs(brokers, name) for name in BROKERS[1:])
        for victim in BROKERS[1:]:
            inject(brokers, "restart", victim)
        eventually(lambda: ready(brokers, BROKERS))
        load.more(400)
    assert_nothing_is_lost(load, logged(brokers, "alone"), "two of three killed")
    eventually(lambda: in_sync(brokers, "alone") == {3})


def refusal(settings: Settings, topic: str) -> int:
    """The code of the error with which one message is given up after some seconds."""
    codes: list[int] = []

    def ended(error: KafkaError | None, _: Message) -> None:
        codes.append(0 if error is None else error.code())

    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap,
            "acks": "all",
            "delivery.timeout.ms": 4_000,
            "request.timeout.ms": 2_000,
            "log_level": 0,
        }
    )
    producer.produce(topic, b"-1", on_delivery=ended)
    producer.flush(20)
    return codes[0]


def runs(settings: Settings, name: str) -> bool:
    record = records.read_record(settings, name)
    return record is not None and records.alive(record)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a system that is not up yet; whatever a test leaves running is stopped."""
    settings = fresh_settings(tmp_path, attempt=7)
    broker_services(settings)  # so that what is fetched or made once on a machine is there
    for name, value in settings.to_env().items():
        monkeypatch.setenv(name, value)
    yield settings
    lifecycle.stop(settings)


def up(settings: Settings) -> subprocess.Popen[bytes]:
    return lifecycle.spawn_detached(settings, [sys.executable, "-c", UP])


def test_up_twice_a_killed_supervisor_up_again_and_down(own: Settings) -> None:
    daemon = up(own)
    lifecycle.wait_ready(own, BROKERS, daemon=daemon)
    create(own, "kept")
    before = {name: pid_of(own, name) for name in BROKERS}

    second = up(own)
    assert second.wait(30) != 0, "a second supervisor ends"
    assert {name: pid_of(own, name) for name in BROKERS} == before

    append(own, "kept", 1)
    daemon.kill()
    daemon.wait(30)
    assert not lifecycle.is_up(own)
    assert {name: pid_of(own, name) for name in BROKERS} == before, "brokers run on without it"
    states = {item.name: item.state for item in lifecycle.status(own)}
    assert states["supervisor"] == "down" and states["broker-1"] == "ready"
    append(own, "kept", 2)

    daemon = up(own)
    lifecycle.wait_ready(own, BROKERS, daemon=daemon)
    after = {name: pid_of(own, name) for name in BROKERS}
    assert not set(after.values()) & set(before.values())
    assert not any(psutil.pid_exists(pid) for pid in before.values()), "the old ones are stopped"
    assert sorted(n for numbers in logged(own, "kept").values() for n in numbers) == [1, 2]

    assert lifecycle.stop(own) == 4
    assert daemon.wait(30) == 0
    check_free([*own.broker_ports])
    assert records.strays(own) == [] and lifecycle.status(own) == []


def append(settings: Settings, topic: str, number: int) -> None:
    """One acknowledged message."""
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": settings.bootstrap, "acks": "all", "log_level": 0})
    producer.produce(topic, str(number).encode(), on_delivery=lambda error, _: errors.append(error))
    producer.flush(30)
    assert errors == [None]


def test_a_port_that_somebody_else_has_is_named_and_nothing_is_left_running(own: Settings) -> None:
    taken = own.broker_ports[1]
    with socket.create_server((HOST, taken)):
        with pytest.raises(InfraError) as caught:
            lifecycle.wait_ready(own, BROKERS, daemon=up(own), timeout_s=60)
        me = psutil.Process()
        assert f"port {taken} is taken by {me.name()} (pid {me.pid})" in str(caught.value)
    assert records.strays(own) == [] and not lifecycle.is_up(own)
