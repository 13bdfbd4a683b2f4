"""Personal fields through the real services: no byte of them is anywhere, and erasing ends reading."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from redis import Redis
from typer.testing import CliRunner

from driftlog import instance
from driftlog.cli.main import app
from infra.settings import Settings
from models.artifacts import ArtifactStore
from models.history import History
from models.registry_log import RegistryLog
from models.serving.grpc import driftlog_pb2 as pb
from models.serving.grpc import driftlog_pb2_grpc as stubs
from models.snapshots import Snapshots
from models.trainer import Trainer
from models.trainer_metrics import TrainerMetrics
from schemas.catalogue import PRIVACY, predictions_topic
from schemas.codec import Codec
from schemas.registry.client import RegistryClient
from streams.features import FeatureFold
from streams.log import all_topics, connect_codec, read
from streams.outcomes import OutcomeWindows
from streams.quarantine import Quarantine
from streams.replay import Until, ends, rebuild
from streams.task import Task
from streams.task_file import load_task
from streams.topics import ensure_topics, register_schemas
from tests.integration.clusters import eventually

pytestmark = pytest.mark.integration

TASK_FILE = """
from driftlog import Category, Numeric, Personal, Task

task = Task(
    name="visits",
    label="comes back",
    features=(Numeric("minutes"), Category("ward")),
    personal=Personal("patient", ("email", "note")),
)
"""
WHO = {"patient": "PAT-904417-Q", "email": "ada.lovelace@example.org", "note": "asked for Dr. Zyx7"}
VISIT = {"minutes": 12.5, "ward": "ward-plain-77"}
PREDICTIONS = predictions_topic("visits")
WAIT_S = 90.0


def needles() -> list[bytes]:
    """What would give a text away: itself, in other clothes, or a hash that confirms a guess at it."""
    found = []
    for text in WHO.values():
        plain = text.encode()
        digest = hashlib.sha256(plain)
        found += [plain, text.encode("utf-16-le"), base64.b64encode(plain)[:-4]]
        found += [plain.hex().encode(), digest.digest(), digest.hexdigest().encode()]
    return found


@pytest.fixture
def settings(cluster: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of an instance of its own on the cluster that all share."""
    made = dataclasses.replace(cluster, home=tmp_path / "home", serving_durability="spool")
    made.home.mkdir()
    file = tmp_path / "visits.py"
    file.write_text(TASK_FILE, "utf-8")
    instance.remember_tasks(made, [file])
    for name, value in made.to_env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DRIFTLOG_SERVING_OPEN", "1")  # other tests have made keys in this log
    return made


