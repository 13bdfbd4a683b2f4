"""The guards of one serving process: what stands before HTTP and gRPC, and what runs beside them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from infra.settings import Settings
from models.serving.eventlog import EventLog
from models.serving.guards import tls
from models.serving.guards.access import Access
from models.serving.guards.audit import Refusals
from models.serving.guards.calls import GuardedCalls
from models.serving.guards.guard import Guard
from models.serving.guards.http import Guarded
from models.serving.guards.limits import SharedBuckets
from models.serving.guards.once import Once, new_id, now_ms
from models.serving.guards.settings import GuardSettings
from models.serving.guards.shared import RedisScripts
from models.serving.metrics import Metrics
from schemas.event import Event
from streams.log import LogUnavailable

__all__ = ["Guards", "NobodyHasAKey", "new_id", "now_ms"]

logger = structlog.get_logger()

SAY_S = 5.0
"""So often what was refused in minutes that are over goes to the log."""
APPEND_S = 10.0
UNSAID = 10_000
"""Events about refusals that wait for a log that is away; older ones are given up, with a line."""


class NobodyHasAKey(Exception):
    """Others can reach the service, and there is no key: it would be open to all or of no use."""


class Guards:
    """See the module."""

    def __init__(
        self, settings: Settings, guarding: GuardSettings, tasks: Collection[str], metrics: Metrics
    ) -> None:
        self.settings = guarding
        self.replica = uuid.uuid4().hex[:16]
        self._redis = RedisScripts(settings.redis)
        self.guard = Guard(
            *(guarding, tasks, metrics.registry),
            buckets=SharedBuckets(self._redis),
            refusals=Refusals(self.replica),
        )
        self.once = Once(self.replica, self._redis)
        self._unsaid: list[Event] = []

    def stand_before(self, app: FastAPI) -> None:
        """HTTP."""
        app.state.max_body_bytes = self.settings.max_body
        app.add_middleware(Guarded, guard=self.guard, once=self.once)

    def interceptor(self) -> GuardedCalls:
        """gRPC: for `grpc.aio.server(interceptors=[...])`, whose options are `tls.grpc_options`."""
        return GuardedCalls(self.guard, self.once)

    def listening(self) -> dict[str, Any]:
        """For `uvicorn.Config`: where to listen, and with which certificates."""
        return tls.uvicorn_options(self.settings)

    def lacks(self) -> str | None:
        """For `Service.lacks`."""
        return "the keys have not been read from the log" if self.guard.access is None else None

    def know(self, access: Access) -> None:
        """The keys as the log has them now; raises NobodyHasAKey."""
        first = self.guard.access is None
        self.guard.know(access)
        if first and self.guard.lacks_keys:
            raise NobodyHasAKey(
                f"DRIFTLOG_SERVING_HOST={self.settings.host} lets others in, and no key was ever made: "
                "`driftlog keys create --name N --scope TASK:predict` first, or set "
                "DRIFTLOG_SERVING_OPEN=1 if something in front asks for keys"
            )

    @asynccontextmanager
    async def running(
        self, log: Callable[[], EventLog | None], http: uvicorn.Config
    ) -> AsyncIterator[None]:
        """Tells Redis that this replica lives, says refusals, looks after certificates."""
        beside = [asyncio.create_task(self.once.beat()), asyncio.create_task(self._say(log))]
        if self.settings.tls_cert is not None:
            beside.append(asyncio.create_task(self._renew(http)))
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self._unsaid += self.guard.refusals.due(None)
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self._append(log())
            await self._redis.close()

    async def _say(self, log: Callable[[], EventLog | None]) -> None:
        while True:
            await asyncio.sleep(SAY_S)
            self._unsaid += self.guard.refusals.due(self.guard.now_ms())
            if len(self._unsaid) > UNSAID:
                logger.warning("refusals not said", events=len(self._unsaid) - UNSAID)
                del self._unsaid[:-UNSAID]
            await self._append(log())

    async def _append(self, log: EventLog | None) -> None:
        if log is None or not self._unsaid:
            return
        events = list(self._unsaid)
        try:
            await log.append(events, APPEND_S)
        except LogUnavailable as error:
            logger.warning("refusals wait for the log", events=len(events), reason=str(error))
        else:
            del self._unsaid[: len(events)]

    async def _renew(self, http: uvicorn.Config) -> None:
        while True:
            await asyncio.sleep(tls.RELOAD_S)
            if http.ssl is not None:
                break
        look = tls.reloader(self.settings, http.ssl)
        while True:
            look()
            await asyncio.sleep(tls.RELOAD_S)
