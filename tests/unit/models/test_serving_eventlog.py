"""The lanes of the log, over a producer in memory: where records go, and what a known outage costs."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from models.serving import eventlog
from models.serving.eventlog import KafkaLog, Record
from models.serving.service import Service
from schemas.catalogue import predictions_topic
from streams.log import LogUnavailable
from tests.unit.models.serving_parts import codec, flight, service

TOPIC = predictions_topic("flights")


class Batch(list[dict[str, Any]]):
    def append(self, **record: Any) -> bool:  # type: ignore[override]
        super().append(record)
        return True


class Producer:
    """Acknowledges batches of partitions that are up; the others wait."""

    def __init__(self, partitions: int) -> None:
        self.up = [asyncio.Event() for _ in range(partitions)]
        for one in self.up:
            one.set()
        self.sent: list[tuple[int, list[str]]] = []

    async def partitions_for(self, topic: str) -> set[int]:
        return set(range(len(self.up)))

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, partition: int) -> asyncio.Future[None]:
        self.sent.append((partition, [record["key"].decode() for record in batch]))
        return asyncio.ensure_future(self._acknowledge(partition))

    async def _acknowledge(self, partition: int) -> None:
        await self.up[partition].wait()


class MemoryKafka(KafkaLog):
    def __init__(self, partitions: int = 4) -> None:
        super().__init__("nowhere", codec())
        self.producer = Producer(partitions)

    async def _start_producer(self) -> Any:
        return self.producer

    def _discard(self, producer: Any) -> None:
        pass


@pytest.fixture
async def log() -> AsyncIterator[MemoryKafka]:
    made = MemoryKafka()
    yield made
    await made.close(0.0)


def record(partition: int, of: int = 4) -> Record:
    key = next(k for k in map(str, range(1_000)) if zlib.crc32(k.encode()) % of == partition)
    return Record(TOPIC, key.encode(), b"value", [], 1)


def over(log: KafkaLog) -> Service:
    made = service()
    made.log, made.turn = log, log.turn
    return made


async def predicted(served: Service, count: int) -> None:
    body = {"instances": [flight()]}
    await asyncio.gather(*(served.predict("flights", body) for _ in range(count)))


async def test_a_batch_goes_to_one_partition_and_batches_take_turns(log: MemoryKafka) -> None:
    served = over(log)
    await predicted(served, 1)  # the partitions are known from here on
    log.producer.sent.clear()
    for _ in range(9):
        await predicted(served, 8)
    by_batch: dict[int, int] = {}
    for partition, keys in log.producer.sent:
        assert {zlib.crc32(key.encode()) % 4 for key in keys} == {partition}
        by_batch[partition] = by_batch.get(partition, 0) + len(keys)
    assert set(by_batch) == {0, 1, 2, 3}
    assert sum(by_batch.values()) == 72
    assert len(log.producer.sent) <= 20, "not one for each record, nor one for each partition"


async def test_new_ids_leave_out_a_partition_that_is_slow(
    log: MemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.send([record(partition) for partition in range(4)], 5)
    log.producer.up[2].clear()
    waiting = asyncio.create_task(log.send([record(2)], 60))
    await until(lambda: log.producer.sent[-1][0] == 2)
    monkeypatch.setattr(eventlog, "SLOW_S", 0.0)
    turns, last = [], 3
    for _ in range(4):
        last, count = log.turn(TOPIC, last) or (0, 0)
        assert count == 4
        turns.append(last)
    assert turns == [0, 1, 3, 0]
    log.producer.up[2].set()
    await waiting
    assert log.turn(TOPIC, 1) == (2, 4)


async def test_an_unknown_topic_has_no_turn(log: MemoryKafka) -> None:
    assert log.turn("unknown", 0) is None


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0)


async def test_a_partition_known_to_be_away_is_tried_now_and_then_and_nobody_else_waits(
    log: MemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.send([record(1)], 5)
    log.producer.up[1].clear()
    with pytest.raises(LogUnavailable, match="not acknowledged"):
        await log.send([record(1)], 0.05)
    for _ in range(3):
        with pytest.raises(LogUnavailable, match=r"partition 1 .* is away"):
            await log.send([record(1)], 60)
    monkeypatch.setattr(eventlog, "TRY_S", 0.0)
    trying = asyncio.create_task(log.send([record(1)], 60))
    await asyncio.sleep(0)
    monkeypatch.setattr(eventlog, "TRY_S", 60.0)
    with pytest.raises(LogUnavailable, match=r"partition 1 .* is away"):
        await log.send([record(1)], 60)
    await log.send([record(0)], 5)
    log.producer.up[1].set()
    await trying
    for _ in range(3):
        await log.send([record(1)], 5)


async def test_a_log_that_was_never_there_is_away_at_once(
    log: MemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent() -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(log, "_start_producer", silent)
    with pytest.raises(LogUnavailable, match="not acknowledged"):
        await log.send([record(1)], 0.05)
    with pytest.raises(LogUnavailable, match="the log is away"):
        await log.send([record(1)], 60)


async def test_the_registry_is_not_asked_for_a_schema_that_was_written_before() -> None:
    class Gone:
        def schema_by_id(self, schema_id: int) -> Any:
            raise AssertionError("the registry is gone")

        schema_id = schema_by_id

    log = MemoryKafka()
    served = over(log)
    await predicted(served, 1)
    log._codec._registry = Gone()
    await predicted(served, 3)
    assert sum(len(keys) for _, keys in log.producer.sent) == 4
    await log.close(0.0)
