"""What serving does when a part is gone, with real processes in both modes: it answers, or says why, in time.

The parts go one after the other; each test leaves all of them there again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer
from redis.asyncio import Redis

from driftlog.services import answers, member
from infra.chaos import inject
from infra.settings import Settings, serving_port
from models.artifacts import ArtifactStore
from models.serving.service import DEADLINE_S
from schemas.catalogue import DEPLOYMENTS, MODEL_VERSIONS, predictions_topic, system_topics
from schemas.event import Event
from schemas.registry.client import RegistryClient
from streams.log import LogWriter, connect_codec, read
from streams.online import FILLED, store_key
from streams.topics import ensure_topics, register_schemas
from tests.integration.clusters import CLUSTER, eventually, pid_of, ready, running
from tests.unit.models.serving_parts import FLIGHTS, NOW_MS, flight
from tests.unit.models.test_serving_deployments import promoted, registered

pytestmark = pytest.mark.integration

ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[2]), "DRIFTLOG_SERVING_OPEN": "1"}
"""Open: other tests make keys in this log."""
PREDICT = "/v1/tasks/flights/predict"
TASK_FILE = "from tests.unit.models.serving_parts import FLIGHTS as task\n"
SLACK_S = 10.0
"""Beyond a documented deadline: the machine may be busy."""
STARTS_S = 60.0


@dataclass(frozen=True)
class Replica:
    """A serving process."""

    base: str
    process: subprocess.Popen[bytes]
    log: Path

    def predict(self, within_s: float, *ids: str) -> httpx.Response:
        """An answer, whatever it says, within its deadline."""
        instances = [flight(event_id=one) for one in ids or (str(uuid.uuid4()),)]
        timeout = httpx.Timeout(within_s + SLACK_S)
        return httpx.post(self.base + PREDICT, json={"instances": instances}, timeout=timeout)

    def label(self) -> httpx.Response:
        labels = [{"prediction_id": str(uuid.uuid4()), "label": 1}]
        url = f"{self.base}/v1/tasks/flights/labels"
        return httpx.post(url, json={"labels": labels}, timeout=SLACK_S)

    def ready(self) -> bool:
        return answers(f"{self.base}/readyz")

    def version(self) -> str | None:
        models = httpx.get(f"{self.base}/v1/models", timeout=SLACK_S).json()["models"]
        return str(models[0]["model_version"])

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.base}/metrics", timeout=SLACK_S).text
        (line,) = [
            line for line in text.splitlines() if line.startswith(f"driftlog_serving_{name} ")
        ]
        return float(line.split()[-1])


@contextmanager
def starting(settings: Settings, number: int, durability: str) -> Iterator[Replica]:
    """The n-th replica as `driftlog up` starts it; ended on leaving."""
    settings.home.mkdir(exist_ok=True)
    file, log = settings.home / "task.py", settings.home / f"serving-{number}.log"
    file.write_text(TASK_FILE)
    argv = [sys.executable, "-m", "driftlog.services", member("serving", number)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*argv, "--task", str(file), "--durability", durability],
            env=os.environ | settings.to_env() | ENVIRONMENT,
            stdout=out,
            stderr=out,
        )
    try:
        yield Replica(f"http://127.0.0.1:{settings.port(serving_port(number))}", process, log)
    finally:
        process.terminate()
        process.wait(30)


@dataclass(frozen=True)
class World:
    """A cluster and a replica of each mode, both ready. No history runs: nobody here needs it."""

    settings: Settings
    durable: Replica
    spool: Replica
    writer: LogWriter
    store: ArtifactStore

    @property
    def both(self) -> tuple[Replica, Replica]:
        return self.durable, self.spool

    def install(self, number: int) -> str:
        version = f"flights-{number}"
        event = registered(self.store, version, number / 100)
        self.writer.append([event, promoted(version, NOW_MS + number)])
        return version

    def logged(self) -> dict[str, Event]:
        codec = connect_codec(self.settings, [FLIGHTS])
        topics = [predictions_topic("flights")]
        return {event.id: event for event in read(self.settings.bootstrap, codec, topics)}

    def fill(self) -> None:
        """The online store as its writer leaves it, empty of rates."""

        async def write() -> None:
            async with Redis.from_url(self.settings.redis) as redis:
                await redis.set(store_key("flights", FILLED), 1)

        asyncio.run(write())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("degrading"), CLUSTER) as made:
        topics = [*system_topics(), *FLIGHTS.topics(made.partitions)]
        ensure_topics(made.bootstrap, topics, 3)
        register_schemas(RegistryClient(made.registry, made.home / "schemas"), topics)
        writer = LogWriter(made.bootstrap, connect_codec(made, [FLIGHTS]))
        with starting(made, 1, "durable") as one, starting(made, 2, "spool") as two:
            whole = World(made, one, two, writer, ArtifactStore(made.artifacts))
            whole.install(1)
            whole.fill()
            eventually(lambda: one.ready() and two.ready(), STARTS_S)
            yield whole


@contextmanager
def killed(world: World, name: str) -> Iterator[None]:
    """A service that the supervisor leaves down, so that connections are refused."""
    inject(world.settings, "kill", name)
    try:
        yield
    finally:
        inject(world.settings, "restart", name)
        eventually(lambda: ready(world.settings, [name]), STARTS_S)


@contextmanager
def frozen(world: World, names: Sequence[str]) -> Iterator[None]:
    """Processes that take connections and say nothing."""
    pids = [pid_of(world.settings, name) for name in names]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def scores(answer: httpx.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    return [one["score"] for one in answer.json()["predictions"]]


def test_with_everything_there_nothing_is_missing(world: World) -> None:
    """And the history is not missed."""
    assert not answers(f"{world.settings.clickhouse}/ping")
    for replica in world.both:
        answer = replica.predict(DEADLINE_S)
        assert scores(answer) == pytest.approx([0.01])
        assert "warnings" not in answer.json()
    done = subprocess.run(
        [sys.executable, "-m", "driftlog", "query", "SELECT 1"],
        env=os.environ | world.settings.to_env() | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=STARTS_S,
        check=False,
    )
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("how", [killed, frozen])
def test_without_redis_answers_say_what_they_lack(world: World, how: Any) -> None:
    ids = [str(uuid.uuid4()) for _ in world.both]
    with how(world, "redis" if how is killed else ["redis"]):
        for replica, id_ in zip(world.both, ids, strict=True):
            answer = replica.predict(1.0, id_)
            assert scores(answer)
            assert "rates and observations are missing" in answer.json()["warnings"][0]
            assert replica.ready(), "the online store is no condition"
            assert replica.metric("online_store_up") == 0
    world.fill()
    for replica in world.both:
        eventually(lambda one=replica: "warnings" not in one.predict(1.0).json())
    eventually(lambda: set(ids) <= set(world.logged()))
    assert {world.logged()[id_].data["degraded"] for id_ in ids} == {"online_features"}


def test_without_the_schema_registry_serving_and_swaps_go_on(world: World) -> None:
    with killed(world, "registry"):
        version = world.install(2)
        for replica in world.both:
            eventually(lambda one=replica: one.version() == version, 20)
            assert scores(replica.predict(DEADLINE_S)) == pytest.approx([0.02])
            assert replica.label().status_code == 200


def test_it_starts_without_redis_and_registry(world: World) -> None:
    """The schemas are on the disk."""
    with (
        killed(world, "redis"),
        killed(world, "registry"),
        starting(world.settings, 3, "durable") as third,
    ):
        eventually(third.ready, STARTS_S)
        answer = third.predict(1.0)
        assert scores(answer) == pytest.approx([0.02])
        assert answer.json()["warnings"]
    world.fill()


def poison(world: World) -> None:
    """No Avro, a schema id that nobody gave, a record cut short, and no value at all."""
    event = registered(world.store, "flights-cut", 0.5)
    whole = connect_codec(world.settings, [FLIGHTS]).encode(event)
    producer = Producer({"bootstrap.servers": world.settings.bootstrap, "acks": "all"})
    for topic in (MODEL_VERSIONS, DEPLOYMENTS):
        for value in (b"junk", b"\0\0\1\2\3junk", whole[:20], None):
            producer.produce(topic, key=b"flights", value=value)
    assert producer.flush(20) == 0


def test_records_of_models_that_nobody_can_read_are_passed_over(world: World) -> None:
    poison(world)
    version = world.install(3)
    for replica in world.both:
        eventually(lambda one=replica: one.version() == version, 20)
        assert scores(replica.predict(DEADLINE_S)) == pytest.approx([0.03])
        assert "record skipped" in replica.log.read_text()
    # The registration of this one is among them: it changes nothing, also for who starts now.
    world.writer.append([promoted("flights-lost", NOW_MS + 4)])
    with starting(world.settings, 3, "durable") as third:
        eventually(third.ready, STARTS_S)
        assert scores(third.predict(DEADLINE_S)) == pytest.approx([0.03])
    assert {replica.version() for replica in world.both} == {version}


def test_without_a_quorum_one_refuses_in_time_and_the_other_answers(
    world: World, tmp_path: Path
) -> None:
    """And one that starts meanwhile says that it is not ready, until it is."""
    spooled = [str(uuid.uuid4()) for _ in range(5)]
    refused = str(uuid.uuid4())
    home = replace(world.settings, home=tmp_path / "third")
    home.home.mkdir()
    (home.home / "artifacts").symlink_to(world.settings.artifacts)
    with starting(home, 3, "spool") as third:
        with frozen(world, ["broker-2", "broker-3"]):
            for id_ in spooled:
                assert scores(world.spool.predict(1.0, id_)) == pytest.approx([0.03])
            assert world.spool.metric("spool_events") > 0
            answer = world.durable.predict(DEADLINE_S, refused)
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
            assert not world.durable.ready()
            while "is away" not in answer.json()["detail"]:  # its partition is known to be: at once
                answer = world.durable.predict(DEADLINE_S, refused)
                assert answer.status_code == 503
            assert not third.ready()
        for replica in (*world.both, third):
            eventually(replica.ready, STARTS_S)
        eventually(lambda: world.durable.predict(DEADLINE_S, refused).status_code == 200)
        eventually(lambda: scores(third.predict(DEADLINE_S)) == pytest.approx([0.03]))
    eventually(lambda: {*spooled, refused} <= set(world.logged()), STARTS_S)
    eventually(lambda: world.spool.metric("spool_events") == 0)
