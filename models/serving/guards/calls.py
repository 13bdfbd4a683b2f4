"""The guard in front of gRPC: an interceptor of `grpc.aio`, for unary and streaming calls alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc

from models.serving.grpc.errors import CODES
from models.serving.guards.guard import Caller, Guard, Refused
from models.serving.guards.needs import OPEN, Need, of_method, task_of
from models.serving.guards.once import (
    KeyReused,
    Once,
    attempt,
    parse_key,
    scope_of,
)
from models.serving.guards.scopes import LABEL, PREDICT

Handler = Any


class GuardedCalls(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Asks for a key, its scope, a place and a token before a handler hears of a call.

    The key is in the metadata, as in HTTP: `authorization: Bearer KEY`. `retry-after` and `idempotency-key`
    are metadata, too. In a stream each message needs the scope for its task, and a token.
    """

    def __init__(self, guard: Guard, once: Once | None = None) -> None:
        self._guard = guard
        self._once = once

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        need = of_method(method)
        if handler is None or need is OPEN:
            return handler
        said = {str(key): value for key, value in handler_call_details.invocation_metadata}
        call = _Call(self._guard, self._once, method, need, said, handler)
        readers = {"request_deserializer": None, "response_serializer": None}
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(call.stream_stream, **readers)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(call.stream_unary, **readers)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(call.unary_stream, **readers)
        return grpc.unary_unary_rpc_method_handler(call.unary_unary, **readers)


class _Call:
    """One call. Messages pass as bytes, so that the same request can be told by them."""

    def __init__(
        self,
        guard: Guard,
        once: Once | None,
        method: str,
        need: Need,
        metadata: dict[str, Any],
        handler: Handler,
    ) -> None:
        self._guard = guard
        self._once = once
        self._method = method
        self._need = need
        self._metadata = metadata
        self._handler = handler

    async def unary_unary(self, raw: bytes, context: Any) -> bytes:
        async with _Admitted(self, context) as caller:
            request = await self._read(raw, context)
            await self._let_in(caller, request)
            try:
                async with asyncio.timeout(self._guard.settings.timeout_s):
                    return await self._answer(caller, raw, request, context)
            except TimeoutError:
                detail = f"not answered within {self._guard.settings.timeout_s:g} s"
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, detail)
        raise AssertionError("a refused call was aborted")

    async def _answer(self, caller: Caller, raw: bytes, request: Any, context: Any) -> bytes:
        key = self._metadata.get("idempotency-key")
        if key and self._once is not None and self._need.action in (PREDICT, LABEL):
            return await self._answer_once(self._once, str(key), caller, raw, request, context)
        return self._write(await self._handler.unary_unary(request, context))

    async def unary_stream(self, raw: bytes, context: Any) -> None:
        async with _Admitted(self, context) as caller:
            request = await self._read(raw, context)
            await self._let_in(caller, request)
            within = _Within(self, caller, context)
            await within.send(self._handler.unary_stream(request, within))

    async def stream_unary(self, _: AsyncIterator[bytes], context: Any) -> bytes:
        async with _Admitted(self, context) as caller:
            await self._no_key(context)
            within = _Within(self, caller, context)
            return self._write(await self._handler.stream_unary(within, within))
        raise AssertionError("a refused call was aborted")

    async def stream_stream(self, _: AsyncIterator[bytes], context: Any) -> None:
        async with _Admitted(self, context) as caller:
            await self._no_key(context)
            within = _Within(self, caller, context)
            await within.send(self._handler.stream_stream(within, within))

    def identify(self, context: Any) -> Caller:
        value = str(self._metadata.get("authorization", ""))
        kind, _, credential = value.partition(" ")
        known = credential.strip() if kind.lower() == "bearer" else None
        return self._guard.identify(known, address(context.peer()))

    @property
    def guard(self) -> Guard:
        return self._guard

    async def incoming(self, raw: bytes, caller: Caller, context: Any) -> Any:
        """A message of a stream; one that is refused ends the call."""
        request = await self._read(raw, context)
        try:
            await self._let_in(caller, request)
        except Refused as refused:
            await abort(refused, context)
        return request

    def outgoing(self, answer: Any) -> bytes:
        return self._write(answer)

    async def _let_in(self, caller: Caller, request: Any) -> None:
        guard, need = self._guard, self._need
        task = task_of(request) if need.in_body else None
        task = guard.of_one(need) if task is None else task
        assert need.action is not None
        guard.authorise(caller, need.action, task)
        await guard.ration(caller, task)

    async def _answer_once(
        self, once: Once, text: str, caller: Caller, raw: bytes, request: Any, context: Any
    ) -> bytes:
        try:
            key = parse_key(text)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        name = scope_of(caller.name, self._method, key)
        invalid = grpc.StatusCode.INVALID_ARGUMENT.value[0]
        trying = attempt(once, name, raw, self._guard.now_ms(), lambda: _code(context) == invalid)
        try:
            async with trying as found:
                if found.known is not None:
                    context.set_trailing_metadata((("idempotency-replayed", "true"),))
                    return found.known
                answer = self._write(await self._handler.unary_unary(request, context))
                if _code(context) == 0:
                    found.answer = answer
                return answer
        except KeyReused:
            detail = "this idempotency-key came with another message before: use a new key"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, detail)
        raise AssertionError("abort raises")

    async def _no_key(self, context: Any) -> None:
        if self._metadata.get("idempotency-key"):
            detail = "an idempotency-key is for one message: give each instance an event_id"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, detail)

    async def _read(self, raw: bytes, context: Any) -> Any:
        read = self._handler.request_deserializer
        if read is None:
            return raw
        try:
            return read(raw)
        except Exception:  # whatever the parser of this message raises
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be read")

    def _write(self, answer: Any) -> bytes:
        write = self._handler.response_serializer
        written: bytes = answer if write is None else write(answer)
        return written