@contextmanager
def services(settings: Settings, file: Path, *names: str) -> Iterator[None]:
    """As `driftlog up` starts them, their output in the instance's logs."""
    settings.logs.mkdir(exist_ok=True)
    started = []
    for name in names:
        command = [sys.executable, "-m", "driftlog.services", name, "--task", str(file)]
        with (settings.logs / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(command, env={**os.environ}, stdout=output, stderr=output)
            started.append(process)
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def cold_start(settings: Settings, task: Task, codec: Codec) -> None:
    """Topics, schemas, and the model that answers before there is one."""
    topics = all_topics(settings, [task])
    ensure_topics(settings.bootstrap, topics, settings.replication)
    register_schemas(RegistryClient(settings.registry, settings.home / "schemas"), topics)
    log = RegistryLog(settings.bootstrap, codec, threading.Event(), [Quarantine(task)])
    store, metrics = ArtifactStore(settings.artifacts), TrainerMetrics()
    snapshots = Snapshots(History(settings.clickhouse), store)
    Trainer([task], log, snapshots, store, metrics, threading.Event()).start()
    log.close()


def ready(settings: Settings) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{settings.rest}/readyz", timeout=20).status_code == 200
    return False


def driftlog(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def post(settings: Settings, event_id: str, **headers: str) -> dict[str, Any]:
    body = {"instances": [{**VISIT, **WHO, "event_id": event_id}]}
    url = f"{settings.rest}/v1/tasks/visits/predict"
    answer = httpx.post(url, json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def call(settings: Settings, event_id: str) -> None:
    given = {name: pb.Value(text=text) for name, text in {**WHO, "ward": VISIT["ward"]}.items()}
    given["minutes"] = pb.Value(number=VISIT["minutes"])
    request = pb.PredictRequest(instances=[pb.Instance(features=given, event_id=event_id)])
    with grpc.insecure_channel(settings.grpc) as channel:
        stubs.DriftlogStub(channel).Predict(request, timeout=60)


def raw_log(settings: Settings) -> bytes:
    """Keys, values and headers of every record of every topic, read without a line of driftlog."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap,
            "group.id": "test-personal-stranger",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    topics = consumer.list_topics(timeout=20).topics
    places = [
        TopicPartition(name, number, OFFSET_BEGINNING)
        for name, about in topics.items()
        for number in about.partitions
    ]
    consumer.assign(places)
    found, open_ = [], {(place.topic, place.partition) for place in places}
    while open_:
        for message in consumer.consume(500, timeout=0.2):
            if message.error():
                open_.discard((message.topic(), message.partition()))
                continue
            found += [message.key() or b"", message.value() or b""]
            found += [value or b"" for _, value in message.headers() or ()]
    consumer.close()
    return b"\n".join(found)


def raw_redis(settings: Settings) -> bytes:
    with Redis.from_url(settings.redis) as redis:
        found = []
        for key in redis.scan_iter():
            kind = redis.type(key)
            content = redis.hgetall(key) if kind == b"hash" else redis.dump(key)
            pairs = [*content, *content.values()] if isinstance(content, dict) else [content]
            found += [key, *(one for one in pairs if one)]
        return b"\n".join(found)


def raw_files(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def raw_history(settings: Settings) -> bytes:
    """Every column of the predictions, as ClickHouse says them (its files are compressed)."""
    history = History(settings.clickhouse)
    try:
        rows = history.query("SELECT * FROM driftlog.visits_predictions").to_pylist()
    finally:
        history.close()
    return json.dumps(rows, default=repr).encode()


def test_no_byte_of_a_person_is_anywhere_and_erasing_leaves_nothing_to_read(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "visits.py"
    task = load_task(file)
    codec = connect_codec(settings, [task])
    cold_start(settings, task, codec)
    with services(settings, file, "history", "serving"):
        eventually(lambda: ready(settings), WAIT_S)
        first = post(settings, "visit-rest", **{"Idempotency-Key": "once"})
        assert post(settings, "visit-rest", **{"Idempotency-Key": "once"}) == first
        call(settings, "visit-grpc")

        def logged() -> list[dict[str, Any]]:
            return [dict(event.data) for event in read(settings.bootstrap, codec, [PREDICTIONS])]

        eventually(lambda: len(logged()) == 2, WAIT_S)  # the spool delivers
        made = logged()
        assert len({one["person"] for one in made}) == 1
        assert len({one["personal_email"] for one in made}) == 2
        person = made[0]["person"]

        def stored() -> bytes:
            with suppress(Exception):  # the history makes its tables when it starts
                return raw_history(settings)
            return b""

        eventually(lambda: stored().count(person.encode()) == 2, WAIT_S)
        told = driftlog("reveal", "visit-grpc", "--reason", "a test", "--json")
        assert json.loads(told)["fields"] == WHO
        assert "[encrypted]" in driftlog("why", "visit-rest")
        folds = [FeatureFold(task, settings.partitions), OutcomeWindows(task, settings.partitions)]
        to: Until = ends(settings.bootstrap, [topic.name for topic in task.topics()])
        before = rebuild(settings.bootstrap, codec, folds, to=to)

        words = ("erase", WHO["patient"], "--task", "visits", "--reason", "asked to", "--yes")
        erased = json.loads(driftlog(*words, "--json"))
        assert (erased["state"], erased["events"][0]["person"]) == ("destroyed", person)
        assert json.loads(driftlog(*words, "--json"))["state"] == "before"
        assert driftlog("reveal", "visit-rest", "--reason", "a test").count("[erased]") == 3
        assert "[encrypted]" in driftlog("why", "visit-grpc")
        after = rebuild(settings.bootstrap, codec, folds, to=to)
        assert [after.fingerprint(fold.name) for fold in folds] == [
            before.fingerprint(fold.name) for fold in folds
        ]
        said = [event.type for event in read(settings.bootstrap, codec, [PRIVACY])]
        assert said == ["PersonalDataRevealed", "SubjectErased"]

        post(settings, "visit-again")
        eventually(lambda: len(logged()) == 3, WAIT_S)
        assert {one["person"] for one in logged()} > {person}, "who comes back is somebody new"
        log, files = raw_log(settings), raw_files(settings.home)
        redis, history = raw_redis(settings), raw_history(settings)
    assert b"ward-plain-77" in log and b"ward-plain-77" in files and b"visit-rest" in redis
    assert b"ward-plain-77" in history and person.encode() in log
    for needle in needles():
        for name, place in {"log": log, "files": files, "redis": redis, "history": history}.items():
            assert needle not in place, (needle, name)
