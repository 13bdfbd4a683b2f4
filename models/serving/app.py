"""Joins serving to the world: HTTP and gRPC servers, log, online store, registry; stops on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import structlog
import uvicorn
import uvloop
from aiokafka.errors import KafkaError
from fastapi import FastAPI

from infra import garbage
from infra.settings import Settings
from models.artifacts import ArtifactStore
from models.personal.keystore import KeyStore
from models.registry import Registry, before
from models.serving.api import create_app
from models.serving.deployments import Swapper, candidates
from models.serving.drain import DrainingServer
from models.serving.eventlog import KafkaLog
from models.serving.follower import Follower
from models.serving.grpc.server import CannotListen, GrpcServer
from models.serving.guards import tls
from models.serving.guards.access import AccessKeys
from models.serving.guards.audit import Refusals
from models.serving.guards.recall import Recall
from models.serving.guards.settings import GuardSettings
from models.serving.guards.setup import Guards, new_id, now_ms
from models.serving.metrics import Metrics
from models.serving.online import RedisStore
from models.serving.personal import Sealer
from models.serving.service import Service
from models.serving.spooled import SpooledLog
from schemas.catalogue import (
    ACCESS,
    ALERTS,
    DEPLOYMENTS,
    MODEL_VERSIONS,
    ROLLOUT_COMMANDS,
    ROLLOUTS,
    labels_topic,
    predictions_topic,
    shadows_topic,
)
from schemas.codec import Codec
from schemas.errors import SchemaError
from schemas.event import Event
from streams.fold import Projector
from streams.log import connect_codec
from streams.rollout_state import Rollouts, TaskRollouts, traffic
from streams.task import Task

logger = structlog.get_logger()

START_S = 120.0
GRACE_S = 6
"""What is under way at the end may take so long."""
FLUSH_S = 3.0


class CannotStart(Exception):
    """What serving depends on did not come up in time."""


def main(settings: Settings, tasks: Sequence[Task], base_port: int) -> None:
    """Serve `tasks` until SIGTERM; exits with 1 if the log or the registry does not come up in time."""
    raise SystemExit(uvloop.run(_Server(settings, tasks, base_port).run()))


@dataclass
class _Server:
    settings: Settings
    tasks: Sequence[Task]
    base_port: int
    status: int = 0
    service: Service = field(init=False)
    guards: Guards = field(init=False)
    store: RedisStore = field(init=False)
    log: KafkaLog | None = None
    spool: SpooledLog | None = None
    _http: uvicorn.Server = field(init=False)
    _grpc: GrpcServer = field(init=False)

    async def run(self) -> int:
        """The exit status."""
        self.store = RedisStore(self.settings.redis)
        self.service = Service(self.tasks, Metrics(), self.store, now_ms=now_ms, new_id=new_id)
        guarding = GuardSettings.from_env(os.environ)
        self.guards = Guards(self.settings, guarding, self.service.desks, self.service.metrics)
        self.service.lacks = self.guards.lacks
        if any(task.personal for task in self.tasks):
            self._seal_with(Sealer(KeyStore(self.settings.key_store, self.settings.master_key)))
        port = self.settings.port(self.base_port)
        self._grpc = GrpcServer(
            self.service,
            f"{guarding.host}:{port + 1}",
            interceptors=[self.guards.interceptor()],
            credentials=tls.grpc_credentials(guarding),
            options=tls.grpc_options(guarding),
        )
        config = uvicorn.Config(
            create_app(self.service, self._lifespan, self.guards),
            **self.guards.listening(),
            port=port,
            http="httptools",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=30,
        )
        self._http = DrainingServer(
            config,
            self.service.leave,
            self.settings.serving_drain_s,
            beside=partial(self._grpc.stop, GRACE_S),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn takes the signals while it serves, and raises them once more when it is done
            signal.signal(number, lambda *_: None)
        await self._http.serve()
        return self.status if self._http.started else 1

    def _seal_with(self, sealer: Sealer) -> None:
        self.service.sealer = sealer
        self.guards.once.fingerprint = sealer.fingerprint

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        try:
            await self._grpc.start()
        except CannotListen as error:
            logger.error("serving cannot start", reason=str(error))
            raise
        background = asyncio.create_task(self._connect_and_follow())
        background.add_done_callback(self._ended)
        async with self.guards.running(lambda: self.log, self._http.config):
            yield
            await self._grpc.stop(GRACE_S)
        background.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await background
        await self.service.shadows.close()
        if self.spool is not None:
            await self.spool.close(FLUSH_S)
        if self.log is not None:
            await self.log.close(FLUSH_S)
        await self.store.close()
        if self.service.sealer is not None:
            self.service.sealer.close()

    def _ended(self, background: asyncio.Task[None]) -> None:
        """Without its background serving is blind: better to be started again."""
        if background.cancelled():
            return
        logger.error("serving stops", reason=str(background.exception()))
        self.status = 1
        self._http.should_exit = True

    async def _connect_and_follow(self) -> None:
        deadline = time.monotonic() + START_S
        codec = await self._connect(deadline)
        registry, rollouts, access = Registry(), Rollouts(), AccessKeys()
        projector = Projector([registry, rollouts, access])
        self.service.recall = Recall(self.settings.bootstrap, codec)
        store = ArtifactStore(self.settings.artifacts)
        swapper = Swapper(self.service, store, self.settings.serving_cache)

        async def on_news() -> None:
            self.guards.know(projector.states[access.name])
            state, rolled = projector.states[registry.name], projector.states[rollouts.name]
            for name, desk in self.service.desks.items():
                # First who is beside it: the champion that a finished rollout makes is warm then.
                now = traffic(rolled.get(name, TaskRollouts()), desk.task.rollout)
                await swapper.line_up(desk, now, state.versions)
                found = candidates(state, name, waits=desk.champion is not None)
                await swapper.reconcile(desk, found)
                await swapper.stay_warm(desk, before(state, name), state.versions)

        topics = (ACCESS, MODEL_VERSIONS, DEPLOYMENTS, ROLLOUTS, ROLLOUT_COMMANDS)
        await Follower(self.settings.bootstrap, codec, topics, projector, on_news).run()

    async def _connect(self, deadline: float) -> Codec:
        """Codec and log, tried until the deadline; raises CannotStart."""
        wait = 0.2
        while True:
            try:
                codec = await asyncio.to_thread(_warm_codec, self.settings, self.tasks)
                log = KafkaLog(self.settings.bootstrap, codec)
                await log.connect()
            except (SchemaError, KafkaError, OSError, TimeoutError) as error:
                if time.monotonic() + wait > deadline:
                    message = f"the log or its schema registry did not come up: {error!r}"
                    raise CannotStart(message) from error
                logger.info("waiting for the log", reason=str(error) or "timeout")
                await asyncio.sleep(wait)
                wait = min(2 * wait, 5.0)
            else:
                self._use(log, codec)
                return codec

    def _use(self, log: KafkaLog, codec: Codec) -> None:
        """Raises OSError if there is to be a spool and it cannot be written."""
        self.log = self.service.log = log
        self.service.turn = log.turn
        metrics = self.service.metrics
        if self.settings.serving_durability == "spool":
            self.service.log = self._spool(log, codec)
        metrics.producers_replaced.set_function(lambda: log.replaced)
        metrics.log_up.set_function(lambda: log.problem is None)
        metrics.online_store_up.set_function(lambda: self.store.problem is None)
        logger.info("log connected", bootstrap=self.settings.bootstrap)
        garbage.keep_what_lives()

    def _spool(self, log: KafkaLog, codec: Codec) -> SpooledLog:
        settings, metrics = self.settings, self.service.metrics
        limit, fsync = settings.serving_spool_mb * 1024 * 1024, bool(settings.serving_spool_fsync)
        self.spool = spool = SpooledLog(settings.spool, codec, log, limit, fsync)
        spool.start()
        metrics.spool_events.set_function(lambda: spool.depth)
        metrics.spool_bytes.set_function(lambda: spool.bytes)
        metrics.spool_age.set_function(lambda: spool.age_s)
        metrics.spool_refused.set_function(lambda: spool.refused)
        return spool


def _warm_codec(settings: Settings, tasks: Sequence[Task]) -> Codec:
    """A codec that has asked the registry for every schema it writes: no request waits for that."""
    codec = connect_codec(settings, tasks)
    envelope = {"event_id": "", "event_time": 0, "caused_by": None}
    alert = {"task": "", "subject": "", "message": ""}
    codec.encode(Event(ALERTS, "AlertRaised", envelope | alert))
    codec.encode(Refusals("").example())
    for task in tasks:
        features = dict.fromkeys(task.vector)
        made = {"model_version": "", "score": 0.0, "label": 0, "features": features}
        codec.encode(Event(predictions_topic(task.name), "PredictionMade", envelope | made))
        label = {"prediction_id": "", "label": 0}
        codec.encode(Event(labels_topic(task.name), "LabelObserved", envelope | label))
        shadow: dict[str, object] = {
            "prediction_id": "",
            "model_version": "",
            "answered_by": "",
            "reason_id": "",
        }
        shadow |= {"answered_score": 0.0, "score": None, "label": None}
        codec.encode(Event(shadows_topic(task.name), "ShadowPredictionMade", envelope | shadow))
    return codec
