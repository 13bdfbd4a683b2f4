"""The guard in front of HTTP: who is let in, how much, and what the refused are told."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.serving.guards.access import hash_of
from models.serving.guards.audit import CALLERS, MINUTE_MS, OTHERS, Refusals
from models.serving.guards.issuing import revoked
from models.serving.guards.limits import Limit, LocalBuckets
from models.serving.guards.needs import OPEN, of_method, of_path
from models.serving.guards.settings import GuardSettings
from tests.unit.models.guard_parts import (
    PUBLIC,
    Clock,
    bearer,
    connect,
    folded,
    guard,
    issue,
    key,
)
from tests.unit.models.serving_parts import NOW_MS, MemoryLog, flight, service

PREDICT = "/v1/tasks/flights/predict"
LABELS = "/v1/tasks/flights/labels"
ASK = {"instances": [flight()]}
TRUTH = {"labels": [{"prediction_id": "a", "label": 1}]}


async def test_without_a_key_only_health_is_answered() -> None:
    made = guard(access=folded(issue(1, "flights:predict")))
    async with connect(service(), made) as http:
        for path in ("/healthz", "/readyz"):
            assert (await http.get(path)).status_code == 200
        for path in ("/metrics", "/docs", "/openapi.json", "/v1/models", "/nowhere"):
            answer = await http.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == 'Bearer realm="driftlog"'
        other = await http.post("/v2/models/flights/infer", json={})
        assert other.status_code == 401 and set(other.json()) == {"error"}
        answer = await http.post(PREDICT, json=ASK)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert "driftlog keys create" in answer.json()["detail"]


async def test_a_key_may_do_what_its_scopes_say_and_a_refusal_names_the_missing_one() -> None:
    access = folded(issue(1, "flights:predict"), issue(2, "*:read"), issue(3, "loans:predict"))
    log = MemoryLog()
    async with connect(service(log), guard(access=access)) as http:
        assert (await http.post(PREDICT, json=ASK, headers=bearer(1))).status_code == 200
        refused = await http.post(LABELS, json=TRUTH, headers=bearer(1))
        assert refused.status_code == 403
        assert refused.json()["detail"] == "key caller-1 lacks the scope flights:label"
        assert 'scope="flights:label"' in refused.headers["www-authenticate"]
        assert (await http.get("/metrics", headers=bearer(2))).status_code == 200
        assert (await http.get("/metrics", headers=bearer(1))).status_code == 403
        assert (await http.post(PREDICT, json=ASK, headers=bearer(2))).status_code == 403
        assert (await http.post(PREDICT, json=ASK, headers=bearer(3))).status_code == 403
        wrong = await http.post(PREDICT, json=ASK, headers=bearer(9))
        assert wrong.status_code == 401 and "invalid_token" in wrong.headers["www-authenticate"]
    assert len(log.events) == 1


@pytest.mark.parametrize(
    "path", [PREDICT + "%0A", PREDICT + "/", "/v1/tasks/flights/predict%00", "/v1//tasks/x"]
)
async def test_a_strange_path_opens_no_way_around_the_scope(path: str) -> None:
    log = MemoryLog()
    access = folded(issue(1, "*:read", "*:label"))
    async with connect(service(log), guard(access=access)) as http:
        answer = await http.post(path, json=ASK, headers=bearer(1))
    assert answer.status_code in (400, 403)
    assert log.events == []


async def test_a_revoked_key_is_refused_from_the_next_request_on() -> None:
    access = folded(issue(1, "flights:predict"))
    made = guard(access=access)
    async with connect(service(), made) as http:
        assert (await http.post(PREDICT, json=ASK, headers=bearer(1))).status_code == 200
        (known,) = access.of("caller-1", NOW_MS)
        made.know(folded(issue(1, "flights:predict"), revoked(known, NOW_MS, "ann", "leaked")))
        answer = await http.post(PREDICT, json=ASK, headers=bearer(1))
    assert answer.status_code == 401 and "revoked" in answer.json()["detail"]


async def test_loopback_is_open_until_a_key_is_made_and_never_while_the_keys_are_unread() -> None:
    made = guard(GuardSettings(), access=None)
    async with connect(service(), made) as http:
        early = await http.post(PREDICT, json=ASK)
        assert early.status_code == 503 and "Retry-After" in early.headers
        made.know(folded())
        assert (await http.post(PREDICT, json=ASK)).status_code == 200
        made.know(folded(issue(1, "flights:predict")))
        assert (await http.post(PREDICT, json=ASK)).status_code == 401


def test_others_are_let_in_only_with_keys_or_by_declaration() -> None:
    assert guard(PUBLIC, folded()).lacks_keys
    assert not guard(PUBLIC, folded(issue(1, "*:read"))).lacks_keys
    assert not guard(GuardSettings(host="0.0.0.0", open=True), folded()).lacks_keys
    assert not guard(GuardSettings(), folded()).lacks_keys
    for host, inside in (("127.0.0.1", True), ("::1", True), ("10.0.0.7", False), ("h", False)):
        assert GuardSettings(host=host).loopback is inside


async def test_a_caller_has_the_rate_of_its_key_and_is_told_when_to_come_back() -> None:
    clock = Clock()
    access = folded(issue(1, "flights:predict", rate=2.0), issue(2, "flights:predict"))
    buckets = LocalBuckets(clock.seconds)
    made = guard(dataclasses.replace(PUBLIC, rate=50), access, clock, buckets=buckets)
    async with connect(service(), made) as http:

        async def ask(number: int) -> Any:
            return await http.post(PREDICT, json=ASK, headers=bearer(number))

        first = await ask(1)
        assert first.headers["ratelimit"] == '"driftlog";r=1;t=1'
        assert first.headers["ratelimit-policy"] == '"driftlog";q=2;w=1'
        assert (await ask(1)).status_code == 200
        refused = await ask(1)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert "2 requests a second" in refused.json()["detail"]
        assert (await ask(2)).status_code == 200
        clock.ms += 500
        assert (await ask(1)).status_code == 200
        assert (await ask(1)).status_code == 429


async def test_beyond_so_many_at_once_requests_are_refused_at_once_but_health_is_not() -> None:
    log = MemoryLog()
    log.gate.clear()
    made = guard(GuardSettings(max_in_flight=2), folded())
    async with connect(service(log), made) as http:
        waiting = [asyncio.create_task(http.post(PREDICT, json=ASK)) for _ in range(2)]
        while made.in_flight < 2:
            await asyncio.sleep(0)
        refused = await http.post(PREDICT, json=ASK)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert (await http.get("/healthz")).status_code == 200
        log.gate.set()
        assert [(await one).status_code for one in waiting] == [200, 200]
        assert (await http.post(PREDICT, json=ASK)).status_code == 200
    assert made.in_flight == 0


async def test_the_size_of_a_body_is_a_setting_even_above_the_default() -> None:
    big = {"instances": [flight() for _ in range(40)]}
    small = guard(GuardSettings(max_body=2_000), folded())
    async with connect(service(), small) as http:
        assert (await http.post(PREDICT, json=ASK)).status_code == 200
        refused = await http.post(PREDICT, json=big)
        assert refused.status_code == 413 and "2000 bytes" in refused.json()["detail"]
    large = guard(GuardSettings(max_body=4_000_000), folded())
    padding = b" " * 2_000_000
    async with connect(service(), large) as http:
        body = b'{"labels": [{"prediction_id": "a", "label": 1}]}' + padding
        answer = await http.post(LABELS, content=body)
        assert answer.status_code == 200


async def test_a_request_that_takes_too_long_is_given_up() -> None:
    log = MemoryLog()
    log.gate.clear()
    made = guard(GuardSettings(timeout_s=0.01), folded())
    async with connect(service(log), made) as http:
        answer = await http.post(PREDICT, json=ASK)
    assert answer.status_code == 503 and "Retry-After" in answer.headers
    assert made.in_flight == 0


async def test_the_short_route_needs_the_scope_of_the_task_that_the_body_names() -> None:
    access = folded(issue(1, "flights:predict"))
    served = service()
    served.desks["loans"] = served.desks["flights"]
    made = guard(access=access)
    made.tasks = served.desks
    async with connect(served, made) as http:
        for body, status in (
            ({"task": "loans", **ASK}, 403),
            ({"task": "flights", **ASK}, 200),
        ):
            answer = await http.post("/v1/predict", json=body, headers=bearer(1))
            assert answer.status_code == status


def test_what_each_route_and_method_needs() -> None:
    def shown(path: str, method: str = "POST") -> tuple[str | None, str | None]:
        need = of_path(path, method)
        return need.task, need.action

    assert shown("/v1/tasks/flights/predict") == ("flights", "predict")
    assert shown("/v1/tasks/flights/labels") == ("flights", "label")
    assert shown("/v2/models/flights/infer") == ("flights", "predict")
    assert shown("/v2/models/flights/versions/f-1/infer") == ("flights", "predict")
    assert shown("/v2/models/flights", "GET") == ("flights", "read")
    assert shown("/v2/models/flights/ready", "GET") == ("flights", "read")
    assert shown("/v1/models", "GET") == (None, "read")
    assert shown("/v1/new") == (None, "*")
    assert of_path("/v2/health/live", "GET") is OPEN
    assert of_method("/grpc.health.v1.Health/Check") is OPEN
    assert of_method("/inference.GRPCInferenceService/ServerReady") is OPEN
    assert of_method("/inference.GRPCInferenceService/ModelInfer").action == "predict"
    assert of_method("/driftlog.v1.Serving/PredictStream").action == "predict"
    assert of_method("/driftlog.v1.Serving/Label").action == "label"
    assert of_method("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").action == "read"


async def test_refusals_are_counted_by_the_minute_and_fit_the_schema() -> None:
    clock = Clock()
    access = folded(issue(1, "flights:predict"))
    made = guard(access=access, clock=clock)
    async with connect(service(), made) as http:
        for _ in range(30):
            await http.post(PREDICT, json=ASK)
        await http.post(LABELS, json=TRUTH, headers=bearer(1))
    assert made.refusals.due(clock.ms) == []
    clock.ms += MINUTE_MS
    log = MemoryLog()
    events = made.refusals.due(clock.ms)
    await log.append(events, 1)
    said = [
        (e.data["caller"], e.data["task"], e.data["cause"], e.data["count"]) for e in log.events
    ]
    assert said == [("127.0.0.1", "", "no_key", 30), ("caller-1", "flights", "scope", 1)]
    assert {e.data["window_end"] - e.data["window_start"] for e in log.events} == {MINUTE_MS}
    assert made.refusals.due(clock.ms) == []


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3 * MINUTE_MS)), max_size=400))
def test_a_flood_makes_few_events_and_every_refusal_is_counted_once(
    refused: list[tuple[int, int]],
) -> None:
    refusals = Refusals("one")
    for caller, at in refused:
        refusals.note(at, f"10.0.0.{caller}", "", "no_key")
    events = [*refusals.due(2 * MINUTE_MS), *refusals.due(None)]
    assert sum(event.data["count"] for event in events) == len(refused)
    minutes = {event.data["window_start"] for event in events}
    assert len(events) <= (CALLERS + 1) * len(minutes)
    assert len({event.id for event in events}) == len(events)
    others = [e for e in events if e.data["caller"] == OTHERS]
    assert len(others) <= len(minutes)


@given(
    st.floats(0.5, 500),
    st.floats(0, 50),
    st.lists(st.floats(0, 2), min_size=1, max_size=80),
)
async def test_a_bucket_never_gives_more_than_its_burst_and_rate(
    rate: float, burst: float, gaps: list[float]
) -> None:
    now = 0.0
    limit = Limit.of(rate, burst)
    buckets = LocalBuckets(lambda: now)
    granted = 0
    for gap in gaps:
        now += gap
        taken = await buckets.take("one", limit)
        granted += taken.granted
        assert taken.granted == (taken.wait_s == 0)
        assert granted <= limit.burst + now * limit.rate + 1e-6
        if not taken.granted:
            assert taken.wait_s <= 1 / limit.rate + 1e-9


def test_the_guard_never_keeps_a_key() -> None:
    access = folded(issue(1, "flights:predict"))
    assert key(1) not in repr(access) and hash_of(key(1)) in access.issued
