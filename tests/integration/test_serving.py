"""Serving over a real three-broker log: nothing answered is lost, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from infra import records
from infra.kafka import broker_name, broker_services
from infra.settings import HOST, Settings
from infra.supervisor import Supervisor
from models.artifacts import ArtifactStore
from models.registry import Registry
from models.serving.api import create_app
from models.serving.deployments import Swapper, candidates
from models.serving.eventlog import KafkaLog
from models.serving.follower import Follower
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
from streams.fold import Projector
from streams.log import LogUnavailable, LogWriter, read
from streams.topics import ensure_topics
from tests.unit.models.serving_parts import FLIGHTS, NOW_MS, MemoryStore, codec, flight, service
from tests.unit.models.test_serving_deployments import flip_a_byte, promoted, registered

pytestmark = pytest.mark.integration

PREDICTIONS = predictions_topic("flights")


def eventually(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A running cluster with the topics of FLIGHTS."""
    home = tmp_path_factory.mktemp("serving")
    cache = Path(os.environ.get("DRIFTLOG_CACHE", "~/.cache/driftlog")).expanduser()
    made = Settings(home=home, port_offset=500, cache=cache)
    stop = threading.Event()
    supervisor = Supervisor(made, broker_services(made), lambda *_: None)
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: [r.state for r in brokers(made)] == ["ready"] * 3)
        ensure_topics(made.bootstrap, [*system_topics(), *FLIGHTS.topics(made.partitions)], 3)
        yield made
    finally:
        stop.set()
        thread.join(60)


def brokers(settings: Settings) -> list[records.Record]:
    names = {broker_name(node) for node in (1, 2, 3)}
    return [record for record in records.records(settings) if record.name in names]


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
            answer = await http.post(
                "/v1/tasks/flights/predict", json={"instances": [flight()] * 16}
            )
            statuses.append(answer.status_code)
            answered.extend(p["event_id"] for p in answer.json().get("predictions", []))

    async def answers(count: int) -> None:
        wanted = len(statuses) + count
        while len(statuses) < wanted:
            await asyncio.sleep(0.05)

    async with serving(over(log)) as http:
        callers = [asyncio.create_task(caller(http)) for _ in range(8)]
        await answers(100)
        victim = brokers(settings)[0]
        os.kill(victim.pid, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: restarted(settings, victim))
        await answers(200)
        stop.set()
        await asyncio.gather(*callers)

    assert set(statuses) == {200}
    ids = [event.id for event in logged(settings, schemas, PREDICTIONS)]
    assert len(answered) == len(set(answered))
    assert set(answered) <= set(ids)
    assert len(set(ids)) == len(answered), "an event that nobody was told about"


def restarted(settings: Settings, victim: records.Record) -> bool:
    now = next(record for record in brokers(settings) if record.name == victim.name)
    return now.pid != victim.pid and now.state == "ready"


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
        assert time.monotonic() - began < 3
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
            answer = await http.post(
                "/v1/tasks/flights/predict", json={"instances": [flight()] * 4}
            )
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
