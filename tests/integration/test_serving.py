"""Serving over a real three-broker log: nothing answered is lost, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from redis.asyncio import Redis

from infra import records
from infra.settings import HOST, Settings
from models.artifacts import ArtifactStore
from models.registry import Registry
from models.serving.api import create_app
from models.serving.deployments import Swapper, candidates
from models.serving.eventlog import KafkaLog
from models.serving.follower import Follower
from models.serving.online import RedisStore
from models.serving.service import Service
from schemas.catalogue import (
    ALERTS,
    DEPLOYMENTS,
    MODEL_VERSIONS,
    labels_topic,
    predictions_topic,
    system_topics,
)
from schemas.codec import Codec
from schemas.event import Event
from streams.features import Blob
from streams.fold import Projector
from streams.log import LogUnavailable, LogWriter, read
from streams.online import FILLED, store_key
from streams.topics import ensure_topics
from tests.integration.clusters import BROKERS, eventually, pid_of, running
from tests.unit.models.serving_parts import FLIGHTS, NOW_MS, MemoryStore, codec, flight, service
from tests.unit.models.test_serving_deployments import flip_a_byte, promoted, registered

pytestmark = pytest.mark.integration

PREDICTIONS = predictions_topic("flights")
PREDICT = "/v1/tasks/flights/predict"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A cluster of its own, since brokers die here, with the topics of FLIGHTS."""
    with running(tmp_path_factory.mktemp("serving"), (*BROKERS, "redis")) as made:
        ensure_topics(made.bootstrap, [*system_topics(), *FLIGHTS.topics(made.partitions)], 3)
        yield made


@pytest.fixture
def schemas() -> Codec:
    return codec(FLIGHTS)


@pytest.fixture
async def log(settings: Settings, schemas: Codec) -> AsyncIterator[KafkaLog]:
    made = KafkaLog(settings.bootstrap, schemas)
    await made.connect()
    yield made
    await made.close()


