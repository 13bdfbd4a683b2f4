"""The gRPC server: both services, health and reflection on one port; drains before it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from models.serving.bodies import MAX_BODY_BYTES
from models.serving.grpc import driftlog_service, inference_service
from models.serving.grpc.whole import WholeMessages
from models.serving.service import Service

OURS = (driftlog_service.DESCRIPTOR.full_name, inference_service.DESCRIPTOR.full_name)
HEALTH_EVERY_S = 1.0
"""How often those who watch the health are told."""


class CannotListen(Exception):
    """The address is taken or is none of this machine."""


class GrpcServer:
    """One server for one Service. `interceptors` see every call first, health and reflection included."""

    def __init__(
        self,
        service: Service,
        address: str,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        credentials: grpc.ServerCredentials | None = None,
        options: Sequence[tuple[str, int]] = (("grpc.max_receive_message_length", MAX_BODY_BYTES),),
    ) -> None:
        """`address`: host:port (port 0: any) or unix:path; `credentials`: TLS, None for plaintext."""
        self._service = service
        self._address = address
        self._interceptors = interceptors
        self._credentials = credentials
        self._options = options
        self._server: Any = None
        self._health = _Health(service)
        self._stopping: asyncio.Task[None] | None = None
        self.port = 0
        """Where it listens, once started (not for unix:)."""

    async def start(self) -> None:
        """Raises CannotListen."""
        server = grpc.aio.server(
            interceptors=[WholeMessages(), *self._interceptors],
            options=[
                *self._options,
                ("grpc.so_reuseport", 0),  # a port that somebody has is an error, not shared
            ],
        )
        server.add_generic_rpc_handlers(
            (driftlog_service.handlers(self._service), inference_service.handlers(self._service))
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (*OURS, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        try:
            if self._credentials is None:
                self.port = server.add_insecure_port(self._address)
            else:
                self.port = server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise CannotListen(f"gRPC cannot listen on {self._address}: {error}") from error
        await self._health.refresh()
        await server.start()
        self._server = server
        self._health.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse what is new, let what is at work finish for `grace_s`; a second call only waits."""
        if self._server is None:
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace_s))
        await asyncio.shield(self._stopping)

    async def _stop(self, grace_s: float) -> None:
        await self._health.stop()
        await self._server.stop(grace_s)


class _Health(health.aio.HealthServicer):  # type: ignore[misc]
    """grpc.health.v1 for the server and each of our services: as ready as /readyz says."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self._following: asyncio.Task[None] | None = None

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        await self.refresh()
        return await super().Check(request, context)

    async def refresh(self) -> None:
        ready, _ = await self._service.readiness()
        status = health_pb2.HealthCheckResponse
        for name in ("", *OURS):
            await self.set(name, status.SERVING if ready else status.NOT_SERVING)

    def start(self) -> None:
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await self.enter_graceful_shutdown()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_EVERY_S)
            await self.refresh()
