"""`driftlog query SQL`: read the history; a table for people, JSON, CSV or Parquet for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from driftlog.cli.errors import CliError
from infra.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client
    from rich.console import Console
    from rich.table import Table as RichTable

SHOWN_ROWS = 1_000
MAX_WIDTH = 60


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


_CLICKHOUSE = {Format.JSON: "JSONEachRow", Format.CSV: "CSVWithNames", Format.PARQUET: "Parquet"}


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("query")(query)


def query(
    sql: Annotated[
        str, typer.Argument(help="One SELECT (or SHOW TABLES, DESCRIBE, EXPLAIN); '-' reads stdin.")
    ],
    format_: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="Default: table, or what --output's name says."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="name=value for {name:Type} in the query."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The same as --format json: a JSON object a line.")
    ] = False,
) -> None:
    """Query the history in ClickHouse, read only. Tables: `driftlog query 'SHOW TABLES'`."""
    import os

    settings = Settings.from_env(os.environ)
    text = sys.stdin.read() if sql == "-" else sql
    chosen = Format.JSON if as_json else format_ or _named(output)
    if chosen is Format.PARQUET and output is None and sys.stdout.isatty():
        raise CliError("Parquet is not for a terminal: name a file with --output")
    if output is not None and not output.absolute().parent.is_dir():
        raise CliError(f"there is no folder {output.absolute().parent} to write {output.name} to")
    parameters = _parameters(param or [])
    client = connect(settings)
    try:
        _answer(client, text, chosen, output, parameters)
    except Exception as error:
        raise CliError(_line(error)) from error
    finally:
        client.close()


def connect(settings: Settings) -> Client:
    """A client of the history; raises CliError with what to do if it is not up."""
    from clickhouse_connect import get_client
    from clickhouse_connect.driver.exceptions import Error

    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # its errors are raised, too
    parts = urlsplit(settings.clickhouse)
    try:
        return get_client(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            username=parts.username or "default",
            password=parts.password or "",
            secure=parts.scheme == "https",
            database="driftlog",
            query_retries=0,
            connect_timeout=5,
        )
    except (Error, OSError) as error:
        where = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        raise CliError(
            f"the history does not answer at {where}: start it with `driftlog up`"
        ) from error


def _answer(
    client: Client, sql: str, chosen: Format, output: Path | None, parameters: dict[str, str]
) -> None:
    from consumers.sql_guard import check

    safe = check(sql)  # a server elsewhere may let the user write: this verb does not
    settings: dict[str, Any] = dict(safe.settings)
    if chosen is Format.TABLE and not safe.format:
        _show(client.query_arrow(safe.sql, parameters=parameters, settings=settings), output)
        return
    body = client.raw_query(
        safe.sql, parameters, settings=settings, fmt=safe.format or _CLICKHOUSE[chosen]
    )
    if output is not None:
        output.write_bytes(body)
        return
    sys.stdout.buffer.write(body)
    if not body.endswith(b"\n") and sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _show(rows: pa.Table, output: Path | None) -> None:
    if output is not None:
        output.write_text(_plain(rows), encoding="utf-8")
        return
    if not sys.stdout.isatty():
        sys.stdout.write(_plain(rows))
        return
    from rich.console import Console

    console = Console(highlight=False)
    shown = [
        [_cell(value) for value in row.values()] for row in rows.slice(0, SHOWN_ROWS).to_pylist()
    ]
    widths = [
        min(MAX_WIDTH, max(map(len, [name, *column])))
        for name, *column in zip(rows.column_names, *shown, strict=True)
    ]
    if sum(widths) + 3 * len(widths) <= console.width:
        console.print(_across(rows, shown))
    else:
        _down(console, rows.column_names, shown)
    left = rows.num_rows - SHOWN_ROWS
    more = f", {SHOWN_ROWS} shown: --format csv gives all" if left > 0 else ""
    console.print(f"[dim]{rows.num_rows} row{'' if rows.num_rows == 1 else 's'}{more}[/dim]")


def _across(rows: pa.Table, shown: list[list[str]]) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name, type_ in zip(rows.column_names, rows.schema.types, strict=True):
        numeric = str(type_).startswith(("int", "uint", "float", "double", "decimal"))
        table.add_column(
            Text(name),
            justify="right" if numeric else "left",
            overflow="ellipsis",
            max_width=MAX_WIDTH,
            no_wrap=True,
        )
    for row in shown:
        table.add_row(*map(Text, row))
    return table


def _down(console: Console, names: list[str], shown: list[list[str]]) -> None:
    """Rows that are wider than the terminal: one line a column."""
    from rich.text import Text

    width = max(map(len, names))
    for number, row in enumerate(shown, 1):
        console.print(Text(f"row {number}", style="bold"))
        for name, value in zip(names, row, strict=True):
            line = Text(f"  {name.ljust(width)}  ", style="dim")
            console.print(line.append(value, style="not dim"), no_wrap=True, overflow="ellipsis")


def _plain(rows: pa.Table) -> str:
    """Tab-separated, with a header: what `cut` and `awk` read."""
    lines = ["\t".join(rows.column_names)]
    lines += ["\t".join(map(_cell, row.values())) for row in rows.to_pylist()]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ", "milliseconds").removesuffix(".000")
    if isinstance(value, (list, dict)):
        return json.dumps(value, default=str, ensure_ascii=False)
    return " ".join(str(value).splitlines())


def _named(output: Path | None) -> Format:
    by_suffix = {
        ".json": Format.JSON,
        ".jsonl": Format.JSON,
        ".csv": Format.CSV,
        ".parquet": Format.PARQUET,
    }
    return by_suffix.get(output.suffix.lower(), Format.TABLE) if output else Format.TABLE


def _parameters(given: list[str]) -> dict[str, str]:
    parameters = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise CliError(f"--param {each!r}: write name=value")
        parameters[name] = value
    return parameters


def _line(error: Exception) -> str:
    """One line of the error: ClickHouse's own words without its address and stack."""
    text = " ".join(str(error).split())
    _, found, told = text.partition("DB::Exception: ")
    told = told.partition(" (for url")[0] if found else text
    if "(UNKNOWN_TABLE)" in told:
        told += "; `driftlog query 'SHOW TABLES'` lists the tables"
    return told.removeprefix("Refused: ") or type(error).__name__
