from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from schemas.errors import (
    IncompatibleSchema,
    InvalidSchemaText,
    RegistryUnavailable,
    UnknownSchema,
)
from schemas.registry import client as registry_client
from schemas.registry.client import TRIES, RegistryClient
from tests.unit.schemas.build import bomb, field, record
from tests.unit.schemas.serving import Served

ONE = record(field("a", "int"))
TWO = record(field("a", "int"), field("b", "string", default=""))
BROKEN = record(field("a", "string"))
DOWN = (503, {"error_code": 50001, "message": "no Kafka"})


def test_ids_and_schemas_are_asked_for_once(served: Served) -> None:
    with RegistryClient(served.url) as client:
        first = client.schema_id("one-value", ONE)
        assert [client.schema_id("one-value", ONE), client.schema_by_id(first)] == [first, ONE]
        assert len(served.requests) == 1
    with RegistryClient(served.url) as other:
        assert [other.schema_by_id(first) for _ in range(3)] == [ONE] * 3
        assert len(served.requests) == 2


def test_what_is_registered_is_listed(served: Served) -> None:
    with RegistryClient(served.url) as client:
        client.schema_id("a b%+-value", ONE)
        second = client.schema_id("a b%+-value", TWO)
        assert client.subjects() == ["a b%+-value"]
        found = client.versions("a b%+-value")
        assert [one["version"] for one in found] == [1, 2]
        assert (found[1]["id"], found[1]["schema"]) == (second, TWO)
        assert client.versions("other") == []
        assert client.level("a b%+-value") == "FULL_TRANSITIVE"
        assert client.look_up("a b%+-value", TWO) == second
        assert client.look_up("a b%+-value", BROKEN) is None
        assert client.look_up("other", ONE) is None


def test_refusals_say_why(served: Served) -> None:
    with RegistryClient(served.url) as client:
        client.schema_id("s", ONE)
        with pytest.raises(IncompatibleSchema, match=r"'s'.*field 'a' changed its type"):
            client.schema_id("s", BROKEN)
        with pytest.raises(InvalidSchemaText, match="contains itself"):
            client.schema_id("t", bomb())
        assert client.compatible("s", TWO) == []
        assert client.compatible("new", BROKEN) == []
        assert "field 'a'" in client.compatible("s", BROKEN)[0]
        assert "contains itself" in client.compatible("s", bomb())[0]


def test_an_unknown_id_is_knowledge_and_is_confirmed(served: Served) -> None:
    with RegistryClient(served.url) as client:
        for _ in range(3):
            with pytest.raises(UnknownSchema, match="77"):
                client.schema_by_id(77)
    assert len(served.requests) == 2  # asked, confirmed, then remembered for a while


def test_a_first_404_is_not_believed(served: Served) -> None:
    with RegistryClient(served.url) as client:
        known = RegistryClient(served.url).schema_id("s", ONE)
        served.answers = [(404, {"error_code": 40403, "message": "Schema not found"})]
        assert client.schema_by_id(known) == ONE


@pytest.mark.parametrize(
    "answers",
    [
        [DOWN] * TRIES,
        [(500, b"<html>")] * TRIES,
        [(404, b"not a registry")],
        [(404, {"error_code": 404, "message": "HTTP 404 Not Found"})],
        [(200, b"hello")],
        [(401, {"message": "who are you"})],
    ],
)
def test_anything_else_is_no_knowledge(served: Served, answers: list[tuple[int, object]]) -> None:
    with RegistryClient(served.url) as client:
        for ask in (lambda: client.schema_by_id(1), lambda: client.schema_id("s", ONE)):
            served.answers = list(answers)
            with pytest.raises(RegistryUnavailable, match=served.url):
                ask()
            assert served.answers == []
        assert client.schema_id("s", ONE) == 1  # and nothing was remembered of it


def test_a_short_failure_is_not_noticed(served: Served) -> None:
    served.answers = [DOWN, (429, {}), DOWN]
    with RegistryClient(served.url) as client:
        assert client.schema_id("s", ONE) == 1


