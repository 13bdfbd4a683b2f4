"""The log-structured merge tree: a store that holds more than memory, and survives whatever ends it.

What is put lies in the memtable and, from `commit` on, in the write-ahead log. A log that is full is given an
index and a Bloom filter and is a sorted run from then on, so a row is written once. Runs of like size are
merged `FANOUT` at a time. Each key is alive in one place at most: whoever replaces or removes a row clears
its bit, so nothing has to be hidden by tombstones, a run whose rows have all gone or aged out is deleted
as a whole, and the number of rows is known.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.store import files, manifest, wal
from streams.store.bits import places_of
from streams.store.errors import StoreCorrupt, StoreError, StoreInUse
from streams.store.hits import (
    KEY_WORDS,
    NOWHERE,
    Hits,
    Keys,
    Places,
    Values,
    as_words,
    time_word,
    word_width,
)
from streams.store.memtable import Memtable, older, values_at
from streams.store.merge import to_merge, write_merged
from streams.store.run import (
    ROW_BITS,
    ROW_MASK,
    Run,
    alive_path,
    index_path,
    open_run,
    rows_path,
    write_index,
)

FANOUT = 8
"""Runs of like size that are merged into one."""
MEMORY_BYTES = 64 << 20
SCAN_ROWS = 1 << 16
_INDEX_BYTES = 32
"""Of the memtable's table, at most, per row."""
_LOCK = "LOCK"


