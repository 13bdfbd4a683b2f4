"""The contenders of `benchmarks.store` and `benchmarks.label_join`: one store each behind the same calls.

    python -m benchmarks.store_arms NAME FOLDER ROWS {work,reopen}

Says READY when it is warm, waits for GO, prints RESULT with seconds and figures, and at END kills itself in
the middle of things, so that `reopen` finds what a crash leaves.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from json import dumps
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from streams.store import MemoryStore, Tree
from streams.store.hits import Hits, Keys, Places, Values

VALUE = np.dtype([("time", "<i8"), ("number", "<i8"), ("score", "<f8")])
ROW_BYTES = 16 + VALUE.itemsize
BATCH = 10_000
MEMORY_BYTES = 64 << 20


class Arm(Protocol):
    def __len__(self) -> int: ...
    def put(self, keys: Keys, values: Values) -> None: ...
    def get(self, keys: Keys) -> Hits: ...
    def delete(self, keys: Keys) -> object: ...
    def commit(self) -> object: ...
    def flush(self) -> None: ...


def tree(folder: Path) -> Tree:
    return Tree(folder, VALUE, "time", memory_bytes=MEMORY_BYTES, sync=True)


class Memory(MemoryStore):
    """driftlog's table in memory; nothing is on disk."""

    def __init__(self, _: Path) -> None:
        super().__init__(VALUE, "time")

    def delete(self, keys: Keys) -> None:
        self.remove(self.get(keys).places)

    def commit(self) -> None: ...

    def flush(self) -> None: ...


class Rows:
    """What stores of Python objects share: arrays cut into bytes, and put together again."""

    dtype: np.dtype[Any] = VALUE

    def get(self, keys: Keys) -> Hits:
        names = split(keys)
        found = self.look_up(names)
        missing = b"\0" * self.dtype.itemsize
        mask = np.array([value is not None for value in found], np.bool_)
        joined = b"".join(value or missing for value in found)
        values = np.frombuffer(joined, self.dtype)
        return Hits(mask, values, np.arange(len(keys)))

    def look_up(self, keys: list[bytes]) -> list[bytes | None]:
        raise NotImplementedError


def split(array: np.ndarray) -> list[bytes]:
    """The bytes of each row of a contiguous array."""
    raw = np.ascontiguousarray(array).tobytes()
    size = len(raw) // max(1, len(array))
    return [raw[at : at + size] for at in range(0, len(raw), size)] if len(array) else []


class Dict(Rows):
    def __init__(self, _: Path) -> None:
        self._rows: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, keys: Keys, values: Values) -> None:
        self._rows.update(zip(split(keys), split(values), strict=True))

    def look_up(self, keys: list[bytes]) -> list[bytes | None]:
        return [self._rows.get(key) for key in keys]

    def delete(self, keys: Keys) -> None:
        for key in split(keys):
            self._rows.pop(key, None)

    def commit(self) -> None: ...

    def flush(self) -> None: ...


class Rocks(Rows):
    """RocksDB by rocksdict: write batches, its log on, ten bits of Bloom filter a key, no compression.

    `memory_bytes`: of the memtable; `sync`: each batch is on disk when it has been written.
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype[Any] = VALUE,
        memory_bytes: int = MEMORY_BYTES,
        sync: bool = True,
    ) -> None:
        from rocksdict import (
            BlockBasedOptions,
            DBCompressionType,
            Options,
            Rdict,
            WriteBatch,
            WriteOptions,
        )

        self.dtype = dtype
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(memory_bytes)
        options.set_compression_type(DBCompressionType.none())
        table = BlockBasedOptions()
        table.set_bloom_filter(10, False)
        options.set_block_based_table_factory(table)
        self._batch = lambda: WriteBatch(raw_mode=True)
        self._write = WriteOptions()
        self._write.sync = sync
        self._db = Rdict(str(folder), options)

    def __len__(self) -> int:
        return sum(1 for _ in self._db.keys())  # noqa: SIM118 - it is no dict

    def put(self, keys: Keys, values: Values) -> None:
        batch = self._batch()
        for key, value in zip(split(keys), split(values), strict=True):
            batch.put(key, value)
        self._db.write(batch, self._write)

    def look_up(self, keys: list[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = self._db.get(keys)
        return found

    def delete(self, keys: Keys) -> None:
        batch = self._batch()
        for key in split(keys):
            batch.delete(key)
        self._db.write(batch, self._write)

    def commit(self) -> None:
        """Each batch has been."""

    def flush(self) -> None:
        self._db.flush(True)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._db.items())

    def close(self) -> None:
        self._db.close()


class RocksStore(Rocks):
    """The same as a `Store` for the label join; `expire` reads everything, as nothing says what is old."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], memory_bytes: int) -> None:
        super().__init__(folder, dtype, memory_bytes, sync=False)
        self._count = 0
        self._asked: Keys = np.empty((0, 2), np.uint64)

    def __len__(self) -> int:
        return self._count

    def put(self, keys: Keys, values: Values) -> None:
        self._count += int((~self.get(keys).found).sum())
        super().put(keys, values)

    def get(self, keys: Keys) -> Hits:
        self._asked = keys
        hits = super().get(keys)
        return hits._replace(places=np.where(hits.found, hits.places, -1))

    def remove(self, places: Places) -> None:
        gone = self._asked[places[places >= 0]]
        self._count -= len(gone)
        self.delete(gone)

    def expire(self, before: int) -> int:
        if not self._count:
            return 0
        old = [k for k, v in self.items() if int.from_bytes(v[:8], "little", signed=True) < before]
        if old:
            self.delete(np.frombuffer(b"".join(old), np.uint64).reshape(-1, 2))
        self._count -= len(old)
        return len(old)


