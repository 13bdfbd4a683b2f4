"""The guard in front of HTTP: an ASGI middleware."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.serving.bodies import BODY_TIMEOUT_S, parse_json
from models.serving.guards.guard import TOO_LARGE, Caller, Guard, Refused
from models.serving.guards.limits import Taken
from models.serving.guards.needs import OPEN, Need, of_path
from models.serving.guards.once import (
    KeyReused,
    Once,
    Pinned,
    attempt,
    parse_key,
    pinned,
    scope_of,
)
from models.serving.guards.scopes import LABEL, PREDICT
from models.serving.problems import RETRY_AFTER_S, Problem, response

FIRST_SENT = b"driftlog-first-sent"
"""Header of a request that is sent again with the same event ids: when it was first sent, ms since the epoch.
What the first try has logged is the answer, whichever model it was that gave it."""
LONGEST_AGO_MS = 120_000
REALM = 'Bearer realm="driftlog"'
_BEARER = b"bearer "


class Guarded:
    """Asks for a key, its scope, a place and a token before the app hears of a request."""

    def __init__(self, app: ASGIApp, guard: Guard, once: Once | None = None) -> None:
        self._app = app
        self._guard = guard
        self._once = once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        need = of_path(scope["path"], scope["method"])
        if need is OPEN:
            await self._app(scope, receive, send)
            return
        answer = _Sending(send)
        try:
            entered = self._guard.enter(_address(scope))
            try:
                async with asyncio.timeout(self._guard.settings.timeout_s):
                    await self._serve(need, scope, receive, answer)
            finally:
                self._guard.leave(entered)
        except Refused as refused:
            await _refuse(refused, scope, receive, answer)
        except Problem as problem:
            await _said(problem, scope)(scope, receive, answer)
        except TimeoutError:
            if answer.started:
                raise
            detail = f"not answered within {self._guard.settings.timeout_s:g} s; send it again"
            await _refuse(Refused(503, "timeout", detail, RETRY_AFTER_S), scope, receive, answer)
        except ClientDisconnect:
            pass

    async def _serve(self, need: Need, scope: Scope, receive: Receive, send: _Sending) -> None:
        guard = self._guard
        headers = dict(scope["headers"])
        caller = guard.identify(_credential(headers), _address(scope))
        assert need.action is not None
        task = guard.of_one(need)
        body: bytes | None = None
        if need.in_body and task is None and caller.scopes is not None:
            body = await self._read(scope, receive, caller)
            task = _task_in(body)
        guard.authorise(caller, need.action, task)
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > guard.settings.max_body:
            raise self._too_large(caller, task)
        send.add(_ration_headers(caller, await guard.ration(caller, task)))
        key = headers.get(b"idempotency-key", b"").decode("latin-1")
        if key and self._once is not None and need.action in (PREDICT, LABEL):
            body = await self._read(scope, receive, caller) if body is None else body
            await self._answer_once(self._once, key, caller, body, scope, send)
            return
        token = pinned.set(_again(headers.get(FIRST_SENT, b""), guard.now_ms()))
        try:
            await self._app(scope, receive if body is None else _given(body), send)
        finally:
            pinned.reset(token)

    async def _answer_once(
        self, once: Once, text: str, caller: Caller, body: bytes, scope: Scope, send: Send
    ) -> None:
        """The first answer to this key, or the app's, which becomes it."""
        try:
            key = parse_key(text)
        except ValueError as error:
            raise Problem(400, str(error)) from None
        name = scope_of(caller.name, scope["path"], key)
        recording = _Recording(send)
        trying = attempt(
            once, name, body, self._guard.now_ms(), lambda: 400 <= recording.status < 500
        )
        try:
            async with trying as found:
                if found.known is not None:
                    await _play(found.known, send)
                    return
                await self._app(scope, _given(body), recording)
                if recording.status == 200:
                    found.answer = recording.answer()
        except KeyReused:
            detail = "this Idempotency-Key came with another body before: use a new key"
            raise Problem(422, detail) from None

    async def _read(self, scope: Scope, receive: Receive, caller: Caller) -> bytes:
        """The whole body, whatever its type; raises Refused 413 or Problem 408."""
        chunks: list[bytes] = []
        left = self._guard.settings.max_body
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for chunk in Request(scope, receive).stream():
                    left -= len(chunk)
                    if left < 0:
                        raise self._too_large(caller, None)
                    chunks.append(chunk)
        except TimeoutError:
            detail = f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s"
            raise Problem(408, detail) from None
        return b"".join(chunks)

    def _too_large(self, caller: Caller, task: str | None) -> Refused:
        detail = f"the body has more than {self._guard.settings.max_body} bytes"
        return self._guard.refuse(caller, task, Refused(413, TOO_LARGE, detail))


