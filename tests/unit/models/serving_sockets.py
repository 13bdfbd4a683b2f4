"""Both faces of a Service in memory, on free ports of the loopback, in a thread of their own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from infra.settings import HOST
from models.serving.api import create_app
from models.serving.grpc.server import GrpcServer
from models.serving.service import Service


@dataclass(frozen=True)
class Addresses:
    """host:port of each face."""

    http: str
    grpc: str


@contextmanager
def listening(service: Service) -> Iterator[Addresses]:
    loop, ready = asyncio.new_event_loop(), threading.Event()
    listener = socket.create_server((HOST, 0))
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="warning"))
    grpc = GrpcServer(service, f"{HOST}:0")

    async def run() -> None:
        await grpc.start()
        serving = asyncio.create_task(server.serve([listener]))
        ready.set()
        await serving
        await grpc.stop(5)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield Addresses(f"{HOST}:{listener.getsockname()[1]}", f"{HOST}:{grpc.port}")
    finally:
        server.should_exit = True
        thread.join()
        loop.close()
