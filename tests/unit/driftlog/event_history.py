"""An event index over real ClickHouse tables, in a process of its own: chDB allows one folder each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pytest

from driftlog import event_index
from driftlog.event_index import EventIndex
from models.history import History
from schemas.catalogue import system_topics
from schemas.event import Event, Position
from streams.task import Task
from tests.unit.models.serving_parts import codec

T = TypeVar("T")


class StoredHistory(History):
    """The history of a folder, through the guard that the service has; it holds all there is."""

    def __init__(self, folder: Path) -> None:
        from consumers.history.engine import Engine

        self._engine = Engine(folder)

    def query(self, sql: str) -> pa.Table:
        from consumers.sql_guard import check

        body = self._engine.run(check(sql), "Arrow", {}).body
        table = pa.ipc.open_file(body).read_all()
        texts = [
            pa.field(f.name, pa.string() if pa.types.is_binary(f.type) else f.type)
            for f in table.schema
        ]
        return table.cast(pa.schema(texts))

    def close(self) -> None:
        pass


class ListReader:
    """Reads records out of a list."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = {event.at: event for event in events}

    def read(self, places: Iterable[Position]) -> dict[Position, Event]:
        return {place: self._events[place] for place in places}

    def close(self) -> None:
        pass


def ask(folder: Path, task: Task, events: list[Event], asked: Callable[[EventIndex], T]) -> T:
    """What `asked` gets out of an index over these events, each with its place in the log."""
    from consumers.history.record import Record
    from consumers.history.sink import BatchDecoder
    from consumers.history.store import Store, open_embedded
    from tests.unit.consumers.history_data import parts

    schemas, topics = codec(task), [*system_topics(), *task.topics()]
    store = Store(open_embedded(folder))
    decoder = BatchDecoder(schemas, topics)
    store.prepare(decoder.tables.values())
    records = [
        Record(event.at, schemas.key(event), schemas.encode(event), event.time)
        for event in events
        if event.at is not None
    ]
    for table, rows in decoder.decode(parts(records)).tables:
        store.write_events(table, rows)
    with pytest.MonkeyPatch.context() as patch:
        reader: Any = ListReader(events)
        patch.setattr(event_index, "RecordReader", lambda *_: reader)
        patch.setattr(EventIndex, "_unstored", lambda *_: [])
        found = asked(EventIndex("", schemas, topics, StoredHistory(folder)))
    store.close()
    return found
