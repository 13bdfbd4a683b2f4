"""`driftlog query SQL`: read the history; a table for people, JSON, CSV or Parquet for programs."""

from __future__ import annotations

import json
import logging
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from driftlog.cli.errors import CliError
from infra.clickhouse import server_address
from infra.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from rich.console import Console
    from rich.table import Table as RichTable

SHOWN_ROWS = 1_000
MAX_WIDTH = 60
_WHOLE_SECOND = re.compile(r"(\d\d:\d\d:\d\d)\.000$")
_NUMBERS = ("Int", "UInt", "Float", "Decimal")


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
            **server_address(settings.clickhouse),
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
        settings["output_format_json_quote_64bit_integers"] = 0
        body = client.raw_query(safe.sql, parameters, settings=settings, fmt="JSONCompact")
        _show(Rows.parse(body), output)
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


@dataclass(frozen=True)
class Rows:
    """An answer to show: names and ClickHouse types of its columns, and its rows."""

    names: list[str]
    types: list[str]
    rows: list[list[Any]]

    @classmethod
    def parse(cls, body: bytes) -> Rows:
        """From ClickHouse's JSONCompact."""
        answer = json.loads(body)
        meta = answer["meta"]
        return cls([m["name"] for m in meta], [m["type"] for m in meta], answer["data"])


def _show(answer: Rows, output: Path | None) -> None:
    if output is not None:
        output.write_text(_plain(answer), encoding="utf-8")
        return
    if not sys.stdout.isatty():
        sys.stdout.write(_plain(answer))
        return
    from rich.console import Console

    console = Console(highlight=False)
    shown = [[_cell(value) for value in row] for row in answer.rows[:SHOWN_ROWS]]
    widths = [
        min(MAX_WIDTH, max(map(len, [name, *column])))
        for name, *column in zip(answer.names, *shown, strict=True)
    ]
    if sum(widths) + 3 * len(widths) <= console.width:
        console.print(_across(answer, shown))
    else:
        _down(console, answer.names, shown)
    count = len(answer.rows)
    more = f", {SHOWN_ROWS} shown: --format csv gives all" if count > SHOWN_ROWS else ""
    console.print(f"[dim]{count} row{'' if count == 1 else 's'}{more}[/dim]")


def _across(answer: Rows, shown: list[list[str]]) -> RichTable:
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name, type_ in zip(answer.names, answer.types, strict=True):
        plain = type_.removeprefix("LowCardinality(").removeprefix("Nullable(")
        table.add_column(
            Text(name),
            justify="right" if plain.startswith(_NUMBERS) else "left",
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


def _plain(answer: Rows) -> str:
    """Tab-separated, with a header: what `cut` and `awk` read."""
    lines = ["\t".join(answer.names), *("\t".join(map(_cell, row)) for row in answer.rows)]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return _WHOLE_SECOND.sub(r"\1", " ".join(str(value).splitlines()))


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
