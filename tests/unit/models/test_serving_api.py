"""Serving over HTTP, with the log, the store and the model in memory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.serving.api import create_app
from models.serving.bodies import MAX_BODY_BYTES
from models.serving.metrics import Metrics
from models.serving.service import Service
from schemas.catalogue import labels_topic, predictions_topic
from streams.features import observation_key, rate_key
from streams.task import HOUR_MS
from tests.unit.models.serving_parts import (
    FLIGHTS,
    NOW_MS,
    MemoryLog,
    MemoryStore,
    champion,
    flight,
    service,
)

PREDICT = "/v1/tasks/flights/predict"
LABELS = "/v1/tasks/flights/labels"


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def serving(log: MemoryLog, store: MemoryStore) -> Service:
    return service(log, store)


@pytest.fixture
async def client(serving: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(serving) as opened:
        yield opened


def connect(serving: Service) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(serving), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://serving")


async def test_an_answer_says_what_is_in_the_log(client: httpx.AsyncClient, log: MemoryLog) -> None:
    asked = {"instances": [flight(event_id="a"), flight(event_id="b", distance=4500)]}
    answer = await client.post(PREDICT, json=asked)
    assert answer.status_code == 200
    body = answer.json()
    assert body["model_version"] == "flights-1"
    assert [(p["event_id"], p["label"]) for p in body["predictions"]] == [("a", 0), ("b", 1)]
    assert body["predictions"][1]["score"] == pytest.approx(0.55)
    assert [event.topic for event in log.events] == [predictions_topic("flights")] * 2
    for said, event in zip(body["predictions"], log.events, strict=True):
        assert said == {name: event.data[name] for name in said}
        assert event.data["model_version"] == "flights-1"
        assert event.time == NOW_MS


async def test_the_served_vector_holds_rates_and_observations(
    client: httpx.AsyncClient, log: MemoryLog, store: MemoryStore
) -> None:
    recent = NOW_MS - HOUR_MS
    store.content[rate_key((), ())] = [[recent, 100, 20]]
    store.content[rate_key(("carrier",), ("AA",))] = [[recent, 20, 16]]
    store.content[observation_key("origin", "JFK")] = [[recent, {"wind_speed": 11.5}]]
    await client.post(PREDICT, json={"instances": [flight()]})
    features = log.events[0].data["features"]
    assert features["carrier_late"] == pytest.approx((16 + 20 * 0.2) / 40)
    assert features["route_late"] == pytest.approx(0.2)
    assert features["wind"] == 11.5


async def test_without_the_online_store_values_are_missing_and_counted(
    client: httpx.AsyncClient, log: MemoryLog, store: MemoryStore
) -> None:
    store.problem = "Redis does not answer"
    answer = await client.post(PREDICT, json={"instances": [flight()]})
    assert answer.status_code == 200
    (warning,) = answer.json()["warnings"]
    assert "missing" in warning
    assert log.events[0].data["features"]["wind"] is None
    assert log.events[0].data["degraded"] == "online_features"
    store.problem = None
    await client.post(PREDICT, json={"instances": [flight()]})
    assert log.events[1].data["degraded"] is None, "null for a reason of its own"
    store.problem = "Redis does not answer"
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert "Redis does not answer" in ready.json()["online_features"]
    metrics = (await client.get("/metrics")).text
    assert 'driftlog_serving_requests_without_online_features_total{task="flights"} 1.0' in metrics


async def test_no_answer_before_the_log_has_it(client: httpx.AsyncClient, log: MemoryLog) -> None:
    log.gate.clear()
    request = asyncio.create_task(client.post(PREDICT, json={"instances": [flight()]}))
    await log.waiting.wait()
    assert not request.done()
    log.gate.set()
    assert (await request).status_code == 200


async def test_a_silent_log_is_a_503_that_says_when_to_come_back(
    client: httpx.AsyncClient, log: MemoryLog
) -> None:
    log.broken = True
    for path, body in (
        (PREDICT, {"instances": [flight()]}),
        (LABELS, {"labels": [{"prediction_id": "p", "label": 1}]}),
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"
    assert log.events == []


async def test_a_retry_gets_the_same_answer_and_adds_nothing(
    client: httpx.AsyncClient, log: MemoryLog, serving: Service
) -> None:
    body = {"instances": [flight(event_id="a")]}
    first = await client.post(PREDICT, json=body)
    serving.desks["flights"].champion = champion("flights-2", at=0.7)
    again = await client.post(PREDICT, json=body)
    assert again.json() == first.json()
    assert len(log.events) == 1
    other = await client.post(PREDICT, json={"instances": [flight()]})
    assert other.json()["model_version"] == "flights-2"


async def test_a_request_keeps_the_model_it_began_with(
    client: httpx.AsyncClient, log: MemoryLog, serving: Service
) -> None:
    log.gate.clear()
    request = asyncio.create_task(client.post(PREDICT, json={"instances": [flight()] * 3}))
    await log.waiting.wait()
    serving.desks["flights"].champion = champion("flights-2", at=0.7)
    log.gate.set()
    body = (await request).json()
    assert body["model_version"] == "flights-1"
    assert {e.data["model_version"] for e in log.events} == {"flights-1"}


async def test_labels_are_accepted_with_their_ids(
    client: httpx.AsyncClient, log: MemoryLog
) -> None:
    labels = [
        {"prediction_id": "a", "label": 1},
        {"prediction_id": "b", "label": 0, "event_id": "mine"},
    ]
    answer = await client.post(LABELS, json={"labels": labels})
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 2
    assert answer.json()["event_ids"] == [event.id for event in log.events]
    assert answer.json()["event_ids"][1] == "mine"
    assert {event.topic for event in log.events} == {labels_topic("flights")}


async def test_an_unknown_task_is_a_404_that_names_the_known_ones(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post("/v1/tasks/trains/predict", json={"instances": [{}]})
    assert answer.status_code == 404
    assert "flights" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("GET", PREDICT, 405)]
)
async def test_other_paths_and_methods_are_problems(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["status"] == status


async def test_a_405_says_what_is_allowed(client: httpx.AsyncClient) -> None:
    assert (await client.get(PREDICT)).headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
async def test_a_body_must_be_declared_as_json(
    client: httpx.AsyncClient, kind: str, status: int
) -> None:
    raw = json.dumps({"instances": [flight()]})
    answer = await client.post(PREDICT, content=raw, headers={"content-type": kind})
    assert answer.status_code == status
    assert status == 200 or "application/json" in answer.json()["detail"]


async def test_a_name_twice_in_an_object_is_refused(
    client: httpx.AsyncClient, log: MemoryLog
) -> None:
    raw = b'{"labels": [{"prediction_id": "a", "label": 0, "label": 1}]}'
    answer = await client.post(LABELS, content=raw)
    assert answer.status_code == 422
    assert "'label' twice" in answer.json()["detail"]
    assert log.events == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"instances": ' + b"9" * 5_000 + b"}",
        b"{}",
        b"null",
    ],
)
async def test_a_broken_body_is_a_422(client: httpx.AsyncClient, raw: bytes) -> None:
    answer = await client.post(PREDICT, content=raw)
    assert answer.status_code == 422
    assert answer.json()["detail"]


async def test_nan_is_refused_with_its_place(client: httpx.AsyncClient, log: MemoryLog) -> None:
    raw = json.dumps({"instances": [flight(), flight(distance=float("nan"))]})
    answer = await client.post(PREDICT, content=raw)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"loc": "instances[1].distance", "message": "must be a finite number"}
    ]
    assert log.events == []


async def test_a_large_body_is_a_413_declared_or_streamed(client: httpx.AsyncClient) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * (MAX_BODY_BYTES // 16)

    declared = await client.post(PREDICT, content=b" " * (MAX_BODY_BYTES + 1))
    streamed = await client.post(PREDICT, content=stream())
    assert (declared.status_code, streamed.status_code) == (413, 413)


async def test_a_log_that_takes_no_writes_makes_the_service_unready(
    client: httpx.AsyncClient, log: MemoryLog
) -> None:
    log.problem = "writes are not acknowledged"
    ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["log"] == log.problem
    assert (await client.get("/healthz")).status_code == 200


async def test_not_ready_without_a_model(client: httpx.AsyncClient, serving: Service) -> None:
    serving.desks["flights"].champion = None
    assert (await client.get("/readyz")).json()["models"] == {"flights": None}
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/healthz")).status_code == 200
    answer = await client.post(PREDICT, json={"instances": [flight()]})
    assert answer.status_code == 503
    assert "no model" in answer.json()["detail"]


async def test_models_and_metrics_name_the_champion(client: httpx.AsyncClient) -> None:
    await client.post(PREDICT, json={"instances": [flight()] * 2})
    assert (await client.get("/v1/models")).json() == {
        "models": [
            {
                "task": "flights",
                "model_version": "flights-1",
                "since": NOW_MS,
                "reason": "all gates passed",
            }
        ]
    }
    metrics = (await client.get("/metrics")).text
    assert (
        'driftlog_serving_predictions_total{model_version="flights-1",task="flights"} 2.0'
        in metrics
    )
    assert 'route="/v1/tasks/{task}/predict",status="200"} 1.0' in metrics


async def test_the_docs_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    answer = await client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    page = answer.text
    assert "/v1/tasks/flights/predict" in page
    assert "wind" not in page, "a computed feature is not the caller's to send"
    addresses = set(re.findall(r"https?://[^/ ]+", page))
    assert addresses == {"http://serving"}
    assert "<script" not in page


async def test_openapi_examples_are_accepted(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    posts = [
        (path, methods["post"]) for path, methods in document["paths"].items() if "post" in methods
    ]
    assert len(posts) == 6
    for path, operation in posts:
        content = operation["requestBody"]["content"]["application/json"]
        for task, example in content["examples"].items():
            where = path.format(task=task, name=task, version="flights-1")
            answer = await client.post(where, json=example["value"])
            assert answer.status_code == 200, answer.text
            jsonschema.validate(example["value"], content["schema"])
    assert "ProblemOut" in document["components"]["schemas"]


async def test_the_short_forms_mean_the_only_task(
    client: httpx.AsyncClient, log: MemoryLog
) -> None:
    for body in ({}, {"task": "flights"}):
        said = await client.post("/v1/predict", json={"instances": [flight()], **body})
        assert said.json()["predictions"][0]["event_id"] == log.events[-1].id
        label = {"prediction_id": "a", "label": 1}
        assert (await client.post("/v1/labels", json={"labels": [label], **body})).is_success
    unknown = {"task": "trains", "instances": [flight()]}
    assert (await client.post("/v1/predict", json=unknown)).status_code == 404
    wrong = await client.post("/v1/predict", json={"task": 7, "instances": [flight()]})
    assert [error["loc"] for error in wrong.json()["errors"]] == ["task"]


async def test_of_several_tasks_the_body_names_one(log: MemoryLog) -> None:
    other = replace(FLIGHTS, name="others")
    made = Service((FLIGHTS, other), Metrics(), MemoryStore(), log, now_ms=lambda: NOW_MS)
    made.desks["flights"].champion = champion()
    async with connect(made) as client:
        unsaid = await client.post("/v1/predict", json={"instances": [flight()]})
        assert unsaid.status_code == 422
        assert "flights, others" in unsaid.json()["detail"]
        named = {"task": "flights", "instances": [flight()]}
        assert (await client.post("/v1/predict", json=named)).status_code == 200
        document = (await client.get("/openapi.json")).json()
    body = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["required"] == ["instances", "task"]
    assert {name: e["value"]["task"] for name, e in body["examples"].items()} == {
        name: name for name in ("flights", "others")
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
INSTANCE = st.fixed_dictionaries({name: JSON | st.just(value) for name, value in flight().items()})
BODIES = st.fixed_dictionaries({"instances": st.lists(INSTANCE | JSON, max_size=3)}) | JSON


@pytest.fixture(scope="module")
def whole() -> httpx.ASGITransport:
    """One application for all examples: making it takes longer than asking it."""
    return httpx.ASGITransport(create_app(service()), raise_app_exceptions=False)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES, path=st.sampled_from([PREDICT, LABELS]))
def test_no_json_whatever_gives_a_5xx(whole: httpx.ASGITransport, body: Any, path: str) -> None:
    async def post() -> int:
        async with httpx.AsyncClient(transport=whole, base_url="http://serving") as client:
            return (await client.post(path, content=json.dumps(body))).status_code

    assert asyncio.run(post()) in (200, 422)
