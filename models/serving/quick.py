"""The short way of a predict request: past routing and request objects, for a body that is right.

It is ASGI middleware in front of the application, and does what the route does: the same checks, the same
Service, the same problems. Whatever is not plain (another media type, a body that is late, large or wrong, a
header that somebody behind it looks at) goes on to the route, with the bytes that were read already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.serving.bodies import MAX_BODY_BYTES
from models.serving.service import Service

ROUTES = ("/v1/tasks/{task}/predict",)
"""Those that it answers; one without the name of a task is for the only task there is."""
LEFT = frozenset((b"idempotency-key", b"transfer-encoding", b"content-encoding", b"expect"))
"""A request with one of these headers takes the long way."""
_JSON = b"application/json"
_encode = msgspec.json.Encoder().encode

Refuse = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Route:
    """What a request is counted under."""

    path: str


class QuickPredict:
    """See the module. `refuse` makes the response of an exception, as the application does."""

    def __init__(self, app: ASGIApp, service: Service, refuse: Refuse) -> None:
        self._app = app
        self._service = service
        self._refuse = refuse
        self._tasks: dict[str, tuple[str, _Route]] = {}
        for route in ROUTES:
            for task in service.desks:
                if "{task}" in route or len(service.desks) == 1:
                    self._tasks[route.replace("{task}", task)] = task, _Route(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        known = self._tasks.get(scope["path"])
        if known is None or not _plain(scope):
            await self._app(scope, receive, send)
            return
        task, route = known
        first = await receive()
        asked = None
        if first["type"] == "http.request" and not first.get("more_body"):
            raw = first.get("body", b"")
            limit = getattr(scope["app"].state, "max_body_bytes", MAX_BODY_BYTES)
            asked = self._service.asked(task, raw) if len(raw) <= limit else None
        if asked is None:
            await self._app(scope, _again(first, receive), send)
            return
        scope["route"] = route
        try:
            body = _encode(await self._service.answer(task, asked, raw))
        except Exception as error:
            response = await self._refuse(Request(scope, receive), error)
            await response(scope, receive, send)
            if response.status_code == 500:
                raise  # for the server's log, as an application does
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-length", str(len(body)).encode()),
                    (b"content-type", _JSON),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})


def _plain(scope: Scope) -> bool:
    """Whether the headers say JSON and nothing that asks for more than an answer."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            if value != _JSON:
                return False
        elif name in LEFT:
            return False
    return True


def _again(first: Message, receive: Receive) -> Receive:
    """`receive` with the message that was read from it put back."""
    waiting = [first]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received
