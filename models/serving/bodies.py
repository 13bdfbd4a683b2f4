"""Reading a request body within limits, before anything believes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from fastapi import Request

from models.serving.problems import Problem

MAX_BODY_BYTES = 1024 * 1024
BODY_TIMEOUT_S = 10.0
_JSON = "application/json"


async def read_body(request: Request, limit: int | None = None, kinds: Sequence[str] = ()) -> bytes:
    """The whole body, counted while it streams. Default limit: the app's own, or MAX_BODY_BYTES.

    Raises Problem 415 (declared as something else than JSON or one of `kinds`), 413 (too large) or 408 (too
    slow).
    """
    if limit is None:
        limit = getattr(request.app.state, "max_body_bytes", MAX_BODY_BYTES)
    kind = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if kind not in (_JSON, *kinds) and not kind.endswith("+json"):
        raise Problem(415, f"the body is declared as {kind[:80]!r}: send Content-Type: {_JSON}")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise Problem(413, f"the body has {declared[:20]} bytes, more than {limit}")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise Problem(413, f"the body has more than {limit} bytes")
                chunks.append(chunk)
    except TimeoutError:
        message = f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s"
        raise Problem(408, message) from None
    return b"".join(chunks)


def parse_json(body: bytes) -> Any:
    """The JSON document in `body` (UTF-8); raises Problem 422 with the place of the first mistake.

    A name twice in one object is a mistake: readers disagree about what it means. NaN and Infinity parse,
    so that validation can name the field that holds them.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise Problem(422, f"the body is not UTF-8: byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem(422, f"the body is not JSON: {error.msg} ({where})") from None
    except ValueError:
        raise Problem(
            422, "the body is not JSON: it holds an integer of thousands of digits"
        ) from None
    except RecursionError:
        raise Problem(
            422, "the body is not JSON that can be read: it is nested too deeply"
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            shown = name.encode("ascii", "backslashreplace").decode()[:80]
            raise Problem(422, f"the body names {shown!r} twice in one object")
        found[name] = value
    return found
