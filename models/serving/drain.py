"""Stopping without a failed request: a replica says that it leaves, answers on for a while, then closes.

Told to stop, it is not ready any more and each of its answers closes its connection, so that balancers and
callers go elsewhere of their own accord. Only then does it refuse new connections and finish what it has.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class DrainingServer(uvicorn.Server):
    """Between its first signal and its stop lie `delay_s` seconds; a second signal ends them."""

    def __init__(
        self,
        config: uvicorn.Config,
        leave: Callable[[], None],
        delay_s: float,
        beside: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`leave` is called at the first signal; `beside` stops what is to close at the same time."""
        super().__init__(config)
        self._beside = beside
        self._leave = leave
        self._delay_s = delay_s
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal's handler: in the main thread, between two steps of the event loop."""
        if self._told or not self.started:
            super().handle_exit(sig, frame)
            return
        self._told = True
        self._leave()
        loop = asyncio.get_running_loop()
        stop = super().handle_exit
        loop.call_soon_threadsafe(loop.call_later, self._delay_s, stop, sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Both doors close together, so that what is under way behind either has the same time."""
        await asyncio.gather(super().shutdown(sockets), *([self._beside()] if self._beside else []))


class Farewell:
    """ASGI middleware: while `leaving`, an answer is the last on its connection."""

    def __init__(self, app: ASGIApp, leaving: Callable[[], bool]) -> None:
        self._app = app
        self._leaving = leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._leaving():
            await self._app(scope, receive, send)
            return

        async def last(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, last)
