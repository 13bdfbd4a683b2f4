"""Idempotency keys: the same key and body get the first answer, and each event counts once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftlog.client_core import FIRST_SENT
from models.serving.guards.once import LocalAnswers, Once, Pinned, parse_key, pinned
from models.serving.guards.recall import Recall
from models.serving.guards.settings import GuardSettings
from models.serving.guards.setup import new_id, now_ms
from models.serving.service import Service
from schemas.event import Event
from streams.log import LogUnavailable
from tests.unit.models.guard_parts import bearer, connect, folded, guard, issue
from tests.unit.models.serving_parts import MemoryLog, champion, flight, service

PREDICT = "/v1/tasks/flights/predict"
LABELS = "/v1/tasks/flights/labels"
ASK = {"instances": [flight(), flight(distance=10.0)]}


def served(log: MemoryLog) -> Service:
    """A service whose ids and times are the guards' to make."""
    made = service(log)
    made.new_id, made.now_ms = new_id, now_ms
    return made


def opened(log: MemoryLog, once: Once | None = None) -> httpx.AsyncClient:
    made = once or Once("one", patience_s=0.2)
    return connect(served(log), guard(GuardSettings(), folded()), made)


def with_key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


async def test_the_same_key_and_body_get_the_same_answer_and_one_event() -> None:
    log = MemoryLog()
    async with opened(log) as http:
        first = await http.post(PREDICT, json=ASK, headers=with_key("a"))
        again = await http.post(PREDICT, json=ASK, headers=with_key('"a"'))
        other = await http.post(PREDICT, json=ASK, headers=with_key("b"))
    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert other.json()["predictions"][0]["event_id"] != first.json()["predictions"][0]["event_id"]
    assert len(log.events) == 4


async def test_the_same_key_with_another_body_is_refused_and_adds_nothing() -> None:
    log = MemoryLog()
    async with opened(log) as http:
        await http.post(PREDICT, json=ASK, headers=with_key("a"))
        answer = await http.post(
            PREDICT, json={"instances": [flight(hour=3.0)]}, headers=with_key("a")
        )
        assert answer.status_code == 422 and "new key" in answer.json()["detail"]
        long = await http.post(PREDICT, json=ASK, headers=with_key("x" * 256))
        assert long.status_code == 400
    assert len(log.events) == 2


async def test_a_restarted_service_makes_the_same_ids() -> None:
    log = MemoryLog()
    answers = []
    for _ in range(2):  # nothing is kept from one to the other but the log
        async with opened(log) as http:
            answers.append((await http.post(PREDICT, json=ASK, headers=with_key("a"))).json())
    assert answers[0] == answers[1]
    assert len(log.events) == 4 and len({event.id for event in log.events}) == 2


async def test_keys_are_the_callers_own() -> None:
    log = MemoryLog()
    access = folded(issue(1, "*:*"), issue(2, "*:*"))
    made = guard(access=access)
    async with connect(served(log), made, Once("one")) as http:
        answers = [
            await http.post(PREDICT, json=ASK, headers=with_key("a") | bearer(number))
            for number in (1, 2, 1)
        ]
    ids = [answer.json()["predictions"][0]["event_id"] for answer in answers]
    assert ids[0] == ids[2] != ids[1]
    assert len(log.events) == 4


async def test_a_retry_that_overtakes_the_first_waits_for_it_and_is_told_to_come_back() -> None:
    log = MemoryLog()
    log.gate.clear()
    async with opened(log) as http:
        first = asyncio.create_task(http.post(PREDICT, json=ASK, headers=with_key("a")))
        await log.waiting.wait()
        busy = await http.post(PREDICT, json=ASK, headers=with_key("a"))
        assert busy.status_code == 409 and "Retry-After" in busy.headers
        second = asyncio.create_task(http.post(PREDICT, json=ASK, headers=with_key("a")))
        log.gate.set()
        assert (await first).content == (await second).content
    assert len(log.events) == 2


async def test_what_was_not_acknowledged_is_said_again_with_the_same_ids_and_time() -> None:
    log = MemoryLog()
    log.broken = True
    asked: list[Sequence[Event]] = []

    async def recall(events: Sequence[Event]) -> Sequence[Event]:
        now = pinned.get()
        assert now is not None
        if now.again:
            asked.append(events)
        return events

    made = served(log)
    made.recall = recall
    async with connect(made, guard(GuardSettings(), folded()), Once("one")) as http:
        failed = await http.post(PREDICT, json=ASK, headers=with_key("a"))
        assert failed.status_code == 503 and asked == []
        log.broken = False
        made.desks["flights"].champion = champion("flights-2", at=0.5)
        answer = await http.post(PREDICT, json=ASK, headers=with_key("a"))
    assert answer.status_code == 200
    assert [event.id for event in asked[0]] == [event.id for event in log.events]
    assert {event.time for event in log.events} == {asked[0][0].time}


