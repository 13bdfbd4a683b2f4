"""The guard in front of gRPC, over a real server: unary and streaming calls, metadata, statuses."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from models.serving.guards.calls import GuardedCalls, address
from models.serving.guards.guard import Guard
from models.serving.guards.once import Once
from models.serving.guards.settings import GuardSettings
from models.serving.guards.setup import new_id
from models.serving.guards.tls import grpc_options
from tests.unit.models.guard_parts import PUBLIC, folded, guard, issue, key

PREDICT = "/driftlog.v1.Serving/Predict"
STREAM = "/driftlog.v1.Serving/PredictStream"
LABEL = "/driftlog.v1.Serving/Label"
HEALTH = "/grpc.health.v1.Health/Check"


@dataclass
class Message:
    """Stands for a message of ours: what counts is its field `task`."""

    task: str = ""
    text: str = ""

    @classmethod
    def read(cls, raw: bytes) -> Message:
        return cls(**json.loads(raw))

    def write(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass
class Servicer:
    """Answers with a fresh id; what it was asked is kept."""

    asked: list[Message] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    async def predict(self, message: Message, context: Any) -> Message:
        self.asked.append(message)
        await self.gate.wait()
        if self.refuses:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the log is away")
        return Message(message.task, new_id(lambda: str(uuid.uuid4())))

    async def stream(
        self, messages: AsyncIterator[Message], context: Any
    ) -> AsyncIterator[Message]:
        async for message in messages:
            yield await self.predict(message, context)

    async def written(self, _: AsyncIterator[Message], context: Any) -> None:
        """The same, in the other style of grpc.aio."""
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(await self.predict(message, context))

    def handlers(self) -> grpc.GenericRpcHandler:
        how = {
            "request_deserializer": Message.read,
            "response_serializer": Message.write,
        }
        unary = grpc.unary_unary_rpc_method_handler(self.predict, **how)
        stream = grpc.stream_stream_rpc_method_handler(self.stream, **how)
        written = grpc.stream_stream_rpc_method_handler(self.written, **how)
        methods = {
            "Predict": unary,
            "PredictStream": stream,
            "PredictWritten": written,
            "Label": unary,
        }
        return grpc.method_handlers_generic_handler("driftlog.v1.Serving", methods)


@asynccontextmanager
async def calling(
    made: Guard, servicer: Servicer | None = None, once: Once | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(
        interceptors=[GuardedCalls(made, once)], options=grpc_options(made.settings)
    )
    server.add_generic_rpc_handlers([(servicer or Servicer()).handlers()])
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


async def ask(
    channel: grpc.aio.Channel, method: str, message: Message, number: int = 0, **metadata: str
) -> Message:
    call = channel.unary_unary(method, Message.write, Message.read)
    return await call(message, metadata=said(number, **metadata))


def said(number: int = 0, **metadata: str) -> list[tuple[str, str]]:
    known = [("authorization", f"Bearer {key(number)}")] if number else []
    return known + [(name.replace("_", "-"), value) for name, value in metadata.items()]


async def all_left(made: Guard) -> None:
    """A caller may have its answer a moment before its call has left."""
    async with asyncio.timeout(10):
        while made.in_flight:
            await asyncio.sleep(0.001)


async def status_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_call_needs_a_key_with_the_scope_of_the_task_in_its_message() -> None:
    access = folded(issue(1, "flights:predict"))
    servicer = Servicer()
    async with calling(guard(access=access), servicer) as channel:
        assert (await ask(channel, PREDICT, Message("flights"), 1)).task == "flights"
        no_key = await status_of(ask(channel, PREDICT, Message("flights")))
        assert no_key.code() == grpc.StatusCode.UNAUTHENTICATED
        unknown = await status_of(ask(channel, PREDICT, Message("flights"), 9))
        assert unknown.code() == grpc.StatusCode.UNAUTHENTICATED
        other = await status_of(ask(channel, PREDICT, Message("loans"), 1))
        assert other.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "loans:predict" in other.details()
        label = await status_of(ask(channel, LABEL, Message("flights"), 1))
        assert "flights:label" in label.details()
        check = channel.unary_unary(
            HEALTH,
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        assert (await check(health_pb2.HealthCheckRequest())).status == 1
    assert [message.task for message in servicer.asked] == ["flights"]


async def test_garbage_is_refused_before_a_handler_sees_it() -> None:
    servicer = Servicer()
    async with calling(guard(GuardSettings(), folded()), servicer) as channel:
        call = channel.unary_unary(PREDICT, None, None)
        refused = await status_of(call(b"\xff\x00"))
        assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT
        large = await status_of(call(b" " * (GuardSettings().max_body + 1)))
        assert large.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert servicer.asked == []


async def test_beyond_its_rate_a_caller_is_told_when_to_come_back() -> None:
    access = folded(issue(1, "*:*", rate=1.0))
    async with calling(guard(access=access)) as channel:
        await ask(channel, PREDICT, Message("flights"), 1)
        refused = await status_of(ask(channel, PREDICT, Message("flights"), 1))
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(refused.trailing_metadata())["retry-after"] == "1"


async def test_beyond_so_many_at_once_calls_are_refused_at_once() -> None:
    servicer = Servicer()
    servicer.gate.clear()
    made = guard(GuardSettings(max_in_flight=1), folded())
    async with calling(made, servicer) as channel:
        first = asyncio.ensure_future(ask(channel, PREDICT, Message("flights")))
        while not servicer.asked:
            await asyncio.sleep(0.001)
        refused = await status_of(ask(channel, PREDICT, Message("flights")))
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        servicer.gate.set()
        await first
    await all_left(made)


async def test_a_call_that_takes_too_long_is_given_up() -> None:
    servicer = Servicer()
    servicer.gate.clear()
    made = guard(GuardSettings(timeout_s=0.02), folded())
    async with calling(made, servicer) as channel:
        refused = await status_of(ask(channel, PREDICT, Message("flights")))
    assert refused.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await all_left(made)


@pytest.mark.parametrize("method", [STREAM, "/driftlog.v1.Serving/PredictWritten"])
async def test_each_message_of_a_stream_needs_its_scope(method: str) -> None:
    access = folded(issue(1, "flights:predict"))
    servicer = Servicer()
    made = guard(PUBLIC, access)
    async with calling(made, servicer) as channel:
        call = channel.stream_stream(method, Message.write, Message.read)(metadata=said(1))
        await call.write(Message("flights"))
        assert (await call.read()).task == "flights"
        await call.write(Message("loans"))
        refused = await status_of(call.read())
        assert refused.code() == grpc.StatusCode.PERMISSION_DENIED
        keyed = channel.stream_stream(method, Message.write, Message.read)(
            metadata=said(1, idempotency_key="a")
        )
        assert (await status_of(keyed.read())).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [message.task for message in servicer.asked] == ["flights"]
    await all_left(made)


async def test_the_same_key_and_message_get_the_same_answer() -> None:
    servicer = Servicer()
    made = guard(GuardSettings(), folded())
    async with calling(made, servicer, Once("one")) as channel:
        first = await ask(channel, PREDICT, Message("flights"), idempotency_key="a")
        again = await ask(channel, PREDICT, Message("flights"), idempotency_key="a")
        assert first == again and len(servicer.asked) == 1
        other = await status_of(ask(channel, PREDICT, Message("loans"), idempotency_key="a"))
        assert other.code() == grpc.StatusCode.FAILED_PRECONDITION
        servicer.refuses = True
        failed = await status_of(ask(channel, PREDICT, Message("flights"), idempotency_key="b"))
        assert failed.code() == grpc.StatusCode.UNAVAILABLE
        servicer.refuses = False
        fresh = await ask(channel, PREDICT, Message("flights"), idempotency_key="b")
        assert fresh != first
    async with calling(guard(GuardSettings(), folded()), servicer, Once("two")) as channel:
        assert await ask(channel, PREDICT, Message("flights"), idempotency_key="a") == first


def test_the_address_of_a_peer() -> None:
    assert address("ipv4:10.0.0.7:50312") == "10.0.0.7"
    assert address("ipv6:%5B::1%5D:50312") == "::1"
    assert address("unix:/run/x") == "unix:/run/x"
