"""The embedded schema registry on a real cluster: its clients, its twins, its restarts, its neighbours."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from infra.settings import Settings
from schemas.catalogue import system_topics, task_topics
from schemas.codec import Codec
from schemas.errors import IncompatibleSchema, RegistryUnavailable
from schemas.event import Position, derive
from schemas.registry.client import RegistryClient
from tests.integration.clusters import eventually, fresh_settings

pytestmark = pytest.mark.integration

COUNT = 24


def record(name: str, *fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "registrytest", "fields": list(fields)}


NUMBER = {"name": "n", "type": "int"}
TEXT = {"name": "text", "type": "string", "default": ""}


@contextmanager
def registry_process(cluster: Settings, home: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """One more registry over the same topic: (its URL, what kills it without warning)."""
    home.mkdir(exist_ok=True)
    settings = dataclasses.replace(fresh_settings(home, 1), kafka_bootstrap=cluster.bootstrap)
    with (home / "registry.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "driftlog.services", "registry"],
            env=os.environ | settings.to_env(),
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: answers(f"{settings.registry}/healthz"), 30)
        yield settings.registry, process.kill
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def ids(url: str, prefix: str) -> dict[str, list[tuple[int, int]]]:
    with RegistryClient(url) as client:
        return {
            subject: [(one["version"], one["id"]) for one in client.versions(subject)]
            for subject in client.subjects()
            if subject.startswith(prefix)
        }


def test_events_are_readable_by_whoever_asks_the_registry(
    cluster: Settings, tmp_path: Path
) -> None:
    topics = [*system_topics(), *task_topics("registrytest", {"x": "double"}, ["y"])]
    written = derive(
        "registrytest.predictions",
        "PredictionMade",
        "one",
        time=1_700_000_000_000,
        caused_by=None,
        model_version="registrytest-1",
        score=0.5,
        label=1,
        features={"x": 2.5},
    )
    with RegistryClient(cluster.registry, tmp_path) as client:
        for topic in topics:
            client.schema_id(topic.subject, topic.value_schema)
        value = Codec(client, topics).encode(written)
    with RegistryClient(cluster.registry) as stranger:
        at = Position("elsewhere", 0, 0)
        told = Codec(stranger, []).decode(at, value).data
    assert told == {**written.data, "route": None, "degraded": None}, (
        "what nobody gave has its default"
    )


def test_the_documented_rest_api(cluster: Settings) -> None:
    kind = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    with httpx.Client(base_url=cluster.registry, headers=kind, trust_env=False) as rest:
        path, one = "/subjects/registrytest-rest-value", record("Rest", NUMBER)
        first = rest.post(f"{path}/versions", json={"schema": json.dumps(one)}).json()["id"]
        again = rest.post(f"{path}/versions", json={"schema": json.dumps(one, indent=2)})
        assert again.json() == {"id": first}
        assert json.loads(rest.get(f"/schemas/ids/{first}").json()["schema"]) == one
        found = rest.get(f"{path}/versions/latest").json()
        assert (found["subject"], found["version"], found["id"]) == (path[10:], 1, first)
        broken = {"schema": json.dumps(record("Rest", {"name": "n", "type": "string"}))}
        refused = rest.post(f"{path}/versions", json=broken)
        assert (refused.status_code, refused.json()["error_code"]) == (409, 409)
        assert "field 'n' changed its type from int to string" in refused.json()["message"]
        assert rest.put(f"/config/{path[10:]}", json={"compatibility": "NONE"}).status_code == 200
        assert rest.post(f"{path}/versions", json=broken).json()["id"] > first
        missing = rest.get("/schemas/ids/2000000000")
        assert (missing.status_code, missing.json()["error_code"]) == (404, 40403)


def test_confluents_own_client_and_serializers(cluster: Settings) -> None:
    pytest.importorskip("authlib", reason="confluent-kafka's registry client needs authlib")
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
    from confluent_kafka.schema_registry.error import SchemaRegistryError
    from confluent_kafka.serialization import MessageField, SerializationContext

    theirs = SchemaRegistryClient({"url": cluster.registry})
    topic = "registrytest-confluent"
    context = SerializationContext(topic, MessageField.VALUE)
    old, new = record("Theirs", NUMBER), record("Theirs", NUMBER, TEXT)
    value = AvroSerializer(theirs, json.dumps(old))({"n": 7}, context)
    assert value is not None
    assert AvroDeserializer(theirs, json.dumps(new))(value, context) == {"n": 7, "text": ""}
    newer = AvroSerializer(theirs, json.dumps(new))({"n": 8, "text": "x"}, context)
    assert AvroDeserializer(theirs, json.dumps(old))(newer, context) == {"n": 8}
    assert theirs.get_versions(f"{topic}-value") == [1, 2]
    broken = Schema(json.dumps(record("Theirs", {"name": "m", "type": "int"})), "AVRO")
    assert not theirs.test_compatibility(f"{topic}-value", broken)
    with pytest.raises(SchemaRegistryError) as refused:
        theirs.register_schema(f"{topic}-value", broken)
    assert refused.value.http_status_code == 409
    with RegistryClient(cluster.registry) as ours:
        assert ours.schema_by_id(int.from_bytes(value[1:5], "big")) == old


def test_a_registry_that_is_killed_comes_back_with_the_same_ids(
    cluster: Settings, tmp_path: Path
) -> None:
    with registry_process(cluster, tmp_path / "a") as (url, kill):
        client = RegistryClient(url, tmp_path / "cache")
        for number in range(COUNT):
            field = {"name": f"f{number}", "type": "long"}
            client.schema_id(f"registrytest-kill-{number}", record("Kill", field))
        before = ids(url, "registrytest-kill")
        kill()
        eventually(lambda: not answers(f"{url}/healthz"), 10)
        known = before["registrytest-kill-0"][0][1]
        later = RegistryClient(url, tmp_path / "cache")
        assert later.schema_by_id(known)["name"] == "Kill"  # from the cache on disk
        with pytest.raises(RegistryUnavailable):
            later.schema_by_id(known + 1_000_000)
    assert len({one[0][1] for one in before.values()}) == COUNT
    with registry_process(cluster, tmp_path / "b") as (url, _):
        assert ids(url, "registrytest-kill") == before


def test_two_registries_on_one_topic_agree(cluster: Settings, tmp_path: Path) -> None:
    with registry_process(cluster, tmp_path) as (other, _):
        subjects = [f"registrytest-two-{number}" for number in range(COUNT)]

        def write(url: str, order: list[str], given: dict[str, int]) -> None:
            with RegistryClient(url) as client:
                for subject in order:
                    name = subject.replace("-", "_")
                    while subject not in given:
                        try:
                            given[subject] = client.schema_id(subject, record(name, NUMBER))
                        except RegistryUnavailable:
                            continue  # the other one was first: ask again

        answers_: list[dict[str, int]] = [{}, {}]
        threads = [
            threading.Thread(target=write, args=(cluster.registry, subjects, answers_[0])),
            threading.Thread(target=write, args=(other, subjects[::-1], answers_[1])),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert answers_[0] == answers_[1]
        assert len(set(answers_[0].values())) == COUNT
        eventually(
            lambda: ids(cluster.registry, "registrytest-two") == ids(other, "registrytest-two")
        )
        assert len(ids(other, "registrytest-two")) == COUNT


def test_a_record_as_karapace_writes_it_is_read(cluster: Settings) -> None:
    subject, schema = "registrytest-karapace-value", record("FromKarapace", NUMBER)
    key = f'{{"keytype":"SCHEMA","subject":"{subject}","version":1,"magic":1}}'
    value = {
        "subject": subject,
        "version": 1,
        "id": 1_000_001,
        "schema": json.dumps(schema),
        "deleted": False,
    }
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    producer.produce("_schemas", json.dumps(value).encode(), key.encode())
    producer.produce("_schemas", b"not json at all", b"neither is this")
    assert producer.flush(20) == 0
    with RegistryClient(cluster.registry) as client:
        eventually(lambda: subject in client.subjects(), 20)
        assert client.schema_by_id(1_000_001) == schema
        assert client.schema_id(subject, schema) == 1_000_001
        with pytest.raises(IncompatibleSchema, match="field 'n'"):
            client.schema_id(subject, record("FromKarapace", {"name": "n", "type": "string"}))
        assert client.schema_id(subject, record("FromKarapace", NUMBER, TEXT)) > 1_000_001
