"""A serving replica in a process of its own, which a test can kill: `... PORT BOOTSTRAP REDIS SCORE [WHEN]`.

It serves FLIGHTS with a model whose score is SCORE. With WHEN `logged` it dies, as by kill -9, when the
first request's events are in the log and its answer is not given yet.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import uvicorn

from infra.settings import Settings
from models.serving.api import create_app
from models.serving.eventlog import KafkaLog
from models.serving.guards.access import Access
from models.serving.guards.recall import Recall
from models.serving.guards.settings import GuardSettings
from models.serving.guards.setup import Guards, new_id, now_ms
from models.serving.metrics import Metrics
from models.serving.service import Service
from schemas.catalogue import predictions_topic
from schemas.codec import Codec
from schemas.event import Event
from tests.unit.models.serving_parts import FLIGHTS, NOW_MS, MemoryStore, champion, codec


class Fatal:
    """A log that is the last thing its process sees."""

    def __init__(self, log: KafkaLog) -> None:
        self._log = log
        self.problem = None

    async def append(self, events: Sequence[Event], timeout_s: float) -> None:
        await self._log.append(events, timeout_s)
        os._exit(9)


def warm_codec() -> Codec:
    """The registry in memory numbers schemas as they come: the same one first in every process."""
    made = codec(FLIGHTS)
    features = dict.fromkeys(FLIGHTS.vector)
    said = {"model_version": "", "score": 0.0, "label": 0, "features": features}
    envelope = {"event_id": "", "event_time": NOW_MS, "caused_by": None}
    made.encode(Event(predictions_topic("flights"), "PredictionMade", envelope | said))
    return made


async def main(port: str, bootstrap: str, redis: str, score: str, when: str = "") -> None:
    schemas = warm_codec()
    log = KafkaLog(bootstrap, schemas)
    await log.connect()
    service = Service((FLIGHTS,), Metrics(), MemoryStore(), log, now_ms=now_ms, new_id=new_id)
    service.desks["flights"].champion = champion(f"flights-{score}", float(score))
    service.recall = Recall(bootstrap, schemas)
    if when == "logged":
        service.log = Fatal(log)
    settings = Settings(redis_url=redis)
    guards = Guards(settings, GuardSettings(), service.desks, service.metrics)
    guards.know(Access())
    config = uvicorn.Config(
        create_app(service, guards=guards),
        port=int(port),
        log_level="warning",
        **guards.listening(),
    )
    async with guards.running(lambda: service.log, config):
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
