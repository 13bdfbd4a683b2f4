"""The guards with what they share: Redis, the log, and replicas that die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from infra.redis import find_redis_server, redis_ready
from infra.settings import HOST, Settings
from models.serving.guards.limits import Limit, LocalBuckets, SharedBuckets
from models.serving.guards.once import BUSY, KNOWN, MINE, OTHER, Once
from models.serving.guards.shared import RedisScripts
from schemas.catalogue import AUDIT, predictions_topic, system_topics
from schemas.registry.client import RegistryClient
from streams.log import connect_codec, read
from streams.topics import ensure_topics, register_schemas
from tests.integration.clusters import eventually
from tests.integration.guarded_replica import warm_codec
from tests.unit.models.serving_parts import FLIGHTS, flight

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PREDICT = "/v1/tasks/flights/predict"
ASK = {"instances": [flight(), flight(distance=10.0)]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_server(folder: Path, port: int, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    options = ("--port", str(port), "--bind", HOST, "--save", "", "--dir", str(folder), *more)
    server = subprocess.Popen([str(find_redis_server()), *options], stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: redis_ready(port), 20)
        yield server
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    with redis_server(tmp_path, port):
        yield f"redis://{HOST}:{port}/0"


@pytest.fixture
async def scripts(redis_url: str) -> AsyncIterator[RedisScripts]:
    made = RedisScripts(redis_url)
    yield made
    await made.close()


async def test_replicas_share_a_bucket_to_the_token(redis_url: str, scripts: RedisScripts) -> None:
    other = RedisScripts(redis_url)
    limit = Limit.of(rate=0.01, burst=25)
    both = [SharedBuckets(scripts), SharedBuckets(other)]
    asked = [both[n % 2].take("ann", limit) for n in range(60)]
    granted = [taken.granted for taken in await asyncio.gather(*asked)]
    assert sum(granted) == 25
    refused = await both[0].take("ann", limit)
    assert not refused.granted and 0 < refused.wait_s <= 100
    assert (await both[1].take("bob", limit)).granted
    await other.close()


async def test_the_script_counts_as_the_function_does(scripts: RedisScripts) -> None:
    local, shared = LocalBuckets(), SharedBuckets(scripts)
    limit = Limit.of(rate=1e-6, burst=3)
    for _ in range(5):
        mine, theirs = await local.take("a", limit), await shared.take("a", limit)
        assert (mine.granted, round(mine.left, 3)) == (theirs.granted, round(theirs.left, 3))


async def test_without_redis_each_replica_counts_for_itself_and_says_so_once(
    tmp_path: Path,
) -> None:
    port = free_port()
    clock = 0.0
    scripts = RedisScripts(f"redis://{HOST}:{port}/0", lambda: clock)
    buckets = SharedBuckets(scripts)
    limit = Limit.of(rate=1e-6, burst=2)
    with capture_logs() as said:
        for _ in range(3):
            granted = [(await buckets.take("a", limit)).granted for _ in range(3)]
            clock += 10
        with redis_server(tmp_path, port):
            back = await buckets.take("a", limit)
            clock += 10
    assert granted == [False] * 3 and back.granted
    assert [line["log_level"] for line in said] == ["warning", "info"]
    await scripts.close()


async def test_an_answer_of_one_replica_is_known_to_the_other(
    redis_url: str, scripts: RedisScripts
) -> None:
    other = RedisScripts(redis_url)
    one, two = Once("one", scripts, patience_s=0), Once("two", other, patience_s=0)
    await one.beat_once()
    assert (await one.begin("k", b"body", 5)).state == MINE
    assert (await two.begin("k", b"body", 9)).state == BUSY
    assert (await two.begin("k", b"else", 9)).state == OTHER
    await one.keep("k", b"answer")
    known = await two.begin("k", b"body", 9)
    assert (known.state, known.since, known.answer) == (KNOWN, 5, b"answer")
    assert (await Once("three", other).begin("k", b"body", 9)).answer == b"answer"
    await one.begin("gone", b"body", 1)
    await one.release("gone", forget=True)
    assert (await two.begin("gone", b"other", 2)).state == MINE
    await other.close()


async def test_the_claim_of_a_dead_replica_is_taken_over_with_its_time(
    redis_url: str, scripts: RedisScripts
) -> None:
    other = RedisScripts(redis_url)
    dead, two = Once("dead", scripts), Once("two", other, patience_s=0)
    await dead.begin("k", b"body", 5)  # and never says that it lives
    taken = await two.begin("k", b"body", 9)
    assert (taken.state, taken.since, taken.again) == (MINE, 5, True)
    failed = Once("failed", scripts, patience_s=0)
    await failed.beat_once()
    await failed.begin("f", b"body", 7)
    await failed.release("f", forget=False)  # unclear whether it is in the log
    again = await two.begin("f", b"body", 9)
    assert (again.state, again.since, again.again) == (MINE, 7, True)
    await other.close()


async def test_a_redis_that_is_full_takes_no_more_answers(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(tmp_path, port, "--maxmemory", "1mb"):
        scripts = RedisScripts(f"redis://{HOST}:{port}/0")
        once = Once("one", scripts)
        with capture_logs() as said:
            await once.beat_once()
        assert once.full and said[0]["maxmemory"] == 1024 * 1024
        assert (await once.begin("k", b"body", 5)).state == MINE
        await once.keep("k", b"answer")
        assert (await Once("two", scripts).begin("k", b"body", 9)).state == MINE
        assert (await once.begin("k", b"body", 9)).answer == b"answer"
        await scripts.close()


@contextmanager
def replica(
    settings: Settings, score: float, when: str = "", redis: str = ""
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    redis = redis or settings.redis
    words = (str(port), settings.bootstrap, redis, str(score), when)
    command = [sys.executable, "-m", "tests.integration.guarded_replica", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=env)
    url = f"http://{HOST}:{port}"

    def up() -> bool:
        assert process.poll() is None, "the replica did not start"
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/healthz").status_code == 200
        return False

    try:
        eventually(up, 60)
        yield url, process
    finally:
        process.kill()
        process.wait()


def post(url: str, key: str) -> dict[str, Any]:
    answer = httpx.post(url + PREDICT, json=ASK, headers={"Idempotency-Key": key}, timeout=40)
    while answer.status_code == 409:
        answer = httpx.post(url + PREDICT, json=ASK, headers={"Idempotency-Key": key}, timeout=40)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def logged(settings: Settings, ids: list[str]) -> list[tuple[str, float]]:
    found = read(settings.bootstrap, warm_codec(), [predictions_topic("flights")])
    return [(event.id, event.data["score"]) for event in found if event.id in ids]


def test_a_killed_replica_s_answer_is_given_by_the_other(cluster: Settings) -> None:
    """Killed between the log and the answer; the other has another model and says the same."""
    ensure_topics(cluster.bootstrap, FLIGHTS.topics(cluster.partitions), 3)
    with replica(cluster, 0.1, "logged") as (dying, process), replica(cluster, 0.7) as (other, _):
        with pytest.raises(httpx.TransportError):
            post(dying, "killed-1")
        assert process.wait(20) == 9
        first = post(other, "killed-1")
        again = post(other, "killed-1")
    assert first == again
    scores = [round(one["score"], 3) for one in first["predictions"]]
    assert scores == [0.209, 0.101], "the answer of the model that was in service then"
    ids = [one["event_id"] for one in first["predictions"]]
    found = logged(cluster, ids)
    assert {event_id for event_id, _ in found} == set(ids)
    assert len({(event_id, round(score, 6)) for event_id, score in found}) == 2


def test_a_restarted_replica_answers_as_before_and_without_redis_with_the_same_ids(
    cluster: Settings,
) -> None:
    ensure_topics(cluster.bootstrap, FLIGHTS.topics(cluster.partitions), 3)
    with replica(cluster, 0.2) as (url, process):
        first = post(url, "restart-1")
        os.kill(process.pid, signal.SIGKILL)
    with replica(cluster, 0.6) as (url, _):
        assert post(url, "restart-1") == first
    nowhere = f"redis://{HOST}:{free_port()}/0"
    with replica(cluster, 0.2, redis=nowhere) as (url, _):
        alone = post(url, "restart-1")
    mine = [one["event_id"] for one in first["predictions"]]
    assert [one["event_id"] for one in alone["predictions"]] == mine
    assert set(logged(cluster, mine)) == {
        (one["event_id"], one["score"]) for one in first["predictions"]
    }


def test_keys_take_effect_while_the_service_runs(cluster: Settings) -> None:
    """The real service: open on loopback, closed by the first key, and a revoked key is refused."""
    register_schemas(RegistryClient(cluster.registry, cluster.home / "schemas"), system_topics())
    schemas = connect_codec(cluster)
    env = {**os.environ, **cluster.to_env(), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "driftlog.services", "serving"]
    url = f"http://{HOST}:{cluster.port(18000)}/metrics"

    def status(key: str = "") -> int:
        with suppress(httpx.HTTPError):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return httpx.get(url, headers=headers).status_code
        return 0

    def driftlog(*words: str) -> list[dict[str, Any]]:
        told = [sys.executable, "-m", "driftlog", "keys", *words, "--json"]
        done = subprocess.run(told, check=True, env=env, cwd=ROOT, capture_output=True, text=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    public = {**env, "DRIFTLOG_SERVING_HOST": "0.0.0.0"}
    refused = subprocess.run(
        command, check=False, env=public, cwd=ROOT, capture_output=True, text=True, timeout=90
    )
    assert refused.returncode == 1
    assert "driftlog keys create" in refused.stdout + refused.stderr

    with subprocess.Popen(command, env=env, cwd=ROOT) as serving:
        try:
            eventually(lambda: status() == 200, 60)
            (made,) = driftlog("create", "--name", "scraper", "--scope", "*:read")
            eventually(lambda: status() == 401, 30)
            eventually(lambda: status(made["key"]) == 200, 30)
            driftlog("revoke", "scraper", "--reason", "leaked")
            eventually(lambda: status(made["key"]) == 401, 30)
            assert [row["state"] for row in driftlog("list", "--all")] == ["revoked_key"]
        finally:
            serving.terminate()
        assert serving.wait(30) == 0
    audit = [event.data for event in read(cluster.bootstrap, schemas, [AUDIT])]
    assert {data["cause"] for data in audit} >= {"no_key", "revoked_key"}
    assert "scraper" in {data["caller"] for data in audit}