def test_a_registry_that_hangs_is_waited_for_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # takes connections, never answers
        url = f"http://127.0.0.1:{hangs.getsockname()[1]}"
        client = RegistryClient(url, tmp_path, timeout_s=0.2)
        with client, pytest.raises(RegistryUnavailable, match="is it up"):
            client.schema_id("s", ONE)
        hangs.settimeout(5)
        hangs.accept()[0].close()
        hangs.settimeout(0)
        with pytest.raises(BlockingIOError):
            hangs.accept()


def test_the_cache_bridges_a_registry_that_is_down(served: Served, tmp_path: Path) -> None:
    with RegistryClient(served.url, tmp_path) as client:
        known = client.schema_id("s", ONE)
    with RegistryClient(served.url, tmp_path) as later:
        served.answers = [DOWN] * 3 * TRIES
        assert later.schema_by_id(known) == ONE
        assert later.schema_id("s", ONE) == known
        with pytest.raises(RegistryUnavailable):
            later.schema_id("s", TWO)
    stranger = RegistryClient("http://127.0.0.1:9", tmp_path)
    with pytest.raises(RegistryUnavailable, match="is it up"):
        stranger.schema_by_id(known)  # another registry's ids mean nothing


def test_a_registry_that_was_silent_is_not_asked_for_what_the_disk_knows(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RegistryClient(served.url, tmp_path) as client:
        known = [client.schema_id(f"{name}-value", ONE) for name in "abc"]
    before = len(served.requests)
    with RegistryClient(served.url, tmp_path) as later:
        served.answers = [DOWN] * TRIES
        assert [later.schema_id(f"{name}-value", ONE) for name in "abc"] == known
        assert len(served.requests) == before + TRIES
        assert later.schema_id("new-value", TWO)  # what the disk does not know is asked for
        assert len(served.requests) == before + TRIES + 1
    monkeypatch.setattr(registry_client, "AWAY_S", 0.0)
    with RegistryClient(served.url, tmp_path) as later:
        served.answers = [DOWN] * TRIES
        assert later.schema_id("a-value", ONE) == known[0]
        assert later.schema_id("b-value", ONE) == known[1]
        assert len(served.requests) == before + 2 * TRIES + 2, "it is asked again after a while"


def test_a_broken_cache_is_no_cache(served: Served, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with RegistryClient(served.url, blocked) as client:
        assert client.schema_id("s", ONE) == 1
    with RegistryClient(served.url, tmp_path) as client:
        client.schema_id("s", ONE)
        for file in tmp_path.glob("*/*.json"):
            file.write_text("{half")
    with RegistryClient(served.url, tmp_path) as client:
        served.answers = [DOWN] * TRIES
        with pytest.raises(RegistryUnavailable):
            client.schema_by_id(1)


@pytest.mark.parametrize(
    "answer",
    [
        {"schema": "message M {}", "schemaType": "PROTOBUF"},
        {"schema": "{not json"},
        {"schema": None},
    ],
)
def test_schemas_that_are_not_avro_can_never_be_read(served: Served, answer: object) -> None:
    served.answers = [(200, answer)]
    with RegistryClient(served.url) as client, pytest.raises(UnknownSchema, match="schema 5"):
        client.schema_by_id(5)


def test_an_older_server_checks_against_the_latest_version(served: Served) -> None:
    with RegistryClient(served.url) as client:
        client.schema_id("s", ONE)
        served.answers = [(404, {"error_code": 404, "message": "HTTP 404 Not Found"})]
        assert "field 'a'" in client.compatible("s", BROKEN)[0]
        assert served.requests[-1] == "POST /compatibility/subjects/s/versions/latest"


def test_many_threads_share_a_client(served: Served, tmp_path: Path) -> None:
    found: list[int] = []
    with RegistryClient(served.url, tmp_path) as client:

        def work() -> None:
            found.extend(client.schema_id(f"s{i}", record(field(f"f{i}", "int"))) for i in range(5))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 40 and sorted(set(found)) == [1, 2, 3, 4, 5]
    assert not list(tmp_path.glob("*/*.tmp"))
    kept = {json.loads(file.read_text())["fields"][0]["name"] for file in tmp_path.glob("*/*.json")}
    assert kept == {"f0", "f1", "f2", "f3", "f4"}
