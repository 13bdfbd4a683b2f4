"""ClickHouse's HTTP protocol over chDB, read only, so that its clients work unchanged; health pages."""

from __future__ import annotations

import email
import email.policy
import json
import re
import time
import uuid
import zlib
from dataclasses import dataclass

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from consumers.history.engine import Answer, Engine, QueryFailed
from consumers.history.lag import Ends, lag_route
from consumers.history.metrics import HistoryMetrics
from consumers.sql_guard import FORMATS, RefusedQuery, SafeQuery, check, safe_settings

MAX_BODY = 256_000
QUERIES_AT_ONCE = 4

_CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Markdown": "text/markdown; charset=UTF-8",
}
_QUERY_ID = re.compile(r"[ -~]{1,200}")
_BINARY = ("Arrow", "Native", "ORC", "Parquet", "RowBinary")
_STATUS = {47: 400, 60: 404, 62: 400, 73: 400, 81: 404, 159: 408, 164: 403, 456: 400, 497: 403}
_NOT_SETTINGS = frozenset(
    [
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "quota_key",
        "role",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "compress",
        "decompress",
        "wait_end_of_query",
        "buffer_size",
        "enable_http_compression",
        "http_zlib_compression_level",
        "client_protocol_version",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "add_http_cors_header",
        "cancel_http_readonly_queries_on_client_close",
    ]
)


class BadRequest(Exception):
    """The request itself is wrong; `code` is ClickHouse's error code for that."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message} ({name})")
        self.code = code


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its SQL, format, query parameters and the settings that may be applied."""

    sql: str
    format: str
    params: dict[str, str]
    settings: dict[str, str]
    query_id: str


