"""How any gRPC method of ours is run: bytes in, measured, refused in one way, answers in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from models.serving.complaints import Complaints
from models.serving.grpc.errors import Refused, refused
from models.serving.instances import FieldError, InvalidRequest
from models.serving.metrics import Metrics

IN_FLIGHT = 16
"""Requests of one stream that are at work at a time; the next are not read before one is answered."""
SERVER_FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE}

Call = Callable[[Any], Awaitable[Any]]


class _Garbled:
    """Stands where the message of a request that cannot be read would stand."""


@dataclass(slots=True)
class Calls:
    """Makes method handlers of one gRPC service, whose descriptor has the methods' types."""

    descriptor: Any
    metrics: Metrics
    in_flight: int = IN_FLIGHT
    complaints: Complaints = field(init=False)

    def __post_init__(self) -> None:
        self.complaints = Complaints(self.metrics)

    def unary(self, name: str, call: Call) -> Any:
        """A method that answers one request with what `call` returns."""

        async def handle(request: Any, context: Any) -> Any:
            with self._measured(name) as outcome:
                said = await self._tried(name, call, request)
                if isinstance(said, Refused):
                    outcome.code = said.code
                    await context.abort(said.code, said.message, said.metadata())
                return said

        return grpc.unary_unary_rpc_method_handler(handle, *self._codec(name))

    def stream(self, name: str, call: Call, refusal: Callable[[Refused], Any]) -> Any:
        """A method that answers each request of a stream, in order; `refusal` makes an answer of an error."""

        async def answer(request: Any) -> Any:
            with self._measured(name) as outcome:
                said = await self._tried(name, call, request)
                if isinstance(said, Refused):
                    outcome.code = said.code
                    return refusal(said)
                return said

        async def handle(requests: AsyncIterator[Any], context: Any) -> None:
            await in_order(requests, answer, context.write, self.in_flight)

        return grpc.stream_stream_rpc_method_handler(handle, *self._codec(name))

    async def _tried(self, name: str, call: Call, request: Any) -> Any:
        """What `call` returns, or Refused."""
        try:
            if isinstance(request, _Garbled):
                wanted = self.descriptor.methods_by_name[name].input_type.full_name
                raise InvalidRequest([FieldError("", f"is no message of type {wanted}")])
            return await call(request)
        except Exception as error:
            said = refused(error)
            if said.code in SERVER_FAULTS:
                self.complaints.note(self._route(name), error)
            return said

    def _codec(self, name: str) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
        method = self.descriptor.methods_by_name[name]
        request_type = GetMessageClass(method.input_type)
        response_type = GetMessageClass(method.output_type)

        def parse(data: bytes) -> Any:
            try:
                return request_type.FromString(data)
            except DecodeError:
                return _Garbled()  # raising here would be the server's fault: INTERNAL

        return parse, response_type.SerializeToString

    def _route(self, name: str) -> str:
        return f"/{self.descriptor.full_name}/{name}"

    @contextmanager
    def _measured(self, name: str) -> Iterator[_Outcome]:
        route, start, outcome = self._route(name), time.perf_counter(), _Outcome()
        try:
            yield outcome
        except asyncio.CancelledError:
            outcome.code = grpc.StatusCode.CANCELLED
            raise
        finally:
            self.metrics.requests.labels(route, outcome.code.name).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)


@dataclass(slots=True)
class _Outcome:
    code: grpc.StatusCode = grpc.StatusCode.OK


async def in_order(
    requests: AsyncIterator[Any], work: Call, write: Call, limit: int = IN_FLIGHT
) -> None:
    """Write what `work` makes of each request, in the order of the requests, `limit` at work at a time.

    Whoever ends this (a caller that goes away, a `work` that raises) ends all that is at work.
    """
    room = asyncio.Semaphore(limit)
    begun: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()

    async def one(request: Any) -> Any:
        return await work(request)

    async with asyncio.TaskGroup() as group:

        async def read() -> None:
            async for request in requests:
                await room.acquire()
                begun.put_nowait(group.create_task(one(request)))
            begun.put_nowait(None)

        group.create_task(read())
        while (task := await begun.get()) is not None:
            await write(await task)
            room.release()
