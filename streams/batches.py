"""Kafka's record batches (format 2) as arrays: from the bytes of a fetch to `Records`, nothing copied.

Loops are compiled and work on addresses; each checks its bounds itself and reads nothing outside what it
was given, whatever a batch says. Integers are big-endian.
"""

from __future__ import annotations

import gzip
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import cramjam
import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from schemas.columnar.memory import load_i32, load_u8
from streams.checksum import crc32c

Bytes = NDArray[np.uint8]
Room = Callable[[int], Bytes]

# Where the fields of a batch lie. Its length counts from `_AFTER_LENGTH` on, its checksum from `_ATTRIBUTES`.
_LENGTH, _AFTER_LENGTH, _MAGIC, _CRC, _ATTRIBUTES, _LAST_DELTA = 8, 12, 16, 17, 21, 23
_FIRST_TIME, _MAX_TIME, _PRODUCER, _COUNT, _RECORDS = 27, 35, 43, 57, 61
_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_NONE, _GZIP, _SNAPPY, _LZ4, _ZSTD = range(5)

# Columns of the table of batches that are to be read.
_AT, _SIZE, _N, _BASE, _LAST, _TIME, _PACKED, _APPENDED, _CHUNK = range(9)
_LZ4_FRAME, _LZ4_SUMS, _LZ4_SIZED, _LZ4_APART = 0x184D2204, 0x10, 0x08, 0x20
_SMALLEST = 7
"""Bytes of a record without anything in it."""
_ROWS = 512
"""So many batches at most are read at once."""

_GOOD, _OLD, _BROKEN, _CHECKSUM = range(4)
_WHY = {
    _OLD: "it has a format from before Kafka 0.11, which is not read",
    _BROKEN: "its fields contradict each other",
    _CHECKSUM: "its checksum is wrong",
}


class BadBatch(Exception):
    """A batch that cannot be read; the message says which and why."""


class Answer(NamedTuple):
    """What a fetch says of one partition; `begin` and `end` are where its batches lie in the answer."""

    topic: str
    partition: int
    error: int
    high: int
    stable: int
    aborted: NDArray[np.int64]
    """Shape (n, 2): producer and first offset of the transactions that were aborted."""
    begin: int
    end: int


def answers(body: memoryview) -> list[Answer]:
    """Those in the body of a fetch response of version 11; raises BadBatch for one that is none."""
    try:
        return _answers(body)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise BadBatch(f"the answer to a fetch cannot be read: {error}") from error


def _answers(body: memoryview) -> list[Answer]:
    found = []
    _, error, _, topics = struct.unpack_from(">ihii", body)
    at = 14
    for _ in range(topics):
        (size,) = struct.unpack_from(">h", body, at)
        topic = bytes(body[at + 2 : at + 2 + size]).decode()
        (partitions,) = struct.unpack_from(">i", body, at + 2 + size)
        at += 6 + size
        for _ in range(partitions):
            partition, code, high, stable, _, count = struct.unpack_from(">ihqqqi", body, at)
            at += 34
            count = max(0, count)  # -1 stands for none
            pairs = struct.unpack_from(f">{2 * count}q", body, at)
            _, size = struct.unpack_from(">ii", body, at + 16 * count)
            begin = at + 16 * count + 8
            at = begin + max(0, size)
            if at > len(body):
                raise ValueError(f"{topic}[{partition}] has {size} bytes, more than came")
            aborted = np.array(pairs, np.int64).reshape(count, 2)
            found.append(Answer(topic, partition, code or error, high, stable, aborted, begin, at))
    return found


@compiled
def _be32(at: int) -> int:
    unsigned = load_u8(at) << 24 | load_u8(at + 1) << 16 | load_u8(at + 2) << 8 | load_u8(at + 3)
    return (unsigned ^ 0x80000000) - 0x80000000


@compiled
def _be64(at: int) -> int:
    return _be32(at) << 32 | _be32(at + 4) & 0xFFFFFFFF


@compiled
def _extent(at: int, end: int) -> Any:
    """(bytes of the batch at `at`, code); 0 bytes if it is not whole before `end`."""
    if end - at <= _MAGIC:
        return 0, _GOOD
    size, code = _AFTER_LENGTH + _be32(at + _LENGTH), _GOOD
    whole = size <= end - at
    if size > _MAGIC and load_u8(at + _MAGIC) != 2:
        code = _OLD
    elif size < _RECORDS or (whole and (_be32(at + _LAST_DELTA) < 0 or _be32(at + _COUNT) < 0)):
        code = _BROKEN
    return size if whole and code == _GOOD else 0, code