class _Sending:
    """`send`, with headers of the guard's in the answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._headers: list[tuple[bytes, bytes]] = []
        self.started = False

    def add(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._headers += headers

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if self._headers:
                message = {**message, "headers": [*message["headers"], *self._headers]}
        await self._send(message)


class _Recording:
    """`send`, keeping what was answered."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._kind = b""
        self._body: list[bytes] = []
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._kind = dict(message["headers"]).get(b"content-type", b"")
        elif message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))
        await self._send(message)

    def answer(self) -> bytes:
        return self._kind + b"\n" + b"".join(self._body)


async def _play(answer: bytes, send: Send) -> None:
    kind, _, body = answer.partition(b"\n")
    headers = [
        (b"content-type", kind),
        (b"content-length", b"%d" % len(body)),
        (b"idempotency-replayed", b"true"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _said(problem: Problem, scope: Scope) -> Response:
    """As the routes say it: problem details, or `{"error": ...}` where Open Inference is spoken."""
    if scope["path"].startswith("/v2"):
        body = json.dumps({"error": problem.detail})
        return Response(body, problem.status, media_type="application/json")
    return response(problem, Request(scope))


async def _refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    answer = _said(Problem(refused.status, refused.detail), scope)
    if refused.retry_after_s is not None:
        answer.headers["Retry-After"] = str(refused.retry_after_s)
    if refused.status == 401:
        said = b"authorization" in dict(scope["headers"])
        known = ', error="invalid_token"' if said else ""
        answer.headers["WWW-Authenticate"] = REALM + known
    elif refused.scope:
        wanted = f', error="insufficient_scope", scope="{_quotable(refused.scope)}"'
        answer.headers["WWW-Authenticate"] = REALM + wanted
    await answer(scope, receive, send)


def _quotable(text: str) -> str:
    """Without what would end a quoted header value."""
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in text)


def _ration_headers(caller: Caller, taken: Taken | None) -> list[tuple[bytes, bytes]]:
    """`RateLimit` and `RateLimit-Policy` as in the IETF draft: tokens left, seconds until all are back."""
    limit = caller.limit
    if taken is None or limit is None:
        return []
    full = (limit.burst - taken.left) / limit.rate
    window = max(1, round(limit.burst / limit.rate))
    policy = f'"driftlog";q={int(limit.burst)};w={window}'
    state = f'"driftlog";r={int(taken.left)};t={int(full) + 1}'
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode())]


def _given(body: bytes) -> Receive:
    """`receive` of a body that was read already."""
    said = False

    async def receive() -> Message:
        nonlocal said
        if said:
            return {"type": "http.disconnect"}
        said = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _again(first_sent: bytes, now: int) -> Pinned | None:
    """What is looked for in the log; None where nothing is, or too far back to look."""
    if not (first_sent.isdigit() and len(first_sent) < 15):
        return None
    since = int(first_sent)
    return Pinned("", since, again=True) if abs(now - since) <= LONGEST_AGO_MS else None


def _task_in(body: bytes) -> str | None:
    """The task that a body names; None if it is no such body, which the route will say."""
    try:
        found = parse_json(body)
    except Problem:
        return None
    task = found.get("task") if isinstance(found, dict) else None
    return task if isinstance(task, str) else None


def _credential(headers: Mapping[bytes, bytes]) -> str | None:
    value = headers.get(b"authorization", b"")
    if value[: len(_BEARER)].lower() != _BEARER:
        return None
    return value[len(_BEARER) :].strip().decode("latin-1")


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"
