"""From the bytes of a fetch to records: against aiokafka's builder of batches, and against broken bytes."""

from __future__ import annotations

import os
import struct
from collections import deque
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.jit import compiled
from schemas.columnar.records import Records
from streams.batches import BadBatch, Chunk, answers, chunk, take
from streams.buffers import Buffers
from streams.checksum import LANE, crc32c, next_word, word_by_tables

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
PRODUCER, CRC, ATTRIBUTES, RECORDS = 43, 17, 21, 61
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"
NOTHING: NDArray[np.int64] = np.empty((0, 2), np.int64)

Item = tuple[int, int, bytes | None]
"""Offset, Kafka timestamp in ms, payload."""


@dataclass(frozen=True)
class Row:
    value: bytes | None = b"value"
    key: bytes | None = None
    time: int = 1_000
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)


def batch(
    rows: list[Row],
    base: int = 0,
    codec: int = 0,
    flags: int = 0,
    producer: int = -1,
    max_time: int | None = None,
) -> bytes:
    """As a broker keeps it: with its offset, and whatever attributes it has."""
    builder = DefaultRecordBatchBuilder(
        2, codec, bool(flags & TRANSACTIONAL), producer, 0, 0, 1 << 30
    )
    for number, row in enumerate(rows):
        assert builder.append(number, row.time, row.key, row.value, row.headers)
    made = builder.build()
    struct.pack_into(">q", made, 0, base)
    made[ATTRIBUTES + 1] |= flags
    if max_time is not None:
        struct.pack_into(">q", made, 35, max_time)
    return sealed(made)


def sealed(made: bytearray) -> bytes:
    """With the checksum that belongs to it."""
    struct.pack_into(">I", made, CRC, calc_crc32c(bytes(made[ATTRIBUTES:])))
    return bytes(made)


def mark(base: int, producer: int, kind: bytes) -> bytes:
    row = Row(value=b"\0" * 6, key=kind)
    return batch([row], base, flags=TRANSACTIONAL | CONTROL, producer=producer)


def fetched(body: bytes, position: int = 0, aborted: NDArray[np.int64] = NOTHING) -> Chunk:
    return chunk(np.frombuffer(body, np.uint8), position, aborted, Buffers().take)


def read(chunks: deque[Chunk], position: int, limit: int = 1_000) -> tuple[list[Item], int]:
    """All items, and the offset after them."""
    found: list[Item] = []
    buffers = Buffers()
    while chunks:
        waiting = sum(part.records for part in chunks)
        taken = take(chunks, position, limit, buffers.take)
        records = Records("topic", 0, *taken[:4], owner=taken.owner)
        found += [
            (int(records.offset[i]), int(records.recorded[i]), records.payload(i))
            for i in range(len(records))
        ]
        assert taken.position > position
        position = taken.position
        assert sum(part.records for part in chunks) <= waiting - len(records)
    return found, position


values = st.none() | st.binary(max_size=40) | st.integers(0, 15_000).map(lambda n: b"%d " % n * n)
rows = st.builds(
    Row,
    st.none() | st.binary(max_size=300),
    st.none() | st.binary(max_size=20),
    st.integers(0, 1 << 45),
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=5)), max_size=2),
)
batches = st.lists(
    st.tuples(
        st.integers(0, 3),  # offsets without a record before it
        st.lists(rows, min_size=1, max_size=20),
        st.sampled_from(list(CODECS.values())),
        st.none() | st.integers(0, 1 << 45),  # the broker's time, where that counts
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=100)
@given(batches, st.integers(0, 40), st.integers(1, 30), st.integers(0, 4))
def test_what_was_written_is_read(
    made: list[tuple[int, list[Row], int, int | None]], position: int, limit: int, cut: int
) -> None:
    """From any offset, in pieces of any size, from one fetch or from two."""
    parts: list[tuple[int, bytes]] = []  # the offset after each batch, and the batch
    wanted: list[Item] = []
    base = 0
    for gap, some, codec, appended in made:
        base += gap
        flags = 0 if appended is None else APPEND_TIME
        packed = batch(some, base, codec, flags, max_time=appended)
        parts.append((base + len(some), packed))
        for number, row in enumerate(some):
            time = row.time if appended is None else appended
            wanted.append((base + number, time, row.value))
        base += len(some)
    position = min(position, base - 1)
    wanted = [item for item in wanted if item[0] >= position]
    asked = [packed for after, packed in parts if after > position]
    chunks: deque[Chunk] = deque()
    for bodies in (asked[:cut], asked[cut:]):
        if bodies:
            begin = chunks[-1].after if chunks else position
            chunks.append(fetched(b"".join(bodies), begin))
    assert sum(part.records for part in chunks) == len(wanted)
    assert read(chunks, position, limit) == (wanted, base)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [0, 70_000, 1_500_000])
