"""The consumer loop with a scripted log and a store that fails on purpose."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa
import pytest

from consumers.history import runner as module
from consumers.history.blocks import DeadLetter
from consumers.history.metrics import HistoryMetrics
from consumers.history.record import Part, Partition, Record
from consumers.history.runner import HistoryRunner, LogRecreated
from consumers.history.store import StoreUnavailable
from consumers.history.tables import Table
from schemas.codec import Codec
from schemas.event import Position
from tests.unit.consumers.history_data import (
    TOPICS,
    MemoryRegistry,
    label,
    parts,
    prediction,
    records,
)

PREDICTIONS, LABELS = ("flights.predictions", 0), ("flights.labels", 0)


class Log:
    """Partitions of records; stops the runner when all that is not paused has been read."""

    def __init__(self, stop: threading.Event, partitions: dict[Partition, list[Record]]) -> None:
        self.stop = stop
        self.content = partitions
        self.at: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.on_idle: list[Callable[[], None]] = []
        self.ids = "first"
        self.closed = False

    def partitions(self) -> set[Partition]:
        return set(self.content)

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(topics, self.ids)

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        self.at = dict(offsets)

    def read(self, _: Callable[[], bool]) -> tuple[list[Part], dict[Partition, int]]:
        found = []
        for partition in self.at.keys() - self.paused:
            found += self.content[partition][self.at[partition] :]
            self.at[partition] = len(self.content[partition])
        if not found and not self.paused:
            if self.on_idle:
                self.on_idle.pop(0)()
            else:
                self.stop.set()
        return parts(found), {}

    def end(self, partition: Partition) -> int:
        return len(self.content[partition])

    def wait_at(self, partition: Partition, offset: int) -> None:
        self.at[partition] = offset
        self.paused.add(partition)

    def go_on(self, partition: Partition) -> None:
        self.paused.discard(partition)

    def show_progress(self, offsets: Mapping[Partition, int]) -> None:
        assert offsets

    def close(self) -> None:
        self.closed = True


class Rows:
    """Remembers the order of writes; the first `failures` of them fail."""

    def __init__(self) -> None:
        self.failures = 0
        self.ids: list[str] = []
        self.letters: list[int] = []
        self.stored: dict[Partition, tuple[str, int]] = {}

    def prepare(self, tables: Iterable[Table]) -> None:
        assert list(tables)

    def positions(self) -> dict[Partition, tuple[str, int]]:
        return dict(self.stored)

    def dead_letters_from(self, topic: str, partition: int, offset: int) -> set[int]:
        assert (topic, partition) in (PREDICTIONS, LABELS) and offset >= 0
        return set(self.letters)

    def write_events(self, table: Table, rows: pa.Table) -> None:
        self._fail()
        assert set(rows.column_names) == set(table.written())
        self.ids += rows.column("event_id").to_pylist()

    def write_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        self._fail()
        self.letters += [letter.at.offset for letter in letters]

    def write_positions(
        self, positions: Iterable[tuple[str, int, int]], topic_ids: dict[str, str]
    ) -> None:
        self._fail()
        for topic, partition, next_offset in positions:
            self.stored[topic, partition] = (topic_ids[topic], next_offset)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the disk is full")


class Queue:
    """The dead-letter topic."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def publish(self, letters: Sequence[DeadLetter]) -> None:
        self.sent += [each.at.offset for each in letters if each.at.offset not in self.sent]

    def mark_sent(self, _topic: str, _partition: int, offset: int) -> None:
        self.sent.append(offset)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "LOOK_FOR_PARTITIONS_S", -1.0)


class World:
    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.stop = threading.Event()
        self.log = Log(
            self.stop,
            {
                PREDICTIONS: records(codec, [prediction(n) for n in range(3)]),
                LABELS: records(codec, [label(n) for n in range(2)]),
            },
        )
        self.rows, self.queue, self.metrics = Rows(), Queue(), HistoryMetrics()
        self.registry = MemoryRegistry()

    def run(self) -> None:
        self.stop.clear()
        HistoryRunner(
            TOPICS,
            Codec(self.registry, TOPICS),
            self.log,  # type: ignore[arg-type]
            self.rows,  # type: ignore[arg-type]
            self.queue,  # type: ignore[arg-type]
            self.metrics,
            self.stop,
        ).run()
        assert self.log.closed


@pytest.fixture
def world(codec: Codec) -> World:
    return World(codec)


def test_everything_is_stored_once_and_a_restart_goes_on_from_there(world: World) -> None:
    world.run()
    assert len(world.rows.ids) == len(set(world.rows.ids)) == 5
    assert world.rows.stored == {PREDICTIONS: ("first", 3), LABELS: ("first", 2)}
    assert world.metrics.status()["lag"] == 0
    assert world.metrics.status()["state"] == "stopped"
    world.log.content[LABELS] += records(world.codec, [label(7)], 2)
    world.run()
    assert len(world.rows.ids) == len(set(world.rows.ids)) == 6


def test_a_store_that_fails_is_asked_until_it_takes_everything(world: World) -> None:
    world.rows.failures = 6
    world.run()
    assert sorted(world.rows.ids) == sorted({*world.rows.ids}) and len(world.rows.ids) == 5
    assert world.rows.stored == {PREDICTIONS: ("first", 3), LABELS: ("first", 2)}
    assert b"driftlog_history_retries_total 6.0" in world.metrics.exposition()


def test_told_to_stop_while_the_store_is_away_it_stops_and_has_skipped_nothing(
    world: World,
) -> None:
    world.rows.failures = 10**9
    threading.Timer(0.1, world.stop.set).start()
    world.run()
    assert world.rows.stored == {}
    world.rows.failures = 0
    world.run()
    assert len(set(world.rows.ids)) == 5


def test_while_the_registry_is_away_what_needs_it_waits_and_is_no_dead_letter(world: World) -> None:
    world.registry.up = False
    back = threading.Timer(0.1, lambda: setattr(world.registry, "up", True))
    back.start()
    world.run()
    assert len(world.rows.ids) == len(set(world.rows.ids)) == 5
    assert world.rows.letters == []


def test_a_partition_that_appears_later_is_read_from_its_start(world: World) -> None:
    late = world.log.content.pop(LABELS)
    world.log.on_idle.append(lambda: world.log.content.update({LABELS: late}))
    world.log.on_idle.append(lambda: None)
    world.run()
    assert len(world.rows.ids) == len(set(world.rows.ids)) == 5


def test_dead_letters_are_sent_once_and_not_all_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [Record(Position(*PREDICTIONS, 3 + n), b"k", b"poison", 0) for n in range(20)]
    world.log.content[PREDICTIONS] += bad
    with caplog.at_level(logging.WARNING, logger="driftlog.history"):
        world.run()
    assert world.queue.sent == world.rows.letters == list(range(3, 23))
    assert len(caplog.records) == module.LOGGED_LETTERS + 1
    assert "15 more dead letters" in caplog.records[-1].message
    assert world.rows.stored[PREDICTIONS] == ("first", 23)


def test_a_topic_that_was_made_again_is_told_and_nothing_is_mixed(world: World) -> None:
    world.run()
    world.log.ids = "second"
    with pytest.raises(LogRecreated, match="deleted and made again"):
        world.run()
    assert world.metrics.status()["state"] == "failed"
    assert not world.metrics.ready
    assert len(world.rows.ids) == 5