@asynccontextmanager
async def serving(served: Service) -> AsyncIterator[httpx.AsyncClient]:
    """The service behind a real socket."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(create_app(served), host=HOST, port=port, log_level="warning")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    limits = httpx.Limits(max_connections=32)
    async with httpx.AsyncClient(
        base_url=f"http://{HOST}:{port}", timeout=40, limits=limits
    ) as http:
        yield http
    server.should_exit = True
    await running


def over(log: KafkaLog) -> Service:
    made = service(store=MemoryStore())
    made.log = log
    return made


def logged(settings: Settings, schemas: Codec, topic: str) -> list[Event]:
    return list(read(settings.bootstrap, schemas, [topic]))


async def test_a_killed_broker_costs_no_request(
    settings: Settings, schemas: Codec, log: KafkaLog
) -> None:
    answered: list[str] = []
    statuses: list[int] = []
    stop = asyncio.Event()

    async def caller(http: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answer = await http.post(PREDICT, json={"instances": [flight()] * 16})
            statuses.append(answer.status_code)
            answered.extend(p["event_id"] for p in answer.json().get("predictions", []))

    async def answers(count: int) -> None:
        wanted = len(statuses) + count
        while len(statuses) < wanted:
            await asyncio.sleep(0.05)

    async with serving(over(log)) as http:
        callers = [asyncio.create_task(caller(http)) for _ in range(8)]
        await answers(100)
        victim = pid_of(settings, BROKERS[0])
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: restarted(settings, BROKERS[0], victim))
        await answers(200)
        stop.set()
        await asyncio.gather(*callers)

    assert set(statuses) == {200}
    ids = [event.id for event in logged(settings, schemas, PREDICTIONS)]
    assert len(answered) == len(set(answered))
    assert set(answered) <= set(ids)
    assert len(set(ids)) == len(answered), "an event that nobody was told about"


def restarted(settings: Settings, name: str, victim: int) -> bool:
    record = records.read_record(settings, name)
    return record is not None and record.pid != victim and record.state == "ready"


async def test_without_a_quorum_requests_are_refused_until_it_is_back(
    settings: Settings, schemas: Codec, log: KafkaLog
) -> None:
    served = over(log)
    served.deadline_s = 3.0
    request = {"instances": [flight(event_id=str(uuid.uuid4()))]}
    async with serving(served) as http:
        assert (await http.post(PREDICT, json={"instances": [flight()]})).status_code == 200
        paused = [pid_of(settings, name) for name in BROKERS[1:]]
        try:
            for pid in paused:
                os.kill(pid, signal.SIGSTOP)
            refused = await http.post(PREDICT, json=request)
            ready = await http.get("/readyz")
        finally:
            for pid in paused:
                os.kill(pid, signal.SIGCONT)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "not acknowledged" in refused.json()["detail"]
        assert (ready.status_code, served.models()[0]["model_version"]) == (503, "flights-1")
        async with asyncio.timeout(60):
            while (await http.post(PREDICT, json=request)).status_code != 200:
                pass
        assert (await http.get("/readyz")).status_code == 200
    logged_again = [e for e in logged(settings, schemas, PREDICTIONS) if e.id in str(request)]
    assert {(e.id, e.data["score"]) for e in logged_again} == {
        (request["instances"][0]["event_id"], logged_again[0].data["score"])
    }


async def test_an_online_store_that_dies_is_noticed_and_so_is_its_return(
    settings: Settings,
) -> None:
    store, key = RedisStore(settings.redis), "rate||"

    async def fill() -> None:
        async with Redis.from_url(settings.redis) as redis:
            await redis.set(store_key("flights", key), b"[[0,4,1]]")
            await redis.set(store_key("flights", FILLED), 1)

    async def found() -> Blob | None:
        blobs = await store.blobs("flights", [key])
        return blobs(key) if blobs else None

    assert await found() is None
    assert "not filled" in str(store.problem)
    await fill()
    assert await found() == [[0, 4, 1]]
    assert store.problem is None
    victim = pid_of(settings, "redis")
    os.kill(victim, signal.SIGKILL)
    assert await found() is None
    assert "not answer" in str(store.problem)
    await asyncio.to_thread(eventually, lambda: restarted(settings, "redis", victim))
    await fill()
    async with asyncio.timeout(20):
        while await found() != [[0, 4, 1]]:
            await asyncio.sleep(0.05)
    assert store.problem is None
    await store.close()


async def test_a_producer_beyond_repair_is_replaced_and_its_events_sent_again(
    settings: Settings, schemas: Codec, log: KafkaLog
) -> None:
    served = over(log)
    await served.predict("flights", {"instances": [flight()] * 8})
    broken = log._producer
    assert broken is not None
    for partition in range(settings.partitions):  # a gap in its sequence: OutOfOrderSequenceNumber
        from aiokafka import TopicPartition

        tp = TopicPartition(PREDICTIONS, partition)
        broken._txn_manager.increment_sequence_number(tp, 1_000)
    answer = await served.predict("flights", {"instances": [flight()] * 64})
    assert log.replaced >= 1
    ids = [event.id for event in logged(settings, schemas, PREDICTIONS)]
    assert {p["event_id"] for p in answer["predictions"]} <= set(ids)


async def test_a_caller_that_gives_up_takes_nobody_with_it(
    settings: Settings, schemas: Codec, log: KafkaLog
) -> None:
    served = over(log)
    mine, other = ([flight(event_id=str(uuid.uuid4()))] for _ in range(2))
    leaving = asyncio.create_task(served.predict("flights", {"instances": mine}))
    staying = asyncio.create_task(served.predict("flights", {"instances": other}))
    await asyncio.sleep(0)
    leaving.cancel()
    answer = await staying
    ids = {event.id for event in logged(settings, schemas, PREDICTIONS)}
    assert answer["predictions"][0]["event_id"] == other[0]["event_id"] in ids


async def test_a_log_that_does_not_answer_is_unavailable_at_the_deadline(schemas: Codec) -> None:
    with socket.socket() as silent:  # accepts connections and never says a word
        silent.bind((HOST, 0))
        silent.listen()
        log = KafkaLog(f"{HOST}:{silent.getsockname()[1]}", schemas)
        began = time.monotonic()
        served = service()
        served.log, served.deadline_s = log, 0.5
        with pytest.raises(LogUnavailable):
            await served.predict("flights", {"instances": [flight()]})
        assert time.monotonic() - began < 20
        assert log.problem is not None
        await log.close(0.1)


async def test_labels_land_in_their_topic(
    settings: Settings, schemas: Codec, log: KafkaLog
) -> None:
    labels = [{"prediction_id": str(n), "label": n % 2} for n in range(50)]
    answer = await over(log).label("flights", {"labels": labels})
    ids = [event.id for event in logged(settings, schemas, labels_topic("flights"))]
    assert sorted(ids) == sorted(answer["event_ids"])


async def test_champions_are_swapped_under_load_without_a_failed_request(
    settings: Settings, schemas: Codec, log: KafkaLog, tmp_path: Path
) -> None:
    served = over(log)
    served.desks["flights"].champion = None
    store, registry = ArtifactStore(tmp_path), Registry()
    projector = Projector([registry])
    swapper = Swapper(served, store)

    async def on_news() -> None:
        state = projector.states[registry.name]
        await swapper.reconcile(served.desks["flights"], candidates(state, "flights"))

    topics = (MODEL_VERSIONS, DEPLOYMENTS)
    follower = Follower(settings.bootstrap, schemas, topics, projector, on_news)
    following = asyncio.create_task(follower.run())
    writer = LogWriter(settings.bootstrap, schemas)
    seen: list[tuple[str, set[float]]] = []
    stop = asyncio.Event()

    async def caller(http: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answer = await http.post(PREDICT, json={"instances": [flight()] * 4})
            body: dict[str, Any] = answer.json()
            assert answer.status_code == 200, body
            seen.append((body["model_version"], {p["score"] for p in body["predictions"]}))

    async def install(number: int) -> str:
        event = registered(store, f"flights-{number}", number / 16)
        if number % 5 == 3:
            flip_a_byte(store.path(event.data["path"]))
        decision = promoted(f"flights-{number}", NOW_MS + number)
        await asyncio.to_thread(writer.append, [event, decision])
        while decision.id not in swapper.refused and (
            served.models()[0]["model_version"] != f"flights-{number}"
        ):
            await asyncio.sleep(0.01)
        return str(served.models()[0]["model_version"])

    async with serving(served) as http, asyncio.timeout(60):
        assert await install(1) == "flights-1"
        callers = [asyncio.create_task(caller(http)) for _ in range(4)]
        installed = [await install(number) for number in range(2, 9)]
        stop.set()
        await asyncio.gather(*callers)
    following.cancel()
    await swapper.settle()

    assert installed == [f"flights-{n}" for n in (2, 2, 4, 5, 6, 7, 7)]
    for version, scores in seen:  # no answer mixes versions
        assert scores == {int(version.rpartition("-")[2]) / 16}
    alerts = [e.type for e in logged(settings, schemas, ALERTS)]
    assert sorted(alerts) == ["AlertRaised"] * 2 + ["AlertResolved"]