async def test_a_request_that_was_refused_may_be_corrected_under_its_key() -> None:
    log = MemoryLog()
    async with opened(log) as http:
        bad = await http.post(
            PREDICT, json={"instances": [flight(hour="x")]}, headers=with_key("a")
        )
        assert bad.status_code == 422
        good = await http.post(PREDICT, json=ASK, headers=with_key("a"))
        assert good.status_code == 200
    assert len(log.events) == 2


async def test_labels_under_a_key_keep_their_time() -> None:
    log = MemoryLog()
    async with opened(log) as http:
        body = {"labels": [{"prediction_id": "a", "label": 1}]}
        answers = [await http.post(LABELS, json=body, headers=with_key("a")) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert len(log.events) == 1


@pytest.mark.parametrize("bad", ["", '""', "\x00", "é", "x" * 256])
def test_a_key_is_short_printable_text(bad: str) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        parse_key(bad)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=60))
def test_claims_are_given_to_one_at_a_time_and_answers_stay(history: Any) -> None:
    """Requests begin, and end with an answer or without; two never run under one key."""
    answers = LocalAnswers()
    running: set[int] = set()
    said: dict[int, bytes] = {}
    for step, (number, ends, with_answer) in enumerate(history):
        scope = str(number)
        if ends and number in running:
            running.discard(number)
            if with_answer:
                said[number] = b"%d" % step
                answers.keep(scope, said[number])
            else:
                answers.release(scope, forget=False)
            continue
        claim = answers.claim(scope, b"body", step)
        if number in said:
            assert claim.state == "known" and claim.answer == said[number]
        elif number in running:
            assert claim.state == "busy"
        else:
            assert claim.state == "mine"
            running.add(number)
        assert answers.claim(scope, b"other", step).state == "other"


def test_only_requests_that_ended_are_forgotten() -> None:
    answers = LocalAnswers(capacity=2)
    answers.claim("running", b"", 0)
    for number in range(5):
        answers.claim(str(number), b"", number)
        answers.keep(str(number), b"x")
    assert answers.claim("running", b"", 9).state == "busy"
    assert answers.claim("0", b"", 9).state == "mine"


async def test_a_request_that_is_sent_again_gets_the_answer_that_is_in_the_log() -> None:
    """The replica that died had another model; its caller never heard of its answer."""
    log = MemoryLog()
    ask = {"instances": [flight(event_id="mine")]}
    dead, alive = served(log), served(log)
    dead.desks["flights"].champion = champion("flights-2", at=0.5)

    async def recall(events: Sequence[Event]) -> Sequence[Event]:
        now = pinned.get()
        if now is None or not now.again:
            return events
        logged = {event.id: event for event in reversed(log.events)}
        return [logged.get(event.id, event) for event in events]

    alive.recall = recall
    made = guard(GuardSettings(), folded())
    async with connect(dead, made, Once("one")) as one, connect(alive, made, Once("two")) as two:
        first = (await one.post(PREDICT, json=ask)).json()
        sent = {FIRST_SENT: str(made.now_ms())}
        again = (await two.post(PREDICT, json=ask, headers=sent)).json()
        unnamed = (await two.post(PREDICT, json=ASK, headers=sent)).json()
        long_ago = {FIRST_SENT: str(made.now_ms() - 3_600_000)}
        late = (await two.post(PREDICT, json=ask | {"x": 1}, headers=long_ago)).status_code
    assert first["model_version"] == again["model_version"] == "flights-2"
    assert again == first
    assert len({each["event_id"] for each in unnamed["predictions"]}) == 2
    assert unnamed["model_version"] == "flights-1"
    assert late == 422
    assert {event.data["score"] for event in log.events if event.id == "mine"} == {
        first["predictions"][0]["score"]
    }


async def test_those_who_come_while_the_log_is_looked_through_share_the_next_look() -> None:
    looked: list[set[str]] = []

    class Counted(Recall):
        def _find(self, topic: str, wanted: set[str], since: int) -> dict[str, Event]:
            looked.append(set(wanted))
            if "broken" in wanted:
                raise LogUnavailable("no broker answers")
            return {}

    recall = Counted("", None)  # type: ignore[arg-type]

    async def again(name: str) -> Sequence[Event] | str:
        token = pinned.set(Pinned("", 5, again=True))
        try:
            return await recall([Event("t", "PredictionMade", {"event_id": name})])
        except LogUnavailable as error:
            return str(error)
        finally:
            pinned.reset(token)

    first = asyncio.create_task(again("first"))
    while not looked:
        await asyncio.sleep(0)
    rest = await asyncio.gather(*(again(f"{number}") for number in range(20)))
    assert len(await first) == 1 and all(len(each) == 1 for each in rest)
    assert len(looked) <= 3, "one for the first, one or two for all the others"
    assert await again("broken") == "no broker answers"
    assert len(await again("after")) == 1
