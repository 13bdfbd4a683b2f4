from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from schemas.registry import faults
from schemas.registry.api import MAX_BODY_BYTES, MEDIA_TYPE, registry_app
from schemas.registry.metrics import RegistryMetrics
from schemas.registry.service import MemoryLog, Registry
from tests.unit.schemas.build import bomb, field, record

ONE = record(field("a", "int"))
TWO = record(field("a", "int"), field("b", "string", default=""))
BROKEN = record(field("a", "string"))


class UnsteadyLog(MemoryLog):
    """A log that can be cut off from its brokers."""

    cut = False

    def append(self, records: Any) -> None:
        if self.cut:
            raise faults.store_unavailable("no broker answers")
        super().append(records)


@pytest.fixture
def log() -> UnsteadyLog:
    return UnsteadyLog()


@pytest.fixture
def loaded() -> list[bool]:
    return [True]


@pytest.fixture
def api(log: UnsteadyLog, loaded: list[bool]) -> Iterator[TestClient]:
    app = registry_app(Registry(log), lambda: loaded[0], RegistryMetrics())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def body(schema: Any, **more: Any) -> dict[str, Any]:
    return {"schema": json.dumps(schema), **more}


def register(api: TestClient, subject: str, schema: Any) -> Any:
    return api.post(f"/subjects/{subject}/versions", json=body(schema))


def refused(answer: Any) -> tuple[int, int]:
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json()["message"]
    return answer.status_code, answer.json()["error_code"]


def test_register_and_read_back(api: TestClient) -> None:
    assert register(api, "s-value", ONE).json() == {"id": 1}
    assert register(api, "s-value", TWO).json() == {"id": 2}
    assert register(api, "s-value", ONE).json() == {"id": 1}
    assert api.get("/subjects").json() == ["s-value"]
    assert api.get("/subjects?subjectPrefix=t").json() == []
    assert api.get("/subjects/s-value/versions").json() == [1, 2]
    version = api.get("/subjects/s-value/versions/latest").json()
    assert version == {
        "subject": "s-value",
        "version": 2,
        "id": 2,
        "schema": json.dumps(TWO, separators=(",", ":")),
    }
    assert api.get("/subjects/s-value/versions/1/schema").json() == ONE
    assert json.loads(api.get("/schemas/ids/1").json()["schema"]) == ONE
    assert api.get("/schemas/ids/1?fetchMaxId=true").json()["maxId"] == 2
    assert api.get("/schemas/ids/2/schema").json() == TWO
    assert api.get("/schemas/ids/2/versions").json() == [{"subject": "s-value", "version": 2}]
    assert api.get("/schemas/ids/2/subjects").json() == ["s-value"]
    assert api.get("/schemas/types").json() == ["AVRO"]
    assert api.post("/subjects/s-value", json=body(TWO)).json()["version"] == 2
    assert api.get("/subjects/s-value/versions/1/referencedby").json() == []


def test_errors_are_those_of_the_rest_api(api: TestClient) -> None:
    register(api, "s", ONE)
    assert refused(api.get("/subjects/no/versions")) == (404, 40401)
    assert refused(api.get("/subjects/no/versions/1")) == (404, 40401)
    assert refused(api.get("/subjects/s/versions/7")) == (404, 40402)
    assert refused(api.get("/schemas/ids/99")) == (404, 40403)
    assert refused(api.get("/schemas/ids/abc")) == (404, 40403)
    assert refused(api.post("/subjects/s", json=body(TWO))) == (404, 40403)
    assert refused(api.post("/subjects/no", json=body(TWO))) == (404, 40401)
    assert refused(register(api, "s", {"type": "nonsense"})) == (422, 42201)
    assert refused(register(api, "s", bomb())) == (422, 42201)
    assert refused(api.post("/subjects/s/versions", json={})) == (422, 42201)
    assert refused(api.post("/subjects/s/versions", json=body({}, schemaType="JSON"))) == (
        422,
        42201,
    )
    for version in ("0", "-2", "1.5", "newest", "99999999999", str(2**31)):
        assert refused(api.get(f"/subjects/s/versions/{version}")) == (422, 42202)
    assert refused(api.put("/config", json={"compatibility": "OFTEN"})) == (422, 42203)
    assert refused(api.put("/mode", json={"mode": "LAZY"})) == (422, 42204)
    assert refused(register(api, "s", BROKEN)) == (409, 409)
    assert refused(api.get("/config/s")) == (404, 40408)
    assert refused(api.get("/mode/s")) == (404, 40409)
    assert refused(api.get("/nothing/here")) == (404, 404)
    assert refused(api.put("/subjects")) == (405, 405)


