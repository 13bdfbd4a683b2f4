"""The key store: one SQLite file beside the log, with a wrapped key for each person of each task.

Every use reads the file: no key is kept in memory, so that one that is destroyed is gone for all processes at
once. Deleted rows are overwritten (`secure_delete`), and the write-ahead file, which may hold older pages, is
emptied by `scrub`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.personal import master
from models.personal.cipher import SECRET_BYTES, MasterKey, PersonKey
from models.personal.errors import KeysUnavailable

BUSY_S = 2.0
"""So long another process's write is waited for."""
SCRUB_S = 10.0
"""The same while the write-ahead file is emptied: every reader must be done with it."""
DESTROYED, BEFORE, UNKNOWN = "destroyed", "before", "unknown"
_CHUNK = 500
_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    lookup BLOB PRIMARY KEY, person TEXT NOT NULL UNIQUE, wrapped BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erased (lookup BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS untold (
    person TEXT PRIMARY KEY, task TEXT NOT NULL, event_time INTEGER NOT NULL, actor TEXT NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Erasure:
    """A key that was destroyed, as the log is to hear of it."""

    person: str
    task: str
    event_time: int
    actor: str
    reason: str


class KeyStore:
    """See the module. For any number of threads and processes of one machine.

    Opened at its first use: master key and store are made then, if there are none. Every method raises
    KeysUnavailable.
    """

    def __init__(self, path: Path, master_key: Path, create: bool = True) -> None:
        self._path = path
        self._master_path = master_key
        self._create = create
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._master: MasterKey | None = None

    @property
    def master(self) -> MasterKey:
        """The master key, once the store is open and fits it."""
        with self._open():
            assert self._master is not None
            return self._master

    def keys(self, task: str, subjects: Sequence[str]) -> dict[str, PersonKey]:
        """The key of each subject; made, and on the disk, for those that have none."""
        with self._open() as connection:
            assert self._master is not None
            lookups = {subject: self._master.lookup(task, subject) for subject in subjects}
            wrapped = _stored(connection, lookups.values())
            missing = [lookup for lookup in lookups.values() if lookup not in wrapped]
            if missing:
                wrapped |= self._made(connection, missing)
            return {
                subject: self._master.unwrap(wrapped[lookup], lookup)
                for subject, lookup in lookups.items()
            }

    def of_person(self, person: str) -> PersonKey | None:
        """The key behind a pseudonym; None if it was destroyed, or is in another store."""
        with self._open() as connection:
            assert self._master is not None
            sql = "SELECT lookup, wrapped FROM keys WHERE person = ?"
            row = connection.execute(sql, (person,)).fetchone()
            return None if row is None else self._master.unwrap(row[1], row[0])

    def destroy(self, task: str, subject: str, event_time: int, actor: str, reason: str) -> str:
        """Destroy a person's key: DESTROYED, or why there is none (BEFORE: it was; UNKNOWN: never was one).

        In the same transaction the erasure is written down, until the log has it. `scrub` afterwards.
        """
        with self._open() as connection, _writing(connection):
            assert self._master is not None
            lookup = self._master.lookup(task, subject)
            row = connection.execute(
                "SELECT person FROM keys WHERE lookup = ?", (lookup,)
            ).fetchone()
            if row is None:
                sql = "SELECT 1 FROM erased WHERE lookup = ?"
                known = connection.execute(sql, (lookup,)).fetchone()
                return BEFORE if known else UNKNOWN
            zeros = bytes(SECRET_BYTES + 16)
            connection.execute("UPDATE keys SET wrapped = ? WHERE lookup = ?", (zeros, lookup))
            connection.execute("DELETE FROM keys WHERE lookup = ?", (lookup,))
            connection.execute("INSERT OR IGNORE INTO erased VALUES (?)", (lookup,))
            connection.execute(
                "INSERT INTO untold VALUES (?, ?, ?, ?, ?)",
                (row[0], task, event_time, actor, reason),
            )
            return DESTROYED

    def scrub(self) -> None:
        """Leave nothing of deleted rows in the write-ahead file."""
        with self._open() as connection:
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * SCRUB_S)}")
            try:
                busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(1000 * BUSY_S)}")
            if busy:
                raise KeysUnavailable(
                    f"{self._path} is in use: its write-ahead file may still hold what was deleted;"
                    " do the same again"
                )

    def untold(self) -> list[Erasure]:
        """Erasures that the log may not have yet."""
        with self._open() as connection:
            sql = "SELECT person, task, event_time, actor, reason FROM untold ORDER BY event_time, person"
            return [Erasure(*row) for row in connection.execute(sql)]

    def told(self, person: str) -> None:
        """The log has the erasure of this pseudonym."""
        with self._open() as connection, _writing(connection):
            connection.execute("DELETE FROM untold WHERE person = ?", (person,))

    def close(self) -> None:
        """Without waiting for a thread whose disk does not answer."""
        if self._lock.acquire(timeout=BUSY_S):
            try:
                self._drop()
            finally:
                self._lock.release()

    def _made(self, connection: sqlite3.Connection, lookups: Sequence[bytes]) -> dict[bytes, bytes]:
        """New keys for those that still have none; whoever was first has made what all get."""
        assert self._master is not None
        with _writing(connection):
            for lookup in lookups:
                key = PersonKey(os.urandom(SECRET_BYTES))
                row = (lookup, key.person, self._master.wrap(key, lookup))
                connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", row)
            return _stored(connection, lookups)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, to one thread at a time; a file that is gone or another is not written to."""
        with self._lock:
            try:
                if self._connection is not None and self._inode != _inode(self._path):
                    self._drop()
                if self._connection is None:
                    self._connect()
                assert self._connection is not None
                yield self._connection
            except sqlite3.Error as error:
                self._drop()
                raise KeysUnavailable(f"the key store {self._path}: {error}") from error
            except OSError as error:
                self._drop()
                why = error.strerror or str(error)
                raise KeysUnavailable(f"the key store {self._path}: {why}") from error

    def _connect(self) -> None:
        """Raises KeysUnavailable, sqlite3.Error, OSError."""
        there = self._path.exists()
        if not there and not self._create:
            raise KeysUnavailable(f"there is no key store {self._path}: restore it")
        secret = MasterKey(master.load(self._master_path, create=not there and self._create))
        if not there:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        inode = _inode(self._path)
        connection = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection, secret)
        except BaseException:
            connection.close()
            raise
        self._connection, self._inode, self._master = connection, inode, secret
        self._create = False  # what vanishes from now on was there: a new one would hide that

    def _prepare(self, connection: sqlite3.Connection, secret: MasterKey) -> None:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA synchronous = FULL")
        check = _master_of(connection)
        if check is None:
            with _writing(connection):  # of processes that come at once, one makes it
                for statement in _TABLES.split(";")[:-1]:
                    connection.execute(statement)
                made = "INSERT OR IGNORE INTO about VALUES ('master', ?)"
                connection.execute(made, (secret.check,))
                check = _master_of(connection)
        if check != secret.check:
            raise KeysUnavailable(
                f"the master key {self._master_path} is not the one of the key store {self._path}:"
                " point DRIFTLOG_KEYRING to the right one"
            )
        connection.execute("PRAGMA journal_mode = WAL")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._inode, self._master = None, None, None


def _master_of(connection: sqlite3.Connection) -> bytes | None:
    """The check of the master key that the store was made with; None in a store that is not made yet."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
        return None
    row = connection.execute("SELECT value FROM about WHERE name = 'master'").fetchone()
    return None if row is None else bytes(row[0])


def _stored(connection: sqlite3.Connection, lookups: Iterable[bytes]) -> dict[bytes, bytes]:
    wanted = list(lookups)
    found: dict[bytes, bytes] = {}
    for start in range(0, len(wanted), _CHUNK):
        some = wanted[start : start + _CHUNK]
        marks = ", ".join("?" * len(some))
        sql = f"SELECT lookup, wrapped FROM keys WHERE lookup IN ({marks})"  # noqa: S608
        with closing(connection.execute(sql, some)) as rows:
            found.update(rows.fetchall())
    return found


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _inode(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
