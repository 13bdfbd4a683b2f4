"""The ClickHouse behind the history: chDB in this process, or a server by its URL; one writer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from consumers.history.blocks import DeadLetter, dead_letter_table, position_table
from consumers.history.tables import (
    DEAD_LETTERS,
    POSITIONS,
    Table,
    create_statement,
    upgrade_statements,
)
from infra.clickhouse import DATABASE, server_address

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class StoreUnavailable(Exception):
    """ClickHouse did not take a statement; the log still has everything, so try again."""


def open_embedded(path: Path, patience_s: float = 10.0) -> Client:
    """A client of the chDB directory `path`; this process owns the directory until it ends.

    Raises StoreUnavailable if another process still holds it after `patience_s` seconds.
    """
    from clickhouse_connect import get_client

    path.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + patience_s
    while True:
        try:
            return get_client(interface="chdb", path=str(path))
        except Exception as error:  # chDB's own class, or its client's
            if time.monotonic() >= give_up:
                raise StoreUnavailable(
                    f"cannot open {path} (one process at a time may hold it): {error}"
                ) from error
            time.sleep(0.2)


def open_server(url: str) -> Client:
    """A client of a ClickHouse server; user and password may stand in the URL. Raises StoreUnavailable."""
    from clickhouse_connect import get_client
    from clickhouse_connect.driver.exceptions import Error

    parts = urlsplit(url)
    try:
        return get_client(**server_address(url))
    except Error as error:
        raise StoreUnavailable(
            f"no ClickHouse server at {parts.hostname}:{parts.port}: {error}"
        ) from error


class Store:
    """Creates and upgrades the tables, writes blocks, and knows how far each partition is stored."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def prepare(self, tables: Iterable[Table]) -> None:
        """Make every table hold today's events; raises SchemaDrift or StoreUnavailable."""
        self._command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        stored: dict[str, dict[str, str]] = {}
        for table, name, type_ in self._rows(
            "SELECT table, name, type FROM system.columns WHERE database = {database:String}",
            {"database": DATABASE},
        ):
            stored.setdefault(str(table), {})[str(name)] = str(type_)
        for table in (*tables, DEAD_LETTERS, POSITIONS):
            if table.name not in stored:
                self._command(create_statement(table))
                continue
            for statement in upgrade_statements(table, stored[table.name]):
                self._command(statement)

    def positions(self) -> dict[tuple[str, int], tuple[str, int]]:
        """(topic, partition) -> (topic id, next offset to store)."""
        rows = self._rows(
            "SELECT topic, partition, topic_id, next_offset FROM driftlog.positions FINAL"
        )
        return {(str(row[0]), int(row[1])): (str(row[2]), int(row[3])) for row in rows}

    def dead_letters_from(self, topic: str, partition: int, offset: int) -> set[int]:
        """Offsets from `offset` on that are dead letters already: their `.dlq` records are written."""
        rows = self._rows(
            "SELECT _offset FROM driftlog.dead_letters WHERE _topic = {topic:String}"
            " AND _partition = {partition:Int32} AND _offset >= {offset:Int64}",
            {"topic": topic, "partition": partition, "offset": offset},
        )
        return {int(row[0]) for row in rows}

    def write_events(self, table: Table, rows: pa.Table) -> None:
        self._insert(table, rows)

    def write_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        self._insert(DEAD_LETTERS, dead_letter_table(letters))

    def write_positions(
        self, positions: Iterable[tuple[str, int, int]], topic_ids: dict[str, str]
    ) -> None:
        """Say that everything before these offsets is stored: call it last."""
        self._insert(POSITIONS, position_table(positions, topic_ids))

    def close(self) -> None:
        self._client.close()

    def _insert(self, table: Table, rows: pa.Table) -> None:
        rows = rows.combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        try:
            # One block, one part: ClickHouse takes all of it or nothing.
            self._client.raw_insert(
                table.qualified,
                rows.column_names,
                sink.getvalue().to_pybytes(),
                settings={"max_insert_block_size": max(rows.num_rows, 1)},
                fmt="ArrowStream",
            )
        except Exception as error:
            raise StoreUnavailable(f"insert into {table.qualified}: {error}") from error

    def _command(self, statement: str) -> None:
        try:
            self._client.command(statement)
        except Exception as error:
            raise StoreUnavailable(f"{statement.split('(', 1)[0].strip()}: {error}") from error

    def _rows(
        self, sql: str, parameters: dict[str, object] | None = None
    ) -> Sequence[Sequence[Any]]:
        try:
            rows: Sequence[Sequence[Any]] = self._client.query(
                sql, parameters=parameters
            ).result_rows
        except Exception as error:
            raise StoreUnavailable(f"{sql.split(' WHERE', 1)[0]}: {error}") from error
        return rows
