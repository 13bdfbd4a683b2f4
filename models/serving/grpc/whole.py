"""A unary call whose message never comes whole is refused, not left open.

grpcio's asyncio server waits for the one message of a unary call and, when the stream ends without it (cut
off inside its frame, or never sent), neither calls the handler nor answers. Read as a stream of one, the end
is seen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

MESSAGE = "the call ended before its message was whole"


class WholeMessages(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Outermost, so that every other interceptor sees unary methods as they are."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler
        call = handler.unary_unary

        async def handle(_: AsyncIterator[Any], context: Any) -> Any:
            request = await context.read()
            if request is grpc.aio.EOF:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, MESSAGE)
            return await call(request, context)

        return grpc.stream_unary_rpc_method_handler(
            handle, handler.request_deserializer, handler.response_serializer
        )
