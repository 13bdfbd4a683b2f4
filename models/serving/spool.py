"""The spool's files: answered events that Kafka has not acknowledged, in segments of framed records.

A segment begins with MAGIC; a frame is its length (4 bytes, big endian), the CRC-32 of its body (4 bytes)
and the body. What `write` returned from is in the operating system's hands: it survives the death of the
process, and with `sync` the loss of power. A write that a crash cut off leaves a torn tail, which `scan`
stops before: nobody was told that it was there.

Each process writes in a folder of its own and holds a lock on it while it lives; `orphans` are folders whose
lock is free: their process is dead, whatever its host calls itself now.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from models.serving.eventlog import Record

MAGIC = b"DLSPOOL1"
SEGMENT_BYTES = 4 * 1024 * 1024
MAX_FRAME_BYTES = 4 * 1024 * 1024
_FRAME = struct.Struct(">II")
_BODY = struct.Struct(">HHHIq")
"""Lengths of topic and key, number of headers, length of the value, record's timestamp in ms."""
_SHORT = struct.Struct(">H")
_SUFFIX = ".spool"
_LOCK = "lock"


class SpoolDamaged(Exception):
    """A file is no segment, or its frames end before it does; the message says where."""


def frame(record: Record) -> bytes:
    """A record as bytes."""
    topic = record.topic.encode()
    parts = [
        _BODY.pack(
            len(topic), len(record.key), len(record.headers), len(record.value), record.recorded_ms
        ),
        topic,
        record.key,
        record.value,
    ]
    for name, value in record.headers:
        head = name.encode()
        parts += [_SHORT.pack(len(head)), head, _SHORT.pack(len(value)), value]
    body = b"".join(parts)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def unframe(body: bytes) -> Record:
    """The record of a frame's body, of which the CRC was right."""
    topics, keys, headers, values, recorded_ms = _BODY.unpack_from(body)
    at = _BODY.size

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return body[at - size : at]

    def short() -> bytes:
        return take(_SHORT.unpack(take(_SHORT.size))[0])

    topic, key, value = take(topics).decode(), take(keys), take(values)
    found = [(short().decode(), short()) for _ in range(headers)]
    return Record(topic, key, value, found, recorded_ms)


def scan(data: bytes, at: int = 0) -> Iterator[tuple[int, Record]]:
    """(place after it, record) of each frame of `data` from `at` on; ends before one that is not whole."""
    while len(data) - at >= _FRAME.size:
        size, crc = _FRAME.unpack_from(data, at)
        start, end = at + _FRAME.size, at + _FRAME.size + size
        if not _BODY.size <= size <= MAX_FRAME_BYTES or end > len(data):
            return
        body = data[start:end]
        if zlib.crc32(body) != crc:
            return
        at = end
        yield at, unframe(body)


def read(path: Path) -> tuple[list[Record], int]:
    """The whole records of a segment, and how many bytes after them are none.

    Raises SpoolDamaged if it does not begin as one (an empty or shorter start is a torn one).
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC[: len(data)]):
        raise SpoolDamaged(f"{path} is no spool segment")
    records: list[Record] = []
    at = min(len(MAGIC), len(data))
    for place, record in scan(data, at):
        at = place
        records.append(record)
    return records, len(data) - at


class Segment:
    """One file that is written to its end; raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self.size = 0
        self.write(MAGIC)

    def write(self, data: bytes) -> None:
        """All of it or nothing: what a full disk took of it is cut off again."""
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)

    def read(self, at: int, limit: int) -> bytes:
        """At most `limit` bytes from `at` on."""
        return os.pread(self._file, min(limit, self.size - at), at)

    def sync(self) -> None:
        """Returns when the device has it."""
        os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def remove(self) -> None:
        """Close and delete it: everything in it is in the log."""
        self.close()
        self.path.unlink(missing_ok=True)


@dataclass(slots=True)
class Folder:
    """A folder of segments and its lock, which ends with the process."""

    path: Path
    _lock: int
    _next: int = 0

    @classmethod
    def make(cls, root: Path) -> Folder:
        """A new one of this process; raises OSError."""
        while True:
            # By age: what processes that died one after the other left is delivered in that order.
            name = f"{time.time_ns():020d}-{socket.gethostname()}-{os.getpid()}"
            path = root / f"{name}-{uuid.uuid4().hex[:8]}"
            path.mkdir(parents=True, mode=0o700)
            lock = _take(path)
            if lock is not None:
                return cls(path, lock)
            # Another process that starts just now took it for one that was left behind.

    @classmethod
    def orphans(cls, root: Path) -> list[Folder]:
        """Those whose process is dead, taken over."""
        found = []
        for path in sorted(root.iterdir()) if root.is_dir() else []:
            lock = _take(path) if path.is_dir() else None
            if lock is not None:
                found.append(cls(path, lock))
        return found

    def segments(self) -> Sequence[Path]:
        """In the order in which they were written."""
        return sorted(self.path.glob(f"*{_SUFFIX}"))

    def new_segment(self, sync: bool = False) -> Segment:
        """`sync`: its name survives a loss of power, too. Raises OSError."""
        self._next += 1
        segment = Segment(self.path / f"{self._next:012d}{_SUFFIX}")
        if sync:
            for folder in (self.path, self.path.parent):
                _sync(folder)
        return segment

    def leave(self) -> None:
        """Delete what is empty, and let go of the lock."""
        if not [each for each in self.path.iterdir() if each.name != _LOCK]:
            (self.path / _LOCK).unlink(missing_ok=True)
            self.path.rmdir()
        os.close(self._lock)


def _take(path: Path) -> int | None:
    """The open lock of a folder; None if a living process holds it, or it is gone."""
    lock = None
    with suppress(OSError):
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(path / _LOCK)):
            return lock  # and nobody who finished with the folder has removed it meanwhile
    if lock is not None:
        os.close(lock)
    return None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
