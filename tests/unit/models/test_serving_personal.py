"""Personal fields at every door of serving: sealed in the log, plain nowhere, refused without keys."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from models.personal.cipher import Place
from models.personal.keystore import KeyStore
from models.serving.eventlog import encoded
from models.serving.grpc import driftlog_pb2 as pb
from models.serving.grpc import driftlog_pb2_grpc as stubs
from models.serving.guards.once import MINE, Once, new_id, now_ms
from models.serving.guards.settings import GuardSettings
from models.serving.instances import InstanceParser, InvalidRequest
from models.serving.metrics import Metrics
from models.serving.openapi import predict_body
from models.serving.personal import Sealer
from models.serving.service import Service
from models.serving.typed import TypedParser
from schemas.event import Event
from streams.personal import Personal
from tests.unit.models.grpc_parts import connected, value
from tests.unit.models.guard_parts import connect as connect_guarded
from tests.unit.models.guard_parts import folded, guard
from tests.unit.models.serving_parts import (
    FLIGHTS,
    NOW_MS,
    MemoryLog,
    MemoryStore,
    champion,
    codec,
    flight,
    service,
)
from tests.unit.models.test_serving_api import PREDICT, connect

PASSENGERS = replace(FLIGHTS, personal=Personal("passenger", ("email", "phone"), max_length=64))
WHO = {"passenger": "P-4711", "email": "someone@example.org", "phone": "+1 555 0100"}
SECRETS = tuple(text.encode() for text in WHO.values())
INFER = "/v2/models/flights/infer"


class SealedLog(MemoryLog):
    def __init__(self) -> None:
        super().__init__()
        self._codec = codec(PASSENGERS)


def asked(**changes: Any) -> dict[str, Any]:
    return flight(**{**WHO, **changes})


def body(*instances: dict[str, Any]) -> dict[str, Any]:
    return {"instances": list(instances)}


@pytest.fixture
def log() -> SealedLog:
    return SealedLog()


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    made = KeyStore(tmp_path / "keys" / "persons.sqlite", tmp_path / "keys" / "master.key")
    yield made
    made.close()


def serve(log: MemoryLog, keys: KeyStore | None) -> Service:
    made = Service((PASSENGERS,), Metrics(), MemoryStore(), log, now_ms=lambda: NOW_MS)
    made.desks["flights"].champion = champion()
    made.sealer = None if keys is None else Sealer(keys)
    return made


@pytest.fixture
def serving(log: SealedLog, keys: KeyStore) -> Service:
    return serve(log, keys)


@asynccontextmanager
async def stub(serving: Service) -> AsyncIterator[stubs.DriftlogStub]:
    async with connected(serving) as channel:
        yield stubs.DriftlogStub(channel)


def message(event_id: str | None = None, **changes: Any) -> Any:
    features = {name: value(content) for name, content in asked(**changes).items()}
    return pb.PredictRequest(instances=[pb.Instance(features=features, event_id=event_id)])


def tensors(event_id: str) -> dict[str, Any]:
    kinds = {float: "FP64", str: "BYTES"}
    given = {**asked(), "event_id": event_id}
    return {
        "inputs": [
            {"name": name, "datatype": kinds[type(one)], "shape": [1], "data": [one]}
            for name, one in given.items()
        ]
    }


def opened(keys: KeyStore, event: Event) -> dict[str, str]:
    key = keys.of_person(event.data["person"])
    assert key is not None
    return {
        name: key.unseal(event.data[f"personal_{name}"], Place("flights", name, event.id))
        for name in WHO
    }


async def test_every_door_makes_the_equal_event_and_no_byte_of_it_is_plain(
    serving: Service, log: SealedLog, keys: KeyStore
) -> None:
    with capture_logs() as said:
        async with connect(serving) as http, stub(serving) as calls:
            quick = await http.post(PREDICT, json=body(asked(event_id="e")))
            route = await http.post(
                "/v1/predict", json=body(asked(event_id="e")) | {"task": "flights"}
            )
            escaped = json.dumps(body(asked(event_id="e"))).replace("someone", "some\\u006fne")
            slow = await http.post(PREDICT, content=escaped)
            infer = await http.post(INFER, json=tensors("e"))
            called = await calls.Predict(message("e"), timeout=20)
            told = (await http.get("/metrics")).text
    assert [one.status_code for one in (quick, route, slow, infer)] == [200] * 4
    assert called.predictions[0].event_id == "e"
    assert len(log.events) == 5
    first = log.events[0]
    assert all(event.data == first.data for event in log.events)
    assert opened(keys, first) == WHO
    assert not set(WHO) & set(first.data["features"])
    records = encoded(codec(PASSENGERS), log.events)
    written = b"".join(
        record.key + record.value + repr(record.headers).encode() for record in records
    )
    seen = written + quick.content + infer.content + repr(said).encode() + told.encode()
    assert not [secret for secret in SECRETS if secret in seen]


async def test_another_replica_makes_the_equal_event_of_a_retry(
    serving: Service, log: SealedLog, tmp_path: Path
) -> None:
    again = KeyStore(tmp_path / "keys" / "persons.sqlite", tmp_path / "keys" / "master.key")
    other = serve(log, again)
    for one in (serving, serving, other):
        async with connect(one) as http:
            assert (await http.post(PREDICT, json=body(asked(event_id="e")))).status_code == 200
    assert len(log.events) == 2
    assert log.events[0].data == log.events[1].data
    again.close()


async def test_events_of_one_person_share_a_pseudonym_and_no_ciphertext(
    serving: Service, log: SealedLog
) -> None:
    instances = [asked(), asked(), asked(passenger="P-4712"), asked(email=None), asked()]
    instances[4] |= dict.fromkeys(WHO)
    async with connect(serving) as http:
        answer = await http.post(PREDICT, json=body(*instances))
    assert answer.status_code == 200
    same, too, other, without, nobody = (event.data for event in log.events)
    assert same["person"] == too["person"] == without["person"] != other["person"]
    sealed = {one["personal_email"] for one in (same, too, other)}
    assert len(sealed) == 3 and without["personal_email"] is None
    assert not [name for name in nobody if "person" in name and nobody[name] is not None]


async def test_batched_requests_get_their_own_person_even_if_one_of_them_fails(
    serving: Service, log: SealedLog, keys: KeyStore
) -> None:
    class Sometimes:
        def score(self, vectors: Any) -> Any:
            return np.array([np.nan if v["distance"] is None else 0.5 for v in vectors])

    serving.desks["flights"].champion = replace(champion(), scorer=Sometimes())
    log.gate.clear()
    names = [f"P-{number}" for number in range(6)]

    async def ask(number: int) -> int:
        one = asked(passenger=names[number], event_id=f"e{number}")
        if number == 2:
            one["distance"] = None
        return (await http.post(PREDICT, json=body(one))).status_code

    async with connect(serving) as http:
        first = asyncio.create_task(ask(0))
        await log.waiting.wait()
        rest = asyncio.gather(*(ask(number) for number in range(1, 6)))
        log.gate.set()
        assert await first == 200
        assert await rest == [200, 422, 200, 200, 200]
    found = {event.id: opened(keys, event)["passenger"] for event in log.events}
    assert found == {f"e{n}": names[n] for n in range(6) if n != 2}


async def test_without_keys_nothing_is_taken_and_with_them_again_it_is(
    serving: Service, log: SealedLog, keys: KeyStore, tmp_path: Path
) -> None:
    async with connect(serving) as http, stub(serving) as calls:
        assert (await http.get("/readyz")).status_code == 200
        (tmp_path / "keys").rename(tmp_path / "aside")
        with capture_logs() as said:
            refused = await http.post(PREDICT, json=body(asked()))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await calls.Predict(message(), timeout=20)
            ready = await http.get("/readyz")
        assert refused.status_code == ready.status_code == 503
        assert refused.headers["Retry-After"] == "2"
        assert "key store" in refused.json()["detail"] and "key store" in ready.json()["lacks"]
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        shown = refused.content + (caught.value.details() or "").encode() + repr(said).encode()
        away = [one for one in said if "are away" in one["event"]]
        assert len(away) == 1 and not [secret for secret in SECRETS if secret in shown]
        assert not log.events
        (tmp_path / "aside").rename(tmp_path / "keys")
        assert (await http.post(PREDICT, json=body(asked()))).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
    assert len(log.events) == 1


async def test_a_disk_that_does_not_answer_is_not_waited_for(log: SealedLog) -> None:
    class Stuck:
        def keys(self, task: str, subjects: Any) -> Any:
            held.wait(20)
            return {}

    import threading

    held = threading.Event()
    made = serve(log, None)
    made.sealer = Sealer(Stuck(), patience_s=0.05)  # type: ignore[arg-type]
    async with connect(made) as http:
        refused = await http.post(PREDICT, json=body(asked()))
    held.set()
    assert refused.status_code == 503 and "did not answer" in refused.json()["detail"]


async def test_a_service_without_a_key_store_refuses(log: SealedLog) -> None:
    async with connect(serve(log, None)) as http:
        refused = await http.post(PREDICT, json=body(asked()))
        ready = (await http.get("/readyz")).json()
    assert refused.status_code == 503 and "there is no key store" in refused.json()["detail"]
    assert ready["lacks"] == "there is no key store" and not log.events


async def test_a_task_without_personal_fields_never_asks_for_keys() -> None:
    class Nothing:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"sealer.{name} was used")

    plain = service()
    plain.sealer = Nothing()  # type: ignore[assignment]
    async with connect(plain) as http:
        assert (await http.post(PREDICT, json=body(flight()))).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        unknown = await http.post(PREDICT, json=body(flight(email="someone@example.org")))
    assert unknown.status_code == 422


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"email": ...}, "email", "is missing"),
        ({"email": 5551234567}, "email", "must be text of at most 64 characters"),
        ({"phone": "5" * 65}, "phone", "must be text of at most 64 characters"),
        ({"phone": "\ud800"}, "phone", "must be text of at most 64 characters"),
        ({"passenger": None}, "passenger", "must name the person"),
        ({"passenger": ""}, "passenger", "names nobody"),
        ({"passenger": 5559876543}, "passenger", "must be text of at most 64 characters"),
    ],
)
async def test_what_is_wrong_is_said_without_what_was_sent(
    serving: Service, log: SealedLog, changes: dict[str, Any], field: str, said: str
) -> None:
    async with connect(serving) as http:
        answer = await http.post(PREDICT, content=json.dumps(body(asked(**changes))))
    assert answer.status_code == 422
    [error] = [one for one in answer.json()["errors"] if one["loc"].endswith(field)]
    assert error["loc"] == f"instances[0].{field}" and said in error["message"]
    assert not [
        secret for secret in (*SECRETS, b"5551234567", b"5559876543") if secret in answer.content
    ]
    assert not log.events


TEXTS = st.none() | st.text(max_size=70) | st.integers()


@given(TEXTS, TEXTS, TEXTS)
def test_the_quick_way_accepts_nothing_that_the_other_refuses(
    passenger: Any, email: Any, phone: Any
) -> None:
    raw = json.dumps(body(asked(passenger=passenger, email=email, phone=phone)), ensure_ascii=False)
    quick = TypedParser(PASSENGERS).parse(raw.encode(), NOW_MS, lambda: "id")
    try:
        slow = InstanceParser(PASSENGERS).parse(json.loads(raw), NOW_MS, lambda: "id")
    except InvalidRequest:
        slow = None
    assert quick is None or quick == slow


class Scripts:
    """Where Redis stands: keeps every word that it was told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    async def script(self, source: str, keys: list[str], arguments: list[Any]) -> Any:
        self.said.append((keys, arguments))
        return [MINE.encode(), str(NOW_MS).encode(), b""] if "HMGET" in source else 1