def test_a_conflict_names_the_field_and_the_rule(api: TestClient) -> None:
    register(api, "s", ONE)
    message = register(api, "s", record(field("b", "int"))).json()["message"]
    assert "field 'b' was added and has no default (BACKWARD)" in message
    assert "field 'a' was removed and has no default (FORWARD)" in message


def test_bodies_that_are_not_json_or_too_large(api: TestClient) -> None:
    path = "/subjects/s/versions"
    assert refused(api.post(path, content=b"{half")) == (400, 400)
    assert refused(api.post(path, content=b"[" * 100_000))[0] == 400
    assert refused(api.post(path, content=b" " * (MAX_BODY_BYTES + 1))) == (413, 413)
    assert refused(api.post(path, content=b"")) == (422, 42201)
    assert refused(api.post(path, json={"schema": "[" * 60_000})) == (422, 42201)


def test_compatibility_is_asked_without_writing(api: TestClient, log: UnsteadyLog) -> None:
    register(api, "s", ONE)
    before = len(log.records)
    for path in ("versions", "versions/latest", "versions/1"):
        url = f"/compatibility/subjects/s/{path}"
        assert api.post(url, json=body(TWO)).json() == {"is_compatible": True}
        answer = api.post(f"{url}?verbose=true", json=body(BROKEN)).json()
        assert not answer["is_compatible"] and "field 'a'" in answer["messages"][0]
    assert api.post("/compatibility/subjects/new/versions", json=body(ONE)).json()["is_compatible"]
    assert refused(api.post("/compatibility/subjects/s/versions/9", json=body(ONE))) == (404, 40402)
    assert len(log.records) == before


def test_levels(api: TestClient) -> None:
    register(api, "s", ONE)
    assert api.get("/config").json() == {"compatibilityLevel": "FULL_TRANSITIVE"}
    assert api.put("/config/s", json={"compatibility": "none"}).json() == {"compatibility": "NONE"}
    assert api.get("/config/s").json() == {"compatibilityLevel": "NONE"}
    assert register(api, "s", BROKEN).json() == {"id": 2}
    assert api.delete("/config/s").json() == {"compatibilityLevel": "NONE"}
    assert api.get("/config/s?defaultToGlobal=true").json() == {
        "compatibilityLevel": "FULL_TRANSITIVE"
    }
    assert api.put("/config", json={"compatibility": "BACKWARD"}).status_code == 200
    assert api.get("/config").json() == {"compatibilityLevel": "BACKWARD"}


def test_deleting(api: TestClient) -> None:
    register(api, "s", ONE)
    register(api, "s", TWO)
    assert api.delete("/subjects/s/versions/1").json() == 1
    assert api.get("/subjects/s/versions").json() == [2]
    assert api.get("/subjects/s/versions?deleted=true").json() == [1, 2]
    assert refused(api.delete("/subjects/s/versions/1")) == (404, 40406)
    assert api.delete("/subjects/s/versions/1?permanent=true").json() == 1
    assert refused(api.delete("/subjects/s?permanent=true")) == (404, 40405)
    assert api.delete("/subjects/s").json() == [2]
    assert refused(api.delete("/subjects/s")) == (404, 40404)
    assert api.delete("/subjects/s?permanent=true").json() == [2]
    assert refused(api.delete("/subjects/s")) == (404, 40401)
    assert api.get("/schemas/ids/1").status_code == 200  # events with this id are in the log


def test_read_only(api: TestClient) -> None:
    assert api.put("/mode", json={"mode": "READONLY"}).json() == {"mode": "READONLY"}
    assert refused(register(api, "s", ONE)) == (422, 42205)
    assert api.get("/mode/s?defaultToGlobal=true").json() == {"mode": "READONLY"}
    assert api.delete("/mode").json() == {"mode": "READONLY"}
    assert register(api, "s", ONE).status_code == 200


def test_without_kafka_reads_go_on_and_writes_are_503(api: TestClient, log: UnsteadyLog) -> None:
    register(api, "s", ONE)
    log.cut = True
    assert refused(register(api, "s", TWO)) == (503, 50001)
    assert register(api, "s", ONE).json() == {"id": 1}
    assert api.get("/subjects/s/versions").json() == [1]
    log.cut = False
    assert register(api, "s", TWO).json() == {"id": 2}


def test_health_and_metrics(api: TestClient, loaded: list[bool]) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    loaded[0] = False
    assert api.get("/healthz").status_code == 503
    register(api, "s", ONE)
    api.get("/schemas/ids/99")
    page = api.get("/metrics").text
    assert 'path="/subjects/{subject}/versions",status="200"} 1.0' in page
    assert 'path="/schemas/ids/{id}",status="404"} 1.0' in page