def test_payloads_of_any_size(codec: str, size: int) -> None:
    """Larger than a block of LZ4, and larger than what is lent again."""
    noise, text = os.urandom(size), b"text" * (size // 4)
    body = batch([Row(noise), Row(text), Row(None), Row(b"")], codec=CODECS[codec])
    found, _ = read(deque([fetched(body)]), 0)
    assert [payload for _, _, payload in found] == [noise, text, None, b""]


def test_an_lz4_frame_with_blocks_that_depend_on_each_other() -> None:
    lz4 = pytest.importorskip("lz4.frame")
    plain = batch([Row(b"%d" % n * 50) for n in range(2_000)])
    for linked, sums, sized in ((True, False, False), (False, True, True), (True, True, True)):
        packed = lz4.compress(
            plain[RECORDS:], block_linked=linked, block_checksum=sums, store_size=sized
        )
        made = bytearray(plain[:RECORDS] + packed)
        struct.pack_into(">i", made, 8, len(made) - 12)
        made[ATTRIBUTES + 1] |= CODECS["lz4"]
        found, _ = read(deque([fetched(sealed(made))]), 0)
        assert [payload for _, _, payload in found] == [b"%d" % n * 50 for n in range(2_000)]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from("wwac")), max_size=30), st.data())
def test_records_of_aborted_transactions_are_left_out(
    steps: list[tuple[int, str]], data: st.DataObject
) -> None:
    """Three producers write (w), abort (a), commit (c); one that is not in a transaction writes too."""
    parts, aborted = [], []
    open_: dict[int, list[int]] = {}
    kept: list[int] = []
    for offset, (producer, what) in enumerate(steps):
        if what == "w":
            parts.append(
                batch([Row(b"%d" % offset)], offset, flags=TRANSACTIONAL, producer=producer)
            )
            open_.setdefault(producer, []).append(offset)
        else:
            parts.append(mark(offset, producer, ABORT if what == "a" else COMMIT))
            mine = open_.pop(producer, [])
            if what == "c":
                kept += mine
            elif mine:
                aborted.append((mine[0], producer, offset))
    end = len(steps)
    for (
        mine
    ) in open_.values():  # a broker hands out only what lies before the first open transaction
        end = min(end, mine[0])
    start = data.draw(st.integers(0, max(0, end - 1)))
    if start >= end:
        return
    # Brokers tell those that reach into what was asked for.
    reaching = [(producer, first) for first, producer, last in sorted(aborted) if last >= start]
    told = np.array(reaching, np.int64).reshape(-1, 2)
    chunks = deque([fetched(b"".join(parts[start:end]), start, told)])
    found, position = read(chunks, start, data.draw(st.integers(1, 5)))
    assert [offset for offset, _, _ in found] == [n for n in sorted(kept) if start <= n < end]
    assert position == end


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_cut_off_waits_for_the_next_fetch(codec: str) -> None:
    first = batch([Row(b"a"), Row(b"b")], 0, CODECS[codec])
    body = first + batch([Row(b"c")], 2, CODECS[codec])
    for size in range(len(body)):
        if size < len(first):
            with pytest.raises(BadBatch, match="no whole batch"):
                fetched(body[:size])
        else:
            part = fetched(body[:size])
            assert (part.after, part.records, len(part.data)) == (2, 2, len(first))


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_is_never_handed_out(codec: str) -> None:
    body = batch([Row(b"payload", b"key", 5_000 + n) for n in range(5)], 10, CODECS[codec])
    right, _ = read(deque([fetched(body, 10)]), 10)
    for bit in range(8 * len(body)):
        broken = bytearray(body)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            found, _ = read(deque([fetched(bytes(broken), 10)]), 10)
        except BadBatch:
            continue
        # The broker's own fields are not covered by the checksum: the offset, the leader's epoch.
        assert bit // 8 < 8 or 12 <= bit // 8 < 16
        assert [item[1:] for item in found] == [item[1:] for item in right[-len(found) :] if found]


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_nothing_outside_a_batch_is_read_whatever_it_says(data: st.DataObject) -> None:
    """Bytes that are wrong under a checksum that is right."""
    codec = data.draw(st.sampled_from([0, 3]))
    made = bytearray(batch([Row(b"payload", b"key") for _ in range(4)], 0, codec))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(ATTRIBUTES, len(made) - 1))
        made[at] = data.draw(st.integers(0, 255))
    try:
        chunks = deque([fetched(sealed(made))])
        taken = take(chunks, 0, 100, Buffers().take)
    except BadBatch:
        return
    held = [block for some in taken.owner for block in some]
    begins = [block.ctypes.data for block in held]
    for address, length in zip(taken.address.tolist(), taken.length.tolist(), strict=True):
        assert (address, length) == (0, 0) or any(
            begin <= address and address + length <= begin + len(block)
            for begin, block in zip(begins, held, strict=True)
        )