@compiled
def survey(address: int, size: int, position: int) -> Any:
    """The whole batches among `size` bytes, by their headers alone.

    (their bytes, records from `position` on, offset after the last batch, code). Control records are not
    counted, those of aborted transactions are.
    """
    at, end, records = address, address + size, 0
    while True:
        length, code = _extent(at, end)
        if length == 0:
            return at - address, records, position, code
        after = _be64(at) + _be32(at + _LAST_DELTA) + 1
        if not load_u8(at + _ATTRIBUTES + 1) & _CONTROL and after > position:
            records += min(_be32(at + _COUNT), after - position)
        position = max(position, after)
        at += length


@compiled
def _varint(at: int, end: int) -> Any:
    """(value, address after it); that address is 0 if `at` is or if it does not end before `end`."""
    value = shift = 0
    while 0 < at < end and shift < 64:
        byte = load_u8(at)
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1 & 0x7FFFFFFFFFFFFFFF) ^ -(value & 1), at
        shift += 7
    return 0, 0


@compiled
def _aborts(at: int, end: int) -> bool:
    """Whether the control batch at `at` ends a transaction that was aborted: its record's key says so."""
    _, at = _varint(at + _RECORDS, end)
    if at == 0:
        return False
    _, at = _varint(at + 1, end)
    _, at = _varint(at, end)
    size, at = _varint(at, end)
    # The key: version, then kind (0: abort, 1: commit), two bytes each.
    return at != 0 and size >= 4 and end - at >= 4 and _be32(at) & 0xFFFF == 0


@compiled
def scan(
    begin: int,
    end: int,
    position: int,
    limit: int,
    taken: int,
    aborted: Any,
    done: Any,
    table: Any,
    rows: int,
    which: int,
) -> Any:
    """Check the batches from `begin` on and note in `table` those to be read, of which `rows` and `taken`
    records are there already, until `limit` records (or one batch that has more) or the table is full.

    Rows say that they lie in chunk `which`. Passes control batches and those of `aborted` transactions;
    `done` notes whose abort mark was passed.
    Returns (address reached, offset reached, records, rows, code); on a bad batch, it stands there.
    """
    while rows < len(table):
        size, code = _extent(begin, end)
        if size == 0:
            return begin, position, taken, rows, code
        base, count = _be64(begin), _be32(begin + _COUNT)
        last = base + _be32(begin + _LAST_DELTA)
        attributes = load_u8(begin + _ATTRIBUTES + 1)
        wanted = last >= position and count > 0 and not attributes & _CONTROL
        if wanted and attributes & _TRANSACTIONAL:
            producer = _be64(begin + _PRODUCER)
            for i in range(len(aborted)):
                if aborted[i, 0] == producer and aborted[i, 1] <= last and not done[i]:
                    wanted = False
        if wanted and rows > 0 and taken + count > limit:
            break
        checked = crc32c(begin + _ATTRIBUTES, size - _ATTRIBUTES)
        if checked != _be32(begin + _CRC) & 0xFFFFFFFF:
            return begin, position, taken, rows, _CHECKSUM
        if attributes & _CONTROL and _aborts(begin, begin + size):
            producer = _be64(begin + _PRODUCER)
            for i in range(len(aborted)):
                if aborted[i, 0] == producer and aborted[i, 1] <= last:
                    done[i] = 1
        if wanted:
            appended = attributes & _APPEND_TIME
            table[rows, _AT], table[rows, _SIZE] = begin + _RECORDS, size - _RECORDS
            table[rows, _N], table[rows, _BASE], table[rows, _LAST] = count, base, last
            table[rows, _TIME] = _be64(begin + (_MAX_TIME if appended else _FIRST_TIME))
            table[rows, _PACKED], table[rows, _APPENDED] = attributes & _CODEC, appended
            table[rows, _CHUNK] = which
            rows += 1
            taken += count
        position = max(position, last + 1)
        begin += size
    return begin, position, taken, rows, _GOOD


