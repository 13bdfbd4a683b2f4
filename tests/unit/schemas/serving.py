"""A registry over a log in memory behind real HTTP on a free port, which can be told to fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from schemas.registry.api import registry_app
from schemas.registry.metrics import RegistryMetrics
from schemas.registry.service import MemoryLog, Registry


class Served:
    """`answers` are given instead of the registry's own, one a request: (status, body)."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.answers: list[tuple[int, Any]] = []
        self.requests: list[str] = []
        self.url = ""
        self._app = registry_app(Registry(self.log), lambda: True, RegistryMetrics())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.requests.append(f"{scope['method']} {scope['raw_path'].decode()}")
        if not self.answers:
            await self._app(scope, receive, send)
            return
        status, body = self.answers.pop(0)
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": text})


@contextmanager
def serving() -> Iterator[Served]:
    served, started = Served(), threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    server = Server(uvicorn.Config(served, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(10)
    served.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.should_exit = True
        thread.join(10)