def test_a_batch_of_an_old_format_is_named() -> None:
    made = bytearray(batch([Row()]))
    made[16] = 1
    with pytest.raises(BadBatch, match=r"from before Kafka 0\.11"):
        fetched(bytes(made))


def test_the_good_batches_before_a_bad_one_are_read() -> None:
    broken = bytearray(batch([Row(b"c")], 2))
    broken[-1] ^= 1
    chunks = deque([fetched(batch([Row(b"a"), Row(b"b")]) + bytes(broken))])
    taken = take(chunks, 0, 100, Buffers().take)
    assert taken.offset.tolist() == [0, 1] and taken.position == 2
    for _ in range(2):
        with pytest.raises(BadBatch, match="after offset 1: its checksum is wrong"):
            take(chunks, 2, 100, Buffers().take)


def test_an_answer_of_two_partitions_and_one_that_is_cut() -> None:
    body = struct.pack(">ihi i h5si", 0, 0, 0, 1, 5, b"topic", 2)
    body += struct.pack(">ihqqq i qq i i3s", 3, 0, 9, 8, 0, 1, 7, 4, -1, 3, b"abc")
    body += struct.pack(">ihqqq i i i", 4, 1, -1, -1, -1, -1, -1, -1)
    one, two = answers(memoryview(body))
    assert one[:5] == ("topic", 3, 0, 9, 8) and one.aborted.tolist() == [[7, 4]]
    assert body[one.begin : one.end] == b"abc"
    assert two[:5] == ("topic", 4, 1, -1, -1) and two.begin == two.end == len(body)
    for size in range(len(body)):
        with pytest.raises(BadBatch, match="cannot be read"):
            answers(memoryview(body)[:size])


@given(st.binary(max_size=300))
def test_checksums_are_those_of_the_other_library(data: bytes) -> None:
    same_checksum(data)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(-1, 9), st.randoms(use_true_random=False))
def test_so_are_those_of_long_batches_which_are_summed_in_three_lanes(
    blocks: int, more: int, random: Random
) -> None:
    same_checksum(random.randbytes(blocks * 3 * LANE + more))


def same_checksum(data: bytes) -> None:
    held = np.frombuffer(data + b"\0", np.uint8)
    assert crc32c(held.ctypes.data, len(data)) == calc_crc32c(data)


@given(st.integers(0, (1 << 32) - 1), st.binary(min_size=8, max_size=8))
def test_the_instruction_and_the_tables_agree(before: int, word: bytes) -> None:
    number = int.from_bytes(word, "little", signed=True)
    assert by_machine(before, number) == word_by_tables(before, number)


@compiled
def by_machine(before: int, word: int) -> int:
    return next_word(before, word)


def test_memory_is_lent_again_when_the_last_array_over_it_is_gone() -> None:
    buffers = Buffers()
    first = buffers.take(100_000)
    place, part = first.ctypes.data, first[50:].view(np.uint16)
    del first
    other = buffers.take(100_000)
    assert other.ctypes.data != place
    del part
    assert buffers.take(70_000).ctypes.data == place