@compiled
def _record(at: int, end: int) -> Any:
    """(time, offset, both as differences, address of the value, its length or less than 0, address after it).

    That address is 0 if the record does not fit before `end`. Headers are passed.
    """
    size, at = _varint(at, end)
    if at == 0 or size < 1 or size > end - at:
        return 0, 0, 0, 0, 0
    stop = at + size
    time, at = _varint(at + 1, stop)  # after the attributes, which say nothing
    delta, at = _varint(at, stop)
    size, at = _varint(at, stop)  # of the key
    if at == 0 or size > stop - at:
        return 0, 0, 0, 0, 0
    size, at = _varint(at + max(0, size), stop)
    if at == 0 or size > stop - at:
        return 0, 0, 0, 0, 0
    return time, delta, at, size, stop


@compiled
def parse(table: Any, position: int, out: Any) -> Any:
    """The records of the batches in `table` from offset `position` on, into `out`, shape (4, n): address,
    length, offset, recorded. Returns (records, -1), or the row of a batch whose records contradict it.
    """
    k = 0
    for row in range(len(table)):
        at, appended = table[row, _AT], table[row, _APPENDED]
        end, last, before = at + table[row, _SIZE], table[row, _LAST], table[row, _BASE] - 1
        for _ in range(table[row, _N]):
            time, delta, value, size, at = _record(at, end)
            offset = table[row, _BASE] + delta
            if at == 0 or offset <= before or offset > last:
                return k, row
            before = offset
            if offset >= position:
                out[0, k] = value if size >= 0 else 0
                out[1, k] = max(0, size)
                out[2, k] = offset
                out[3, k] = max(0, table[row, _TIME] + (0 if appended else time))
                k += 1
        if at != end:
            return k, row
        position = max(position, last + 1)
    return k, -1


@compiled
def lz4_room(at: int, size: int) -> int:
    """Bytes that an LZ4 frame of `size` bytes has unpacked at most, by its list of blocks; 0: it is none."""
    end = at + size
    if size < 7 or load_i32(at) != _LZ4_FRAME:
        return 0
    flags, largest = load_u8(at + 4), 1 << (8 + 2 * (load_u8(at + 5) >> 4 & 7))
    at += 7 + (flags & _LZ4_SIZED) + (flags & 1) * 4
    room = 0
    while end - at >= 4:
        block = load_i32(at) & 0x7FFFFFFF
        if block == 0:
            return room
        at += 4 + block + (4 if flags & _LZ4_SUMS else 0)
        room += largest
    return 0


@dataclass(slots=True)
class Chunk:
    """Whole batches of one partition that a fetch brought, and how far they were read."""

    data: Bytes
    begin: int
    """What was read of `data`, bytes."""
    records: int
    """Those that were not read yet."""
    after: int
    """The offset after the last batch."""
    aborted: NDArray[np.int64]
    done: Bytes


def chunk(source: Bytes, position: int, aborted: NDArray[np.int64], room: Room | None) -> Chunk:
    """The whole batches in `source`, which was asked for from offset `position` on; a copy if there is room.

    Raises BadBatch if there is none or one that cannot be read.
    """
    size, records, after, code = survey(source.ctypes.data, len(source), position)
    if code != _GOOD:
        raise BadBatch(f"the batch after {size} bytes from offset {position} on: {_WHY[code]}")
    if size == 0:
        raise BadBatch(f"no whole batch in {len(source)} bytes from offset {position} on")
    if after <= position:
        raise BadBatch(f"the batches that came for offset {position} end before it")
    data = source[:size]
    if room is not None:
        data = room(size)
        data[:] = source[:size]
    return Chunk(data, 0, records, after, aborted, np.zeros(len(aborted), np.uint8))


class Taken(NamedTuple):
    """Arrays of shape (n,) as in `Records`; `position` is the offset after them and what was passed."""

    address: NDArray[np.int64]
    length: NDArray[np.int64]
    offset: NDArray[np.int64]
    recorded: NDArray[np.int64]
    owner: tuple[list[Bytes], list[Bytes]]
    position: int
    freed: int
    """Bytes of chunks that were read to their end."""


def warm() -> None:
    """Load the machine code now, so that no poll waits for it."""
    none = np.empty((0, 9), np.int64)
    survey(0, 0, 0)
    scan(0, 0, 0, 0, 0, none[:, :2].copy(), np.empty(0, np.uint8), none, 0, 0)
    parse(none, 0, np.empty((4, 0), np.int64))
    lz4_room(0, 0)


