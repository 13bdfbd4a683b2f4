"""Serving in spool mode as a real process: kill -9 under load, and nothing that was answered is missing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from driftlog.services import answers
from infra.settings import Settings
from models.artifacts import ArtifactStore
from schemas.catalogue import predictions_topic, system_topics
from schemas.registry.client import RegistryClient
from streams.log import LogWriter, connect_codec, read
from streams.topics import ensure_topics, register_schemas
from tests.integration.clusters import BROKERS, eventually, pid_of, running
from tests.unit.models.serving_parts import FLIGHTS, flight
from tests.unit.models.test_serving_deployments import promoted, registered

pytestmark = pytest.mark.integration

PREDICT = "/v1/tasks/flights/predict"
TASK_FILE = "from tests.unit.models.serving_parts import FLIGHTS as task\n"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A cluster with the topics, schemas and one champion of FLIGHTS."""
    with running(tmp_path_factory.mktemp("spool"), (*BROKERS, "registry", "redis")) as made:
        topics = [*system_topics(), *FLIGHTS.topics(made.partitions)]
        ensure_topics(made.bootstrap, topics, 3)
        register_schemas(RegistryClient(made.registry, made.home / "schemas"), topics)
        store = ArtifactStore(made.artifacts)
        writer = LogWriter(made.bootstrap, connect_codec(made, [FLIGHTS]))
        writer.append([registered(store, "flights-1", 0.25), promoted("flights-1")])
        yield made


@contextmanager
def serving(settings: Settings, durability: str) -> Iterator[subprocess.Popen[bytes]]:
    """The serving service in a process of its own, ready."""
    file = settings.home / "task.py"
    file.write_text(TASK_FILE)
    argv = [sys.executable, "-m", "driftlog.services", "serving", "--task", str(file)]
    env = os.environ | settings.to_env() | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with (settings.home / "serving.log").open("ab") as log:
        process = subprocess.Popen(
            [*argv, "--durability", durability], env=env, stderr=log, stdout=log
        )
        try:
            eventually(lambda: answers(f"{settings.rest}/readyz"), 90)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)


async def callers(
    settings: Settings, answered: list[str], stop: asyncio.Event, count: int = 8
) -> None:
    """Notes the id of every answered prediction, until `stop` or until nobody answers."""

    async def call(http: httpx.AsyncClient) -> None:
        while not stop.is_set():
            try:
                answer = await http.post(PREDICT, json={"instances": [flight()] * 3})
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                answered.extend(p["event_id"] for p in answer.json()["predictions"])

    async with httpx.AsyncClient(base_url=settings.rest, timeout=30) as http:
        await asyncio.gather(*(call(http) for _ in range(count)))


def logged(settings: Settings) -> list[str]:
    codec = connect_codec(settings, [FLIGHTS])
    return [event.id for event in read(settings.bootstrap, codec, [predictions_topic("flights")])]


async def test_kill_9_under_load_loses_no_answered_prediction(settings: Settings) -> None:
    answered: list[str] = []
    for _ in range(2):
        with serving(settings, "spool") as process:
            before = len(answered)
            calling = asyncio.create_task(callers(settings, answered, asyncio.Event()))
            async with asyncio.timeout(60):
                while len(answered) < before + 600:
                    await asyncio.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            await calling
    with serving(settings, "spool"):  # delivers what they left
        await asyncio.to_thread(eventually, lambda: set(answered) <= set(logged(settings)), 60)
    assert len(answered) == len(set(answered))
    assert list(settings.spool.iterdir()) == []


async def test_spool_goes_on_without_a_quorum_and_delivers_after_it(settings: Settings) -> None:
    answered: list[str] = []
    with serving(settings, "spool"):
        paused = [pid_of(settings, name) for name in BROKERS[1:]]
        stop = asyncio.Event()
        try:
            for pid in paused:
                os.kill(pid, signal.SIGSTOP)
            calling = asyncio.create_task(callers(settings, answered, stop))
            async with asyncio.timeout(60):
                while len(answered) < 300:
                    await asyncio.sleep(0.01)
            stop.set()
            await calling
        finally:
            for pid in paused:
                os.kill(pid, signal.SIGCONT)
        await asyncio.to_thread(eventually, lambda: set(answered) <= set(logged(settings)), 90)


async def test_durable_refuses_at_once_when_the_log_is_known_to_be_away(settings: Settings) -> None:
    from models.serving.eventlog import KafkaLog
    from tests.integration.test_serving import over
    from tests.integration.test_serving import serving as served_by

    log = KafkaLog(settings.bootstrap, connect_codec(settings, [FLIGHTS]))
    await log.connect()
    service = over(log)
    service.deadline_s = 2.0
    body = {"instances": [flight(event_id=str(uuid.uuid4()))]}
    paused = [pid_of(settings, name) for name in BROKERS[1:]]
    async with served_by(service) as http:
        assert (await http.post(PREDICT, json={"instances": [flight()]})).status_code == 200
        try:
            for pid in paused:
                os.kill(pid, signal.SIGSTOP)
            said = []
            async with asyncio.timeout(40):
                while not any("is away" in one for one in said):
                    refused = await http.post(PREDICT, json=body)
                    assert refused.status_code == 503
                    assert int(refused.headers["retry-after"]) > 0
                    said.append(refused.json()["detail"])
        finally:
            for pid in paused:
                os.kill(pid, signal.SIGCONT)
        async with asyncio.timeout(60):
            while (await http.post(PREDICT, json=body)).status_code != 200:
                await asyncio.sleep(0.1)
    await log.close()
    assert {e for e in logged(settings) if e in str(body)} == {body["instances"][0]["event_id"]}
