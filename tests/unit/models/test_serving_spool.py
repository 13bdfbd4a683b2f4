"""The spool: what was answered from it is delivered, whatever cuts it off and whenever."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.serving.eventlog import Record
from models.serving.spool import MAGIC, Folder, Segment, SpoolDamaged, frame, read, scan
from models.serving.spooled import SpooledLog
from schemas.event import Event, Position
from streams.log import LogUnavailable
from tests.unit.models.serving_parts import NOW_MS, codec

CODEC = codec()
RECORDS = st.lists(
    st.builds(
        Record,
        st.text(max_size=5),
        st.binary(max_size=6),
        st.binary(max_size=20),
        st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=5)), max_size=3),
        st.integers(0, 2**62),
    ),
    max_size=5,
)


class Broker:
    """Takes records, unless it is away."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.away = False

    async def send(self, records: Sequence[Record], timeout_s: float) -> None:
        if self.away:
            raise LogUnavailable("away")
        self.records += records

    def labels(self) -> list[str]:
        return [record.key.decode() for record in self.records]


def label(prediction: str) -> Event:
    data = {
        "event_id": f"label of {prediction}",
        "event_time": NOW_MS,
        "caused_by": None,
        "prediction_id": prediction,
        "label": 1,
    }
    return Event("flights.labels", "LabelObserved", data)