def history_app(
    metrics: HistoryMetrics, engine: Engine | None, ends: Ends, elsewhere: str = ""
) -> Starlette:
    """The ASGI application; without `engine` a query is told to go `elsewhere` (a server's URL)."""
    limiter: anyio.CapacityLimiter | None = None

    async def query(request: Request) -> Response:
        nonlocal limiter
        limiter = limiter or anyio.CapacityLimiter(QUERIES_AT_ONCE)
        began = time.monotonic()
        try:
            asked = await _read(request)
            if not asked.sql.strip() and request.method == "GET":
                return PlainTextResponse("Ok.\n")
            if engine is None:
                raise BadRequest(
                    48, "NOT_IMPLEMENTED", f"The history is kept by {elsewhere}: ask there."
                )
            answer = await anyio.to_thread.run_sync(_run, engine, asked, limiter=limiter)
        except (BadRequest, QueryFailed, RefusedQuery) as error:
            metrics.query_took(time.monotonic() - began, "failed")
            return _failure(error)
        metrics.query_took(time.monotonic() - began, "answered")
        return _success(answer, asked)

    async def ping(_: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        status = metrics.status()
        body = {"ready": metrics.ready, "state": status["state"], "problem": status["problem"]}
        return JSONResponse(body, 200 if metrics.ready else 503)

    async def status(_: Request) -> Response:
        return JSONResponse(metrics.status())

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(
        routes=[
            Route("/", query, methods=["GET", "POST"]),
            Route("/ping", ping),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/status", status),
            lag_route(metrics, ends),
            Route("/metrics", exposition),
        ],
        # Only names of this machine: a web page whose name is made to resolve here stays out.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )


def _run(engine: Engine, asked: Asked) -> Answer:
    query = check(asked.sql)
    merged = SafeQuery(query.sql, query.format, {**asked.settings, **query.settings})
    return engine.run(merged, asked.format, asked.params)


async def _read(request: Request) -> Asked:
    given = dict(request.query_params)
    body = _inflate(await _body(request), request.headers.get("content-encoding", ""))
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/"):
        given, body = given | _form(content_type, body), b""
    if given.get("compress", "0") not in ("0", "", "false"):
        raise BadRequest(48, "NOT_IMPLEMENTED", "compress=1 is not offered here: leave it out.")
    database = given.get("database") or request.headers.get("x-clickhouse-database") or "driftlog"
    if database not in ("driftlog", "default", "system"):
        raise BadRequest(
            81, "UNKNOWN_DATABASE", f"Database {database} does not exist; driftlog does."
        )
    try:
        sql = "\n".join(part for part in (given.get("query", ""), body.decode()) if part)
    except UnicodeDecodeError as error:
        raise BadRequest(62, "SYNTAX_ERROR", "The query is not UTF-8.") from error
    format_ = (
        given.get("default_format") or request.headers.get("x-clickhouse-format") or "TabSeparated"
    )
    if format_ not in FORMATS:
        raise BadRequest(73, "UNKNOWN_FORMAT", f"Format {format_} is not offered here.")
    return Asked(
        sql,
        format_,
        {name[6:]: value for name, value in given.items() if name.startswith("param_")},
        safe_settings(
            {
                name: value
                for name, value in given.items()
                if name not in _NOT_SETTINGS and not name.startswith("param_")
            }
        ),
        given.get("query_id") or str(uuid.uuid4()),
    )


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise BadRequest(62, "SYNTAX_ERROR", f"The query is longer than {MAX_BODY} bytes.")
    return b"".join(parts)


def _inflate(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ("gzip", "deflate"):
        raise BadRequest(48, "NOT_IMPLEMENTED", f"Content-Encoding {encoding} is not offered here.")
    try:
        stream = zlib.decompressobj(47)
        inflated = stream.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise BadRequest(62, "SYNTAX_ERROR", f"The body is no {encoding}.") from error
    if len(inflated) > MAX_BODY:
        raise BadRequest(62, "SYNTAX_ERROR", f"The query is longer than {MAX_BODY} bytes.")
    if not stream.eof:
        raise BadRequest(62, "SYNTAX_ERROR", f"The {encoding} body is cut short.")
    return inflated


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a multipart form: clients send long parameters that way."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    fields = {}
    for part in email.message_from_bytes(head + body, policy=email.policy.HTTP).walk():
        if part.is_multipart():
            continue
        if part.get_filename():
            raise BadRequest(48, "NOT_IMPLEMENTED", "External tables are not offered here.")
        content = part.get_payload(decode=True)
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = content.decode(errors="replace")
    return fields


def _success(answer: Answer, asked: Asked) -> Response:
    summary = {
        "read_rows": str(answer.read_rows),
        "read_bytes": str(answer.read_bytes),
        "written_rows": "0",
        "written_bytes": "0",
        "total_rows_to_read": str(answer.read_rows),
        "elapsed_ns": str(answer.elapsed_ns),
    }
    headers = {
        "X-ClickHouse-Summary": json.dumps(summary, separators=(",", ":")),
        "X-ClickHouse-Format": answer.format,
        "X-ClickHouse-Timezone": answer.timezone,
        "X-ClickHouse-Server-Display-Name": "driftlog",
        "X-ClickHouse-Query-Id": asked.query_id if _QUERY_ID.fullmatch(asked.query_id) else "",
        "Content-Type": _content_type(answer.format),
    }
    return Response(answer.body, headers=headers)


def _content_type(format_: str) -> str:
    if format_.startswith(_BINARY):
        return "application/octet-stream"
    if format_.startswith("JSON") and format_ not in ("JSON", "JSONCompact", "JSONStrings"):
        return "application/x-ndjson; charset=UTF-8"
    stem = next((name for name in _CONTENT_TYPES if format_.startswith(name)), "")
    return _CONTENT_TYPES.get(stem, "text/plain; charset=UTF-8")


def _failure(error: BadRequest | QueryFailed | RefusedQuery) -> Response:
    if isinstance(error, RefusedQuery):
        code, text = 497, f"Code: 497. DB::Exception: Refused: {error}. (ACCESS_DENIED)"
    else:
        code, text = error.code, str(error)
    status = _STATUS.get(code, 400 if isinstance(error, BadRequest) else 500)
    return PlainTextResponse(
        f"{text}\n", status, headers={"X-ClickHouse-Exception-Code": str(code)}
    )
