"""The registry: one writer over a log of records. Reads answer from memory, writes are read back first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from schemas.errors import IncompatibleSchema, UnknownSchema
from schemas.registry import commands, faults, store
from schemas.registry.records import Record, dump
from schemas.registry.store import State, Version
from schemas.safety import parse_text

T = TypeVar("T")
Decide = Callable[[State], tuple[list[Record], T]]
BUSY_SECONDS = 8.0


class RecordLog(Protocol):
    """Where records are kept; the state is what folding them gives."""

    def state(self) -> Any:
        """A context manager that yields the State; nobody changes it meanwhile."""

    def settle(self) -> None:
        """Returns when the state holds everything that was ever written; raises StoreUnavailable."""

    def append(self, records: Sequence[Record]) -> None:
        """Returns when the records are durable and applied; raises StoreUnavailable."""


class MemoryLog:
    """A log without a server, for simulation and tests."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._state = State()
        self._lock = threading.RLock()

    @contextmanager
    def state(self) -> Iterator[State]:
        with self._lock:
            yield self._state

    def settle(self) -> None:
        """Nothing is ever on its way."""

    def append(self, records: Sequence[Record]) -> None:
        with self._lock:
            for record in records:
                self.records.append(record)
                store.apply(self._state, record)


class Registry:
    """Serves the REST API; raises RegistryFault for what it refuses."""

    def __init__(self, log: RecordLog) -> None:
        self._log = log
        self._writing = threading.Lock()

    def read(self, question: Callable[[State], T]) -> T:
        """Ask the state."""
        with self._log.state() as state:
            return question(state)

    def change(self, decide: Decide[T]) -> T:
        """Decide on the newest state, write, and answer once the write has been read back."""
        if not self._writing.acquire(timeout=BUSY_SECONDS):
            raise faults.store_unavailable("too many writes wait for Kafka; try again")
        try:
            with self._log.state() as state:
                decide(state)  # a refusal needs no Kafka
            self._log.settle()
            with self._log.state() as state:
                records, result = decide(state)
            if records:
                self._log.append(records)
            return result
        finally:
            self._writing.release()

    def register(self, subject: str, given: commands.Given) -> Version:
        """The version that holds the schema; it is written if it is new."""
        with self._log.state() as state:
            known = store.find(state, subject, given.form)
        if known is not None:
            return known
        version = self.change(lambda state: commands.register(state, subject, given))
        with self._log.state() as state:
            kept = state.subjects.get(subject, {}).get(version.number)
            same = store.identity(state.texts.get(version.id, "")) == given.form
        if kept is None or kept.id != version.id or not same:
            # Compaction keeps the last record of a key, which is the losing one: write the winner again.
            self.change(lambda state: (commands.keep(state, subject, version.number), None))
            raise faults.store_unavailable("another registry writes to the same topic; try again")
        return version


class LocalRegistry:
    """A registry inside this process, as the codec wants it: for simulation, tests and offline checks."""

    def __init__(self, log: RecordLog | None = None) -> None:
        self._registry = Registry(log or MemoryLog())

    def schema_by_id(self, schema_id: int) -> Any:
        """The parsed JSON schema; raises UnknownSchema."""
        text = self._registry.read(lambda state: state.texts.get(schema_id))
        if text is None:
            raise UnknownSchema(f"no schema has the id {schema_id}")
        return parse_text(text)

    def schema_id(self, subject: str, schema: Any) -> int:
        """The schema's id under `subject`, registered if need be; raises IncompatibleSchema."""
        try:
            given = commands.read_schema({"schema": dump(schema).decode()})
            return self._registry.register(subject, given).id
        except faults.RegistryFault as refusal:
            raise IncompatibleSchema(refusal.message) from refusal