@asynccontextmanager
async def spooled(
    root: Path,
    broker: Broker,
    max_bytes: int = 1 << 20,
    fsync: bool = False,
    segment: int = 1 << 16,
) -> AsyncIterator[SpooledLog]:
    log = SpooledLog(root, CODEC, broker, max_bytes, fsync, segment)
    log.start()
    yield log
    await log.close(0.0 if broker.away else 5.0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


def left_behind(root: Path, *segments: bytes) -> Path:
    """What a killed process leaves: segments, and a lock that nobody holds."""
    folder = Folder.make(root)
    for content in segments:
        made = folder.new_segment()
        made.write(content)
        made.close()
    os.close(folder._lock)
    return folder.path


@settings(max_examples=100, deadline=None)
@given(records=RECORDS)
def test_frames_come_back_as_they_were(records: list[Record]) -> None:
    data = b"".join(map(frame, records))
    found = list(scan(data))
    assert [record for _, record in found] == records
    assert [place for place, _ in found] == [
        sum(len(frame(one)) for one in records[: number + 1]) for number in range(len(records))
    ]


@settings(max_examples=25, deadline=None)
@given(records=RECORDS, rubbish=st.binary(max_size=12))
def test_a_segment_cut_at_any_byte_holds_every_whole_record_before_it(
    records: list[Record], rubbish: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    frames = [frame(record) for record in records]
    data = MAGIC + b"".join(frames)
    path = tmp_path_factory.mktemp("cut") / "1.spool"
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        found, torn = read(path)
        whole = [n for n in range(len(frames) + 1) if len(MAGIC) + sum(map(len, frames[:n])) <= cut]
        assert found == records[: max(whole, default=0)]
        begun = len(MAGIC) + sum(map(len, frames[: len(found)]))
        assert torn == max(0, cut - begun)


@settings(max_examples=60, deadline=None)
@given(records=RECORDS.filter(bool), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_a_record(
    records: list[Record], at: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(MAGIC + b"".join(map(frame, records)))
    data[len(MAGIC) + at % (len(data) - len(MAGIC))] ^= 1 << bit
    path = tmp_path_factory.mktemp("bit") / "1.spool"
    path.write_bytes(data)
    found, torn = read(path)
    assert found == records[: len(found)]
    assert len(found) < len(records)
    assert torn > 0


@pytest.mark.parametrize(
    "data",
    [struct.pack(">II", 2**32 - 1, 0) + b"x" * 64, struct.pack(">II", 3, 0) + b"abc", b"\0" * 64],
)
def test_lengths_that_cannot_be_end_a_scan(data: bytes) -> None:
    assert list(scan(data)) == []


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.spool").write_bytes(b"something else")
    with pytest.raises(SpoolDamaged, match="no spool segment"):
        read(tmp_path / "1.spool")


def test_a_disk_that_fills_up_leaves_no_half_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment, write = Segment(tmp_path / "1.spool"), os.write
    room = [5]

    def some(file: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        done = write(file, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", some)
    with pytest.raises(OSError, match="No space"):
        segment.write(b"more than five bytes")
    monkeypatch.undo()
    record = Record("t", b"k", b"v", [], 1)
    segment.write(frame(record))
    segment.close()
    assert read(tmp_path / "1.spool") == ([record], 0)


def test_a_living_process_keeps_its_folder(tmp_path: Path) -> None:
    mine = Folder.make(tmp_path)
    mine.new_segment().close()
    assert Folder.orphans(tmp_path) == []
    os.close(mine._lock)  # as the death of its process does
    (taken,) = Folder.orphans(tmp_path)
    assert taken.path == mine.path
    assert Folder.orphans(tmp_path) == [], "one takes it over, not two"


@pytest.mark.parametrize("fsync", [False, True])
async def test_what_was_appended_is_delivered_in_order_and_its_files_go(
    tmp_path: Path, fsync: bool
) -> None:
    broker = Broker()
    async with spooled(tmp_path, broker, fsync=fsync, segment=600) as log:
        await asyncio.gather(*(log.append([label(f"{n:03}")], 5) for n in range(60)))
        for n in range(60, 80):
            await log.append([label(f"{n:03}")], 5)
    assert broker.labels() == [f"{n:03}" for n in range(80)]
    assert list(tmp_path.iterdir()) == []
    seventh = CODEC.decode(Position("flights.labels", 0, 0), broker.records[7].value)
    assert seventh.data == label("007").data


async def test_without_a_log_it_goes_on_until_it_is_full(tmp_path: Path) -> None:
    broker = Broker()
    broker.away = True
    async with spooled(tmp_path, broker, max_bytes=2_000) as log:
        taken = []

        async def fill() -> None:
            for n in range(100):
                await log.append([label(str(n))], 5)
                taken.append(str(n))

        with pytest.raises(LogUnavailable, match="spool is full"):
            await fill()
        assert log.depth == len(taken) > 2
        assert 0 < log.bytes <= 2_000
        assert log.age_s > 0
        assert log.refused == 1
        broker.away = False
        await until(lambda: log.depth == 0)
        await log.append([label("after")], 5)
    assert broker.labels() == [*taken, "after"]


async def test_a_disk_that_refuses_is_said_and_then_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Segment, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    broker = Broker()
    async with spooled(tmp_path, broker) as log:
        monkeypatch.setattr(Segment, "write", full)
        with pytest.raises(LogUnavailable, match="No space left"):
            await log.append([label("a")], 5)
        assert "No space left" in str(log.problem)
        monkeypatch.undo()
        await log.append([label("b")], 5)
        assert log.problem is None
    assert broker.labels() == ["b"]


async def test_a_caller_that_leaves_takes_nobody_with_it(tmp_path: Path) -> None:
    broker = Broker()
    async with spooled(tmp_path, broker) as log:
        leaving, staying = (asyncio.create_task(log.append([label(n)], 5)) for n in "ab")
        await asyncio.sleep(0)
        leaving.cancel()
        await staying
    assert broker.labels() == ["a", "b"], "both were written: a repeat has the same id"


async def test_what_a_dead_process_left_is_delivered_first_and_its_torn_tail_cut(
    tmp_path: Path,
) -> None:
    old = [Record("flights.labels", key.encode(), b"v", [], 1) for key in ("x", "y", "z")]
    torn = frame(old[2])[:-1]
    folder = left_behind(tmp_path, frame(old[0]), frame(old[1]) + torn)
    broker = Broker()
    async with spooled(tmp_path, broker) as log:
        await log.append([label("new")], 5)
        await until(lambda: log.depth == 0)
    assert broker.labels() == ["x", "y", "new"]
    assert not folder.exists()


async def test_damage_is_put_aside_not_deleted(tmp_path: Path) -> None:
    old = [Record("flights.labels", key.encode(), b"v", [], 1) for key in ("x", "y", "z")]
    broken = bytearray(frame(old[0]) + frame(old[1]))
    broken[-1] ^= 1
    folder = left_behind(tmp_path, bytes(broken), frame(old[2]))
    broker = Broker()
    async with spooled(tmp_path, broker):
        await until(lambda: broker.labels() == ["x", "z"])
    assert [path.suffix for path in folder.iterdir() if path.name != "lock"] == [".damaged"]


async def test_what_is_not_delivered_at_the_end_is_there_for_the_next(tmp_path: Path) -> None:
    broker = Broker()
    broker.away = True
    for number in range(3):
        async with spooled(tmp_path, broker) as log:
            await log.append([label(f"{number}")], 5)
    broker.away = False
    async with spooled(tmp_path, broker) as log:
        await log.append([label("3")], 5)
    assert sorted(broker.labels()) == ["0", "1", "2", "3"]
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(
    groups=st.lists(st.integers(1, 3), min_size=1, max_size=12),
    deaths=st.lists(st.integers(0, 11), max_size=3),
    cut=st.integers(0, 40),
)
def test_a_process_that_dies_at_any_moment_loses_nothing_that_it_answered(
    groups: list[int], deaths: list[int], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Death is modelled as it leaves things: files as written (the last cut off), locks free, tasks gone."""
    root = tmp_path_factory.mktemp("deaths")
    broker = Broker()
    answered: list[str] = []

    async def die(log: SpooledLog, torn: bytes) -> None:
        for task in (log._deliverer, log._writing):
            if task is not None:
                task.cancel()
        last = log._kept[-1].segment
        last.write(torn)  # of an append that nobody was told about
        for one in log._kept:
            one.segment.close()
        assert log._folder is not None
        for folder in {id(one): one for one, _ in log._orphans}.values():
            os.close(folder._lock)
        os.close(log._folder._lock)

    async def live() -> None:
        log = SpooledLog(root, CODEC, broker, segment_bytes=700)
        log.start()
        for number, size in enumerate(groups):
            broker.away = number % 3 == 1
            keys = [f"{number}.{each}" for each in range(size)]
            await log.append([label(key) for key in keys], 5)
            answered.extend(keys)
            if number in deaths:
                await die(log, frame(Record("t", b"torn", b"", [], 0))[:cut])
                log = SpooledLog(root, CODEC, broker, segment_bytes=700)
                log.start()
        broker.away = False
        await log.close(5.0)

    asyncio.run(live())
    got = [key for key in broker.labels() if key != "torn"]
    assert set(got) == set(answered)
    assert list(dict.fromkeys(got)) == answered, "in the order of the answers, but for repeats"
    assert list(root.iterdir()) == []