ARMS: dict[str, Callable[[Path], Any]] = {
    "driftlog LSM tree": tree,
    "RocksDB": Rocks,
    "driftlog in memory": Memory,
    "dict": Dict,
}
ON_DISK = ("driftlog LSM tree", "RocksDB")


def rows(count: int) -> tuple[Keys, Values]:
    """Random keys with values that follow from their number."""
    keys = np.random.default_rng(1).integers(0, 2**64, (count, 2), np.uint64)
    values = np.zeros(count, VALUE)
    values["time"] = values["number"] = np.arange(count)
    values["score"] = np.random.default_rng(2).random(count)
    return keys, values


def work(arm: Arm, folder: Path, count: int) -> dict[str, Any]:
    """Insert all, look all up, look up as many strangers, delete every tenth."""
    keys, values = rows(count)
    strangers = np.random.default_rng(3).integers(0, 2**64, (count, 2), np.uint64)
    found: dict[str, Any] = {"seconds": {}, "cpu": {}}
    before = written_bytes()

    def timed(name: str, call: Callable[[int, int], int]) -> int:
        began, cpu = time.perf_counter(), cpu_seconds()
        total = sum(call(first, min(first + BATCH, count)) for first in range(0, count, BATCH))
        if name == "insert":
            arm.flush()
        found["seconds"][name] = time.perf_counter() - began
        found["cpu"][name] = cpu_seconds() - cpu
        return total

    def insert(first: int, last: int) -> int:
        arm.put(keys[first:last], values[first:last])
        arm.commit()
        return 0

    def delete(first: int, last: int) -> int:
        arm.delete(keys[first:last:10])
        arm.commit()
        return 0

    timed("insert", insert)
    found["written"] = written_bytes() - before
    found["disk"] = disk_bytes(folder)
    wrong = 0

    def hit(first: int, last: int) -> int:
        nonlocal wrong
        hits = arm.get(keys[first:last])
        wrong += int((hits.values["number"] != values["number"][first:last]).sum())
        return int(hits.found.sum())

    found["hits"] = timed("hit", hit)
    found["misses"] = timed("miss", lambda a, b: int((~arm.get(strangers[a:b]).found).sum()))
    timed("delete", delete)
    found["wrong"] = wrong
    found["rows"] = len(arm)
    return found


def reopen(make: Callable[[Path], Any], folder: Path, count: int) -> dict[str, Any]:
    keys, values = rows(count)
    began, cpu = time.perf_counter(), cpu_seconds()
    arm = make(folder)
    arm.get(keys[:BATCH])
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    hits = arm.get(keys)
    gone = np.arange(count) % BATCH % 10 == 0
    right = (hits.found == ~gone) & (gone | (hits.values["score"] == values["score"]))
    return {"seconds": seconds, "cpu": cpu, "right": bool(right.all()), "rows": len(arm)}


def written_bytes() -> int:
    """What this process has sent to the disk so far, as the kernel counts it: by pages."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    name, folder, count, phase = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        work(ARMS[name](Path(scratch) / "warm"), Path(scratch) / "warm", 2 * BATCH)
    print("READY", flush=True)
    sys.stdin.readline()
    make = ARMS[name]
    found = work(make(folder), folder, count) if phase == "work" else reopen(make, folder, count)
    print("RESULT " + dumps(found), flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
