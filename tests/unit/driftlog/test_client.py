"""The Python clients against the real REST face, with the log, the store and the model in memory."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import driftlog
from driftlog.client import (
    AsyncClient,
    Client,
    ClientError,
    NotAllowed,
    Refused,
    Unavailable,
)
from driftlog.client_core import (
    FIRST_SENT,
    FIRST_WAIT_S,
    MAX_BYTES,
    MAX_ITEMS,
    MAX_WAIT_S,
    Attempts,
    Policy,
    Reply,
    label_calls,
    predict_calls,
)
from models.serving.api import create_app
from schemas.catalogue import labels_topic
from tests.unit.models.serving_parts import NOW_MS, MemoryLog, flight, service


def busy() -> httpx.Response:
    return httpx.Response(503, headers={"retry-after": "3"}, json={"detail": "away"})


class Network(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Services in memory by host name; answers what `script` holds first, then what the service says.

    In the script an exception is raised, a response returned; 'lost' lets the service do its work and loses
    the answer; None lets it through.
    """

    def __init__(self, script: list[Any] | None = None) -> None:
        self.log = MemoryLog()
        self.app = httpx.ASGITransport(create_app(service(self.log)), raise_app_exceptions=False)
        self.script = script or []
        self.asked: list[httpx.Request] = []
        self.slept: list[float] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        said = self.script.pop(0) if self.script else None
        if isinstance(said, Exception):
            raise said
        if isinstance(said, httpx.Response):
            return said

        async def serve() -> httpx.Response:
            answer = await self.app.handle_async_request(request)
            content = await answer.aread()
            return httpx.Response(answer.status_code, headers=answer.headers, content=content)

        response = asyncio.run_coroutine_threadsafe(serve(), self._loop).result(20)
        if said == "lost":
            raise httpx.ReadError("the connection was cut")
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return await asyncio.to_thread(self.handle_request, request)


Use = Callable[..., Any]