class Tree:
    """One folder, one process, one thread. See `Store` for what it answers.

    `dtype`: structured, of a multiple of 8 bytes; `time`: its int64 field that `expire` looks at. The
    memtable takes up to `memory_bytes`; what is not committed stays in it. With `sync`, a commit is on disk
    when it returns; without, it outlives the death of the process, but not that of the machine.
    Raises StoreCorrupt, StoreInUse, StoreError (the folder holds other values), OSError (the disk is full).
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype[Any],
        time: str | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        sync: bool = True,
        upto: int | None = None,
    ) -> None:
        """Opens the folder as of its last commit, or as of commit `upto`, if it was not sealed since."""
        self.folder = folder
        self.dtype = dtype
        self._width = word_width(dtype)
        self._time = time_word(dtype, time)
        self._sync = sync
        self._table = Memtable(self._width, memory_bytes // (8 * self._width + _INDEX_BYTES))
        self._limit = self._table.capacity
        self._written = 0
        self._broken = False
        self._runs: dict[int, Run] = {}
        self.bytes_written = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder)
        try:
            self._manifest = manifest.read(folder) or self._begin(time)
            described = str(dtype.descr)
            if (self._manifest.value, self._manifest.time) != (described, time):
                raise StoreError(
                    f"{folder} holds {self._manifest.value}, not {described}: delete it"
                )
            self._tidy()
            for number, version in self._manifest.runs:
                self._runs[number] = open_run(folder, number, version, self._width)
            self.sequence = self._manifest.sequence
            """The last commit, counted from 1."""
            self._recover(upto)
            self._log = os.open(self._log_path, os.O_WRONLY | os.O_APPEND)
        except BaseException:
            os.close(self._lock)
            raise

    def __len__(self) -> int:
        return self._table.count + sum(run.count for run in self._runs.values())

    def put(self, keys: Keys, values: Values) -> None:
        """See `Store.put`."""
        if len(keys):
            key_words, value_words = as_words(keys, values, self.dtype)
            first = self._frame(wal.Kind.PUT, len(keys), len(keys), key_words, value_words)
            self._insert(first, len(keys))

    def get(self, keys: Keys) -> Hits:
        """See `Store.get`."""
        places = self._table.find(keys)
        values = values_at(self._table.rows, places)
        found = places != NOWHERE
        places = np.where(found, places | self._manifest.log << ROW_BITS, NOWHERE)
        if self._runs:
            self._look_up(keys, found, places, values)
        return Hits(found, values.view(self.dtype).reshape(-1), places)

    def remove(self, places: Places) -> None:
        """See `Store.remove`."""
        places = places[places != NOWHERE]
        if len(places):
            count = wal.payload_rows(len(places), self._width)
            self._frame(wal.Kind.REMOVE, len(places), count, places.view(np.uint64))
            self._remove(places)

    def delete(self, keys: Keys) -> NDArray[np.bool_]:
        """Take these keys out; True for those that were there."""
        hits = self.get(keys)
        self.remove(hits.places)
        return hits.found

    def expire(self, before: int) -> int:
        """See `Store.expire`."""
        gone = self._expire(before)
        if gone:
            self._frame(wal.Kind.EXPIRE, 1, 1, np.array([before], np.int64).view(np.uint64))
        return gone

    def scan(self) -> Iterator[tuple[Keys, Values]]:
        """See `Store.scan`."""
        for rows, alive, end in [
            *((run.rows, run.alive, len(run.rows)) for run in self._runs.values()),
            (self._table.rows, self._table.alive, self._table.used),
        ]:
            for first in range(0, end, SCAN_ROWS):
                places = places_of(alive, first, min(first + SCAN_ROWS, end))
                values = values_at(rows, places)
                yield rows[places, :KEY_WORDS], values.view(self.dtype).reshape(-1)

    def commit(self) -> int:
        """Make everything so far durable as one step, then tidy up; returns the commit's number."""
        self.log_commit()
        self.settle()
        return self.sequence

    def log_commit(self) -> None:
        """The first half of `commit`: until `settle`, the folder opens as of the commit before, too."""
        self._frame(wal.Kind.COMMIT, 0, 0)
        rows = self._table.rows[self._written : self._table.used]
        with self._unbroken():
            files.append(self._log, rows)
            if self._sync:
                files.sync(self._log)
        self.sequence += 1
        self._written = self._table.used
        self.bytes_written += rows.nbytes

    def settle(self) -> None:
        """The second half of `commit`: seal a full log, merge runs, drop those that have nothing left."""
        with self._unbroken():
            if self._table.used >= self._limit:
                self._seal()
            elif not all(run.count for run in self._runs.values()):
                self._name([run for run in self._runs.values() if run.count])

    def flush(self) -> None:
        """Commit and make a run of the log, full or not."""
        self.log_commit()
        with self._unbroken():
            self._seal()

    def close(self) -> None:
        """What was not committed is forgotten."""
        os.close(self._log)
        os.close(self._lock)
        self._runs.clear()

    @property
    def disk_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())

    @property
    def run_count(self) -> int:
        return len(self._runs)

    @property
    def _log_path(self) -> Path:
        return rows_path(self.folder, self._manifest.log)

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """What failed half way (a full disk) is not gone on with: the next opening cuts it off."""
        if self._broken:
            raise StoreError(f"writing to {self.folder} failed before: close it and open it again")
        self._broken = True
        yield
        self._broken = False

    def _frame(self, kind: wal.Kind, count: int, payload: int, *columns: NDArray[np.uint64]) -> int:
        """Add a frame to the log in memory; returns the first row of its payload."""
        table = self._table
        at = table.reserve(wal.header_rows(self._width) + payload)
        first = table.used - payload
        if kind == wal.Kind.PUT:
            (
                table.rows[first : table.used, :KEY_WORDS],
                table.rows[first : table.used, KEY_WORDS:],
            ) = columns
        elif columns:
            words = table.rows[first : table.used].reshape(-1)
            words[: len(columns[0])], words[len(columns[0]) :] = columns[0], 0
        wal.write_header(table.rows, at, kind, count, self.sequence + 1, table.used)
        return first

    def _insert(self, first: int, count: int) -> None:
        fresh = self._table.insert(first, count)
        if self._runs and fresh.any():
            keys = np.ascontiguousarray(self._table.rows[first : first + count, :KEY_WORDS])
            found, places = ~fresh, np.full(count, NOWHERE)
            self._look_up(keys, found, places, np.empty((count, 0), np.uint64))
            self._remove(places[places != NOWHERE])

    def _look_up(
        self, keys: Keys, found: NDArray[np.bool_], places: Places, values: NDArray[np.uint64]
    ) -> None:
        wanted = ~found
        left = int(wanted.sum())
        for run in reversed(self._runs.values()):
            if not left:
                break
            left -= run.look_up(keys, wanted, places, values)
        np.logical_not(wanted, out=found)

    def _remove(self, places: Places) -> None:
        runs = places >> ROW_BITS
        for number in np.unique(runs).tolist():
            rows = places[runs == number] & ROW_MASK
            if number == self._manifest.log:
                self._table.remove(rows)
            elif number in self._runs:  # in a replay, a run may be gone: merged without these rows
                self._runs[number].kill(rows.astype(np.uint32))

    def _expire(self, before: int) -> int:
        table = self._table
        gone = table.remove(older(table.rows, table.places(), self._time, before))
        return gone + sum(run.expire(self._time, before) for run in self._runs.values())

    def _begin(self, time: str | None) -> manifest.Manifest:
        fresh = manifest.Manifest(str(self.dtype.descr), time)
        self.bytes_written += files.write_file(rows_path(self.folder, fresh.log))
        self.bytes_written += fresh.write(self.folder)
        return fresh

    def _tidy(self) -> None:
        """Delete what the manifest does not name: a crash came between writing it and naming it."""
        named = {manifest.NAME, _LOCK, self._log_path.name}
        for number, version in self._manifest.runs:
            named |= {rows_path(self.folder, number).name, index_path(self.folder, number).name}
            named.add(alive_path(self.folder, number, version).name)
        for path in self.folder.iterdir():
            if path.name not in named:
                files.remove(path)

    def _recover(self, upto: int | None) -> None:
        """Do again what the log says, up to its last commit, and cut off the rest."""
        path, table = self._log_path, self._table
        try:
            size = path.stat().st_size
            rows = np.fromfile(path, np.uint64, size // (8 * self._width) * self._width)
        except OSError as error:
            raise StoreCorrupt(path, f"cannot be read ({error})") from error
        rows = rows.reshape(-1, self._width)
        whole: list[wal.Frame] = []
        pending: list[wal.Frame] = []
        read = 0
        for frame in wal.frames(rows):
            if upto is not None and frame.sequence > upto:
                break
            read = frame.end
            pending.append(frame)
            if frame.kind == wal.Kind.COMMIT:
                whole += pending
                pending.clear()
        last = whole[-1].sequence if whole else self.sequence
        if upto is None and wal.commits_behind(rows, read, last):
            raise StoreCorrupt(path, f"wrong checksum at byte {read * 8 * self._width}")
        end = whole[-1].end if whole else 0
        table.reserve(end)
        table.rows[:end] = rows[:end]
        for frame in whole:
            self._redo(frame)
        self.sequence, self._written = last, end
        if end * 8 * self._width != size:
            files.cut(path, end * 8 * self._width)

    def _redo(self, frame: wal.Frame) -> None:
        rows = self._table.rows
        if frame.kind == wal.Kind.PUT:
            self._insert(frame.payload, frame.size)
        elif frame.kind == wal.Kind.REMOVE:
            words = rows[frame.payload : frame.end].reshape(-1)
            self._remove(words[: frame.size].view(np.int64))
        elif frame.kind == wal.Kind.EXPIRE:
            self._expire(int(rows[frame.payload].view(np.int64)[0]))

    def _seal(self) -> None:
        """The log becomes a run, and a new log begins."""
        table, number = self._table, self._manifest.log
        files.sync(self._log)
        if table.count:
            rows = table.rows[: table.used]
            size = write_index(self.folder, number, rows, table.alive, table.count, self._time)
            self.bytes_written += size
            self._runs[number] = open_run(self.folder, number, 0, self._width, check=False)
        for run in self._runs.values():
            if run.changed and run.count:
                self.bytes_written += run.write_alive(self.folder)
        self._manifest.log = max([number, *self._runs]) + 1
        self._manifest.sequence = self.sequence
        files.write_file(self._log_path)
        os.close(self._log)
        self._log = os.open(self._log_path, os.O_WRONLY | os.O_APPEND)
        table.clear()
        self._written = 0
        self._name([run for run in self._runs.values() if run.count])
        while chosen := to_merge(list(self._runs.values()), self._limit, FANOUT):
            self._merge(chosen)

    def _merge(self, chosen: Sequence[Run]) -> None:
        number = max(self._manifest.log, *self._runs) + 1
        self.bytes_written += write_merged(self.folder, number, chosen, self._time)
        merged = open_run(self.folder, number, 0, self._width, check=False)
        gone = {run.number for run in chosen}
        runs = [merged if run is chosen[0] else run for run in self._runs.values()]
        self._name([run for run in runs if run.number not in gone])

    def _name(self, runs: Sequence[Run]) -> None:
        """From now on these are the runs, oldest first; the files of all others go."""
        files.sync_folder(self.folder)
        self._runs = {run.number: run for run in runs}
        self._manifest.runs = [(run.number, run.version) for run in runs]
        self.bytes_written += self._manifest.write(self.folder)
        self._tidy()


def _locked(folder: Path) -> int:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreInUse(folder) from error
    return descriptor