async def test_redis_gets_neither_the_body_nor_a_hash_that_confirms_a_guess(
    serving: Service, log: SealedLog
) -> None:
    redis = Scripts()
    once = Once("r", redis)  # type: ignore[arg-type]
    assert serving.sealer is not None
    once.fingerprint = serving.sealer.fingerprint
    serving.new_id, serving.now_ms = new_id, now_ms
    raw = json.dumps(body(asked())).encode()
    made = guard(GuardSettings(), access=folded())
    async with connect_guarded(serving, made, once) as http:
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        answers = [await http.post(PREDICT, content=raw, headers=headers) for _ in range(2)]
        other = await http.post(PREDICT, content=raw + b" ", headers=headers)
    assert [one.status_code for one in answers] == [200, 200]
    assert answers[0].content == answers[1].content and other.status_code == 422
    assert len(log.events) == 1
    said = repr(redis.said).encode()
    assert len(redis.said) >= 2
    assert not [secret for secret in SECRETS if secret in said]
    digest = hashlib.sha256(raw).digest()
    assert not any(digest in arguments for _, arguments in redis.said)


async def test_a_keyed_request_without_keys_is_refused(log: SealedLog, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "none.sqlite", tmp_path / "none.key", create=False)
    made = serve(log, keys)
    once = Once("r")
    assert made.sealer is not None
    once.fingerprint = made.sealer.fingerprint
    async with connect_guarded(made, guard(GuardSettings(), access=folded()), once) as http:
        answer = await http.post(PREDICT, json=body(asked()), headers={"Idempotency-Key": "k"})
    assert answer.status_code == 503 and "key store" in answer.json()["detail"]


def test_the_document_says_what_is_personal_and_its_example_is_accepted() -> None:
    described = predict_body([PASSENGERS])["requestBody"]["content"]["application/json"]
    fields = described["schema"]["properties"]["instances"]["items"]["anyOf"][0]
    assert set(WHO) <= set(fields["required"])
    assert fields["properties"]["email"]["maxLength"] == 64
    example = described["examples"]["flights"]["value"]
    assert InstanceParser(PASSENGERS).parse(example, NOW_MS, lambda: "id")
