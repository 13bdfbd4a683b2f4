"""Runs a snapshot's query on real ClickHouse tables, in a process of its own: chDB allows one folder each."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from schemas.event import Event
from streams.task import Task
from tests.unit.models.serving_parts import codec


def answer(folder: Path, task: Task, events: list[Event], queries: list[str]) -> list[pa.Table]:
    """The rows of each query over a history of these events (each with its place in the log)."""
    from consumers.history.engine import Engine
    from consumers.history.record import Record
    from consumers.history.sink import BatchDecoder
    from consumers.history.store import Store, open_embedded
    from consumers.sql_guard import check
    from tests.unit.consumers.history_data import parts

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
    answers = [engine.run(check(query), "Arrow", {}) for query in queries]
    store.close()
    return [pa.ipc.open_file(answer.body).read_all() for answer in answers]
