"""Runs guarded queries on chDB: a handle of its own for each, limits set first, then `readonly`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumers.sql_allowed import FIXED
from consumers.sql_guard import DATABASE, LIMITS, SafeQuery

_CODE = re.compile(r"Code: (\d+)\. ")


class QueryFailed(Exception):
    """ClickHouse refused or broke off a query; `code` is its error code, the message its own words."""

    def __init__(self, message: str) -> None:
        at = message.find("Code: ")
        super().__init__(message[max(at, 0) :].strip())
        match = _CODE.search(message)
        self.code = int(match[1]) if match else 1002


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's bytes in the format that was asked for, and what it cost."""

    body: bytes
    format: str
    read_rows: int
    read_bytes: int
    elapsed_ns: int
    timezone: str


class Engine:
    """Queries over a chDB directory that this process owns; safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = str(path.resolve())
        self._timezone = ""

    def run(self, query: SafeQuery, default_format: str, params: Mapping[str, Any]) -> Answer:
        """Raises QueryFailed. `params` are bound to `{name:Type}` by the engine."""
        import chdb

        settings: dict[str, object] = {"result_overflow_mode": "throw", **LIMITS}
        settings |= {**query.settings, **FIXED}
        # Clients ask this table which settings they may send with a query: under `readonly = 1`, none.
        readonly = 2 if "system.settings" in query.sql.lower() else 1
        clause = ", ".join(f"{name} = {_literal(value)}" for name, value in settings.items())
        format_ = query.format or default_format
        try:
            connection = chdb.connect(self._path)
            try:
                connection.query(f"USE {DATABASE}")
                connection.query(f"SET {clause}, readonly = {readonly}")
                began = time.perf_counter_ns()
                result = connection.query(query.sql, format_, params=dict(params))
                elapsed = time.perf_counter_ns() - began
                self._timezone = self._timezone or _timezone(connection)
                return Answer(
                    result.bytes() or b"",
                    format_,
                    result.rows_read(),
                    result.bytes_read(),
                    elapsed,
                    query.settings.get("session_timezone") or self._timezone,
                )
            finally:
                connection.close()
        except Exception as error:
            raise QueryFailed(str(error)) from error


def _timezone(connection: Any) -> str:
    return str(connection.query("SELECT timezone()", "TabSeparatedRaw").bytes().decode().strip())


def _literal(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