class _Within:
    """What a streaming handler is given for its context and its messages.

    Handlers may iterate and yield, or read from the context and write to it; both ways every message that
    comes in is guarded.
    """

    def __init__(self, call: _Call, caller: Caller, context: Any) -> None:
        self._call = call
        self._caller = caller
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def __aiter__(self) -> _Within:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        raw = await self._context.read()
        if raw is grpc.aio.EOF:
            return raw
        return await self._call.incoming(raw, self._caller, self._context)

    async def write(self, answer: Any) -> None:
        await self._context.write(self._call.outgoing(answer))

    async def send(self, answers: Any) -> None:
        """What a handler returned: its answers, or the coroutine that writes them."""
        if not hasattr(answers, "__aiter__"):
            await answers
            return
        async for answer in answers:
            await self.write(answer)


class _Admitted:
    """A caller with a place, within the time of a request; what is refused aborts the call."""

    def __init__(self, call: _Call, context: Any) -> None:
        self._call = call
        self._context = context

    async def __aenter__(self) -> Caller:
        guard = self._call.guard
        try:
            self._entered = guard.enter(address(self._context.peer()))
        except Refused as refused:
            await abort(refused, self._context)
        try:
            return self._call.identify(self._context)
        except Refused as refused:
            guard.leave(self._entered)
            await abort(refused, self._context)

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._call.guard.leave(self._entered)
        if isinstance(error, Refused):
            await abort(error, self._context)


async def abort(refused: Refused, context: Any) -> NoReturn:
    """End a call with the status that says what the HTTP status says."""
    said: tuple[tuple[str, str], ...] = ()
    if refused.retry_after_s is not None:
        said = (("retry-after", str(refused.retry_after_s)),)
    await context.abort(CODES[refused.status], refused.detail, said)
    raise AssertionError("abort raises")


def _code(context: Any) -> int:
    """The number of the status that a handler has set; 0: none, or OK."""
    code = context.code()
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return int(number or 0)


def address(peer: str) -> str:
    """`ipv4:10.0.0.7:50312` -> `10.0.0.7`."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer[:60] or "unknown"
    return rest.rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "")