class Both:
    """Calls a method of the sync or of the async client: every test tries both."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.network = Network()

    def __call__(self, method: str, *arguments: Any, bases: Any = "http://a", **more: Any) -> Any:
        network = self.network
        if self.kind == "sync":
            with Client(
                bases, transport=network, sleep=network.slept.append, **{"task": "flights", **more}
            ) as client:
                return getattr(client, method)(*arguments)

        async def sleep(seconds: float) -> None:
            network.slept.append(seconds)

        async def run() -> Any:
            async with AsyncClient(
                bases, transport=network, sleep=sleep, **{"task": "flights", **more}
            ) as client:
                call: Awaitable[Any] = getattr(client, method)(*arguments)
                return await call

        return asyncio.run(run())


@pytest.fixture(params=["sync", "async"])
def use(request: pytest.FixtureRequest) -> Iterator[Both]:
    made = Both(request.param)
    yield made
    made.network.stop()


def test_an_answer_is_typed_and_in_the_log(use: Both) -> None:
    said = use("predict", flight())
    (event,) = use.network.log.events
    assert (said.event_id, said.score, said.label) == (event.id, event.data["score"], 0)
    assert said.model_version == "flights-1"


def test_the_short_form_serves_without_a_task(use: Both) -> None:
    assert use("predict", flight(), task=None).model_version == "flights-1"
    assert use.network.asked[0].url.path == "/v1/predict"


def test_many_are_split_and_come_back_in_order(use: Both) -> None:
    distances = [float(n) for n in range(25)]
    said = use("predict_many", [flight(distance=d) for d in distances], batch=10)
    assert len(use.network.asked) == 3
    assert [one.score for one in said] == [0.1 + d / 10_000 for d in distances]
    assert [one.event_id for one in said] == [event.id for event in use.network.log.events]
    assert use("predict_many", []) == []


def test_labels_name_their_predictions(use: Both) -> None:
    said = use("predict", flight())
    assert use("label", said.event_id, 1) == use.network.log.events[1].id
    truths = [{"prediction_id": str(n), "label": 0, "event_time": NOW_MS} for n in range(3)]
    assert len(use("label_many", truths)) == 3
    assert {event.topic for event in use.network.log.events[1:]} == {labels_topic("flights")}


def test_models_and_health(use: Both) -> None:
    (model,) = use("models")
    assert (model.task, model.model_version, model.since, model.rollout) == (
        *("flights", "flights-1", NOW_MS),
        None,
    )
    assert [health.ready for health in use("health", bases=["http://a", "http://b"])] == [True] * 2
    use.network.log.problem = "writes are not acknowledged"
    (health,) = use("health")
    assert (health.ready, health.detail["log"]) == (False, "writes are not acknowledged")
    use.network.script = [httpx.ConnectError("refused")]
    (health,) = use("health")
    assert not health.ready
    assert "refused" in health.detail["reason"]


def test_a_lost_answer_is_asked_for_again_and_nothing_is_doubled(use: Both) -> None:
    use.network.script = ["lost", "lost"]
    said = use("predict_many", [flight(), flight(distance=4500.0)])
    assert [one.event_id for one in said] == [event.id for event in use.network.log.events]
    bodies = {request.content for request in use.network.asked}
    assert (len(use.network.asked), len(bodies)) == (3, 1)


def test_a_retry_says_when_it_was_first_sent(use: Both) -> None:
    use.network.script = ["lost", httpx.ConnectError("gone"), None]
    use("predict", flight())
    sent = [request.headers.get(FIRST_SENT) for request in use.network.asked]
    assert sent[0] is None
    assert sent[1] == sent[2] and str(sent[1]).isdigit()


def test_an_event_id_of_the_callers_is_kept(use: Both) -> None:
    assert use("predict", flight(event_id="mine")).event_id == "mine"


def test_a_busy_service_is_asked_again_when_it_says(use: Both) -> None:
    use.network.script = [busy(), httpx.Response(429), httpx.ConnectError("refused")]
    assert use("predict", flight()).label == 0
    waits = use.network.slept
    assert len(waits) == 3
    assert 3 <= waits[0] <= 3 + FIRST_WAIT_S
    assert all(0 < wait <= MAX_WAIT_S for wait in waits[1:])


def test_another_replica_is_tried_before_anybody_waits(use: Both) -> None:
    use.network.script = [httpx.ConnectError("refused"), busy(), None, None]
    bases = ["http://a", "http://b", "http://c"]
    assert len(use("predict_many", [flight()] * 2, bases=bases, batch=1)) == 2
    assert [request.url.host for request in use.network.asked] == ["a", "b", "c", "c"]
    assert use.network.slept == [0.0, 0.0]


def test_patience_ends_with_the_last_reason(use: Both) -> None:
    use.network.script = [httpx.ConnectError("refused")] * 2 + [busy()]
    with pytest.raises(Unavailable, match=r"3 tries.*503: away") as caught:
        use("predict", flight(), retries=2)
    assert caught.value.status == 503
    assert len(use.network.asked) == 3
    use.network.script = [busy()]
    with pytest.raises(Unavailable):  # the wait that is asked for is longer than the caller has
        use("predict", flight(), timeout_s=2.0)


def test_a_refusal_is_not_sent_again_and_names_its_fields(use: Both) -> None:
    with pytest.raises(Refused) as caught:
        use("predict_many", [flight(), flight(distance="far")])
    assert caught.value.status == 422
    (error,) = caught.value.errors
    assert (error.loc, error.message) == (
        "instances[1].distance",
        "must be a number, not text",
    )
    assert len(use.network.asked) == 1
    with pytest.raises(Refused, match=r"there is no task 'a b'.*flights"):
        use("predict", flight(), task="a b")


def test_a_failure_tells_what_earlier_batches_were_answered(use: Both) -> None:
    with pytest.raises(Refused) as caught:
        use("predict_many", [flight(), flight(), flight(distance="far")], batch=2)
    assert [one.event_id for one in caught.value.done] == [e.id for e in use.network.log.events]
    assert len(caught.value.done) == 2


def test_the_key_is_sent_and_its_refusal_has_a_name(
    use: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    use.network.script = [httpx.Response(401, json={"detail": "no key"}), None, None]
    with pytest.raises(NotAllowed, match="no key"):
        use("predict", flight(), api_key="given")
    monkeypatch.setenv("DRIFTLOG_API_KEY", "from the environment")
    use("predict", flight())
    monkeypatch.delenv("DRIFTLOG_API_KEY")
    use("predict", flight())
    sent = [request.headers.get("authorization") for request in use.network.asked]
    assert sent == ["Bearer given", "Bearer from the environment", None]


def test_somebody_elses_answer_is_an_error_of_ours(use: Both) -> None:
    use.network.script = [httpx.Response(200, text="<html>"), httpx.Response(302)]
    with pytest.raises(ClientError, match="no driftlog service"):
        use("predict", flight())
    with pytest.raises(Refused, match="302"):
        use("predict", flight())


def test_numpys_numbers_are_numbers(use: Both) -> None:
    said = use("predict", flight(distance=np.float32(100), hour=np.int64(7)))
    assert said.score == 0.11
    with pytest.raises(TypeError, match="set"):
        use("predict", flight(distance={1}))


def test_a_key_does_not_show() -> None:
    with Client(api_key="secret") as client:
        assert "secret" not in repr(client._options)


def test_a_task_file_does_not_import_http() -> None:
    code = "import driftlog, sys; assert 'httpx' not in sys.modules; driftlog.Client"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert driftlog.AsyncClient is AsyncClient
    with pytest.raises(AttributeError):
        _ = driftlog.Customer


@given(
    st.lists(st.text(max_size=2_000), max_size=40),
    st.integers(1, MAX_ITEMS),
)
def test_splitting_keeps_order_and_stays_within_its_limits(texts: list[str], size: int) -> None:
    items = [{"x": text * 40} for text in texts]
    ids = iter(range(len(items)))
    calls = list(predict_calls("t", items, size, lambda: str(next(ids))))
    bodies = [json.loads(call.content)["instances"] for call in calls]
    assert [one["x"] for body in bodies for one in body] == [item["x"] for item in items]
    assert [one["event_id"] for body in bodies for one in body] == [
        str(n) for n in range(len(items))
    ]
    assert all(0 < len(body) <= size for body in bodies)
    assert all(len(call.content) <= MAX_BYTES + 100 or len(body) == 1
               for call, body in zip(calls, bodies, strict=True))  # fmt: skip
    assert list(label_calls(None, [], size)) == []


@given(
    bases=st.integers(1, 4),
    first=st.integers(0, 3),
    dice=st.floats(0, 1),
    asked=st.sampled_from([None, "2", "soon", "-1", "99999999"]),
)
def test_waits_grow_and_are_bounded(bases: int, first: int, dice: float, asked: str | None) -> None:
    attempts = Attempts(bases, Policy(timeout_s=1e9, retries=12), first % bases)
    tried, waits = [], []
    for _ in range(12):
        tried.append(attempts.base)
        waits.append(attempts.judge(Reply(503, retry_after=asked), 0.0, dice))
    with pytest.raises(Unavailable):
        attempts.judge(Reply(503, retry_after=asked), 0.0, dice)
    assert [set(tried[n : n + bases]) for n in range(0, 13 - bases, bases)] == [
        set(range(bases)) for _ in range(0, 13 - bases, bases)
    ]
    least = 2.0 if asked == "2" else 0.0
    for number, wait in enumerate(waits, start=1):
        assert wait is not None
        if number % bases:
            assert wait == 0
        else:
            assert least < wait <= least + MAX_WAIT_S
