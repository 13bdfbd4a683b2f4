"""Reads the history in ClickHouse, embedded or a server, once it holds the part of the log in question."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import pyarrow as pa
from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client

from infra.clickhouse import DATABASE, server_address
from streams.log import Partition

POLL_S = 0.2
CONNECT_S = 5
QUERY_S = 300


class HistoryUnavailable(Exception):
    """ClickHouse did not answer, refused a query, or did not get as far as asked; the message says which."""


class History:
    """Read-only queries; the connection is made anew after every failure."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Client | None = None
        logging.getLogger("clickhouse_connect").setLevel(
            logging.CRITICAL
        )  # its errors are raised, too

    def positions(self, partitions: Mapping[Partition, int]) -> dict[Partition, int]:
        """How far each of these partitions is stored (next offset; 0 if nothing is)."""
        topics = sorted({topic for topic, _ in partitions})
        found = self.query(
            f"SELECT topic, partition, max(next_offset) AS stored FROM {DATABASE}.positions"  # noqa: S608
            f" WHERE topic IN ({', '.join(map(quoted, topics))}) GROUP BY topic, partition"
        )
        stored = {(row["topic"], row["partition"]): row["stored"] for row in found.to_pylist()}
        return {key: int(stored.get(key, 0)) for key in partitions}

    def wait_for(
        self,
        offsets: Mapping[Partition, int],
        timeout_s: float,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Return once everything before `offsets` is stored; raises HistoryUnavailable after `timeout_s`.

        The time starts anew whenever the history moves: a slow one is waited for, a stuck one is not.
        """
        deadline = time.monotonic() + timeout_s
        furthest = -1
        while True:
            try:
                stored = self.positions(offsets)
                behind = sum(max(0, end - stored[key]) for key, end in offsets.items())
                why = f"{behind} events of the log are not in the history yet"
            except HistoryUnavailable as error:
                behind, stored, why = -1, {}, str(error)
            if behind == 0:
                return
            if sum(stored.values()) > furthest:
                furthest = sum(stored.values())
                deadline = time.monotonic() + timeout_s
            if time.monotonic() > deadline:
                raise HistoryUnavailable(f"{why}, and nothing moved for {timeout_s:.0f} s")
            pause(POLL_S)

    def query(self, sql: str) -> pa.Table:
        """Raises HistoryUnavailable."""
        try:
            if self._client is None:
                self._client = _connect(self._url)
            return self._client.query_arrow(sql, use_strings=True)
        except (
            Exception
        ) as error:  # clickhouse-connect's, urllib3's and pyarrow's have no common root
            self.close()
            raise HistoryUnavailable(f"the history does not answer: {_line(error)}") from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def quoted(text: str) -> str:
    """A string literal of ClickHouse."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _connect(url: str) -> Client:
    return get_client(
        **server_address(url),
        database=DATABASE,
        query_retries=0,
        connect_timeout=CONNECT_S,
        send_receive_timeout=QUERY_S,
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
