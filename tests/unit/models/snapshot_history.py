"""A history of events on real ClickHouse tables, in a process of its own: chDB allows one folder each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from models.history import History
from schemas.event import Event
from streams.task import Task
from tests.unit.models.serving_parts import codec

T = TypeVar("T")


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """What a function of a module gives in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def answer(folder: Path, task: Task, events: list[Event], queries: list[str]) -> list[pa.Table]:
    """The rows of each query over a history of these events (each with its place in the log)."""
    with history_of(folder, task, events) as history:
        return [history.query(query) for query in queries]


@contextmanager
def history_of(folder: Path, task: Task, events: list[Event]) -> Iterator[History]:
    """A history that holds these events, with the limits that its service has."""
    from consumers.history.engine import Engine
    from consumers.history.record import Record
    from consumers.history.sink import BatchDecoder
    from consumers.history.store import Store, open_embedded
    from consumers.sql_guard import check
    from tests.unit.consumers.history_data import parts

    class Embedded(History):
        def query(self, sql: str) -> pa.Table:
            return pa.ipc.open_file(engine.run(check(sql), "Arrow", {}).body).read_all()

    store = Store(open_embedded(folder))
    schemas = codec(task)
    decoder = BatchDecoder(schemas, task.topics())
    store.prepare(decoder.tables.values())
    records = [
        Record(event.at, schemas.key(event), schemas.encode(event), event.time)
        for event in events
        if event.at is not None
    ]
    for half in (records[::2], records[1::2]):  # two parts, which FINAL has to merge
        for table, rows in decoder.decode(parts(half)).tables:
            store.write_events(table, rows)
    engine = Engine(folder)
    yield Embedded("")
    store.close()
