"""The registry as a service: HTTP on 127.0.0.1, its only store the topic `_schemas`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette

from infra.settings import HOST, Settings
from schemas.registry import store
from schemas.registry.api import registry_app
from schemas.registry.log import KafkaLog
from schemas.registry.metrics import RegistryMetrics
from schemas.registry.service import Registry

PORT = 18081


def build_app(settings: Settings) -> Starlette:
    """The ASGI app over the instance's Kafka; it reads the topic while it is served."""
    log = KafkaLog(settings.bootstrap, settings.replication)
    registry = Registry(log)
    metrics = RegistryMetrics()
    metrics.gauge("loaded", "1 once _schemas was read to its end.", lambda: float(log.loaded))
    metrics.gauge("offset", "Offset of the next record of _schemas.", lambda: float(log.offset))
    metrics.gauge("subjects", "Subjects with a version.", lambda: _subjects(log, registry))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        log.start()
        try:
            yield
        finally:
            log.close()

    return registry_app(registry, lambda: log.loaded, metrics, lifespan)


def main(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(settings),
            host=HOST,
            port=settings.port(PORT),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=2,
        )
    )
    server.run()
    return 0 if server.started else 1


def _subjects(log: KafkaLog, registry: Registry) -> float:
    if not log.loaded:
        return 0.0
    return float(registry.read(lambda state: len(store.subjects(state))))
