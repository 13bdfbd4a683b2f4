"""A gRPC server over a Service in memory, on a free port of the loopback, and a channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from models.serving.grpc import driftlog_pb2 as pb
from models.serving.grpc.server import GrpcServer
from models.serving.service import Service
from tests.unit.models.serving_parts import flight


@asynccontextmanager
async def connected(serving: Service, *interceptors: Any) -> AsyncIterator[grpc.aio.Channel]:
    server = GrpcServer(serving, "127.0.0.1:0", interceptors)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel
    finally:
        await server.stop(0)


def value(content: Any) -> Any:
    """A feature's value as a message."""
    if content is None:
        return pb.Value(missing=pb.Missing())
    return pb.Value(text=content) if isinstance(content, str) else pb.Value(number=content)


def instance(event_id: str | None = None, event_time: int | None = None, **changes: Any) -> Any:
    """A valid instance, with changes as `flight` takes them."""
    features = {name: value(content) for name, content in flight(**changes).items()}
    return pb.Instance(features=features, event_id=event_id, event_time=event_time)


def ask(*instances: Any, task: str = "") -> Any:
    return pb.PredictRequest(task=task, instances=instances)