def take(chunks: deque[Chunk], position: int, limit: int, room: Room) -> Taken:
    """The next records from offset `position` on: about `limit`, more only if one batch has more.

    Chunks that were read are removed. Raises BadBatch; what was good before it was taken by the call before.
    """
    table = np.empty((_ROWS, 9), np.int64)
    rows = taken = freed = 0
    reached = position
    data: list[Bytes] = []
    while chunks and rows < _ROWS:
        first = chunks[0]
        base = first.data.ctypes.data
        begin, reached, taken, rows, code = scan(
            base + first.begin,
            base + len(first.data),
            reached,
            limit,
            taken,
            first.aborted,
            first.done,
            table,
            rows,
            len(data),
        )
        if code != _GOOD:
            if rows:
                break
            raise BadBatch(f"the batch after offset {reached - 1}: {_WHY[code]}")
        data.append(first.data)
        first.begin = begin - base
        if first.begin < len(first.data):
            rest = len(first.data) - first.begin
            first.records = survey(begin, rest, reached)[1]
            break
        chunks.popleft()
        freed += len(first.data)
    table = table[:rows]
    unpacked = _unpack(table, data, room)
    for row in table[table[:, _N] * _SMALLEST > table[:, _SIZE]]:
        raise BadBatch(f"{_named(row)} has no room for {row[_N]} records")
    out = room(32 * taken).view(np.int64).reshape(4, taken)
    count, bad = parse(table, position, out)
    if bad >= 0:
        raise BadBatch(f"{_named(table[bad])} has records that contradict it")
    address, length, offset, recorded = out[:, :count]
    return Taken(address, length, offset, recorded, (data, unpacked), reached, freed)


def _unpack(table: NDArray[np.int64], data: list[Bytes], room: Room) -> list[Bytes]:
    """Unpack the compressed batches of `table`, which lie in `data`, and point it at what came out.

    Returns the memory that this lies in.
    """
    rooms = [lz4_room(row[_AT], row[_SIZE]) if row[_PACKED] == _LZ4 else 0 for row in table]
    space = room(sum(rooms))
    owners, begin = [space], 0
    for row, size in zip(table, rooms, strict=True):
        if row[_PACKED] == _NONE:
            continue
        whole = data[row[_CHUNK]]
        at = row[_AT] - whole.ctypes.data
        source = whole.data[at : at + row[_SIZE]]
        try:
            if row[_PACKED] == _LZ4:
                target = space[begin : begin + _lz4(source, space.data[begin : begin + size])]
                begin += len(target)
            else:
                target = np.frombuffer(_UNPACKERS[int(row[_PACKED])](source), np.uint8)
                owners.append(target)
        except Exception as error:
            raise BadBatch(f"{_named(row)} does not unpack: {error!r}") from error
        row[_AT], row[_SIZE] = target.ctypes.data, len(target)
    return owners


def _lz4(packed: memoryview, into: memoryview) -> int:
    """Unpack a frame for which `lz4_room` found room; bytes that came out.

    Block by block, as Kafka's clients write them, this copies once; a general reader of frames copies thrice.
    """
    if not len(into):
        raise ValueError("no LZ4 frame")
    flags, largest, done = packed[4], 1 << (8 + 2 * (packed[5] >> 4 & 7)), 0
    if not flags & _LZ4_APART:
        return int(cramjam.lz4.decompress_into(packed, into))
    at = 7 + (flags & _LZ4_SIZED) + (flags & 1) * 4
    while size := struct.unpack_from("<I", packed, at)[0]:
        at += 4
        block = packed[at : at + (size & 0x7FFFFFFF)]
        if size >> 31:  # not compressible
            into[done : done + len(block)] = block
            done += len(block)
        else:
            target = into[done : done + largest]
            done += cramjam.lz4.decompress_block_into(block, target, largest)
        at += len(block) + (4 if flags & _LZ4_SUMS else 0)
    return done


def _snappy(packed: memoryview) -> bytes:
    """Plain, or the blocks that Java's clients write."""
    if packed[:8].tobytes() != b"\x82SNAPPY\0":
        return bytes(cramjam.snappy.decompress_raw(packed))
    found, at = [], 16
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 4], "big")
        found.append(bytes(cramjam.snappy.decompress_raw(packed[at + 4 : at + 4 + size])))
        at += 4 + size
    return b"".join(found)


_UNPACKERS: dict[int, Callable[[memoryview], bytes]] = {
    _GZIP: gzip.decompress,
    _SNAPPY: _snappy,
    _ZSTD: lambda packed: bytes(cramjam.zstd.decompress(packed)),
}


def _named(row: NDArray[np.int64]) -> str:
    return f"the batch of offsets {row[_BASE]} to {row[_LAST]}"
