"""The quick way reads what it takes as the long way does, and takes nothing that the long way refuses."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.serving.bodies import parse_json
from models.serving.ids import PlacedIds
from models.serving.instances import InstanceParser, InvalidRequest
from models.serving.problems import Problem
from models.serving.typed import TypedParser
from streams.task import Ask, Category, Numeric, Task, Text
from tests.unit.models.serving_parts import FLIGHTS, NOW_MS, MemoryLog, flight, service
from tests.unit.models.test_serving_api import BODIES, PREDICT, connect

REVIEWS = Task(
    name="reviews",
    features=(
        Text("review", max_length=300),
        Text("title", max_length=8),
        Category("shop"),
        Numeric("stars"),
    ),
    label="liked",
)
PARSERS = {task.name: (TypedParser(task), InstanceParser(task)) for task in (FLIGHTS, REVIEWS)}


def numbers() -> Callable[[], str]:
    made = count()
    return lambda: f"id-{next(made)}"


def long_way(raw: bytes, task: str) -> list[Ask] | None:
    try:
        return PARSERS[task][1].parse(parse_json(raw), NOW_MS, numbers())
    except (Problem, InvalidRequest):
        return None


def agree(raw: bytes, task: str = "flights") -> list[Ask] | None:
    quick = PARSERS[task][0].parse(raw, NOW_MS, numbers())
    if quick is not None:
        # repr tells 0.0 from -0.0 and 1 from 1.0
        expected = long_way(raw, task)
        assert expected is not None, raw
        shown = [(a.time, a.id, repr(sorted(a.instance.items()))) for a in quick]
        assert shown == [(a.time, a.id, repr(sorted(a.instance.items()))) for a in expected]
    return quick


TEXT = st.sampled_from(["AA", "", "a:b", "é", "x" * 257, "::", "\u2028", 'quo"te'])
NUMBER = st.sampled_from([0, -0.0, 1, 1.5, 1e38, 4e38, 2**70, -3, 10**400, 0.1, 5e-324])
ID = st.sampled_from(["a", "b", "", "i:d", "y" * 101]) | st.text(max_size=4)
TIME = st.sampled_from(
    ["2013-07-01T12:00:00Z", "2013-07-01", "soon", NOW_MS, -1, 10**20, 1.5, None]
)
PLAIN = st.fixed_dictionaries(
    {
        name: (TEXT if isinstance(value, str) else NUMBER) | st.none()
        for name, value in flight().items()
    },
    optional={"event_id": ID, "event_time": TIME, "wind": NUMBER, "more": st.just({"a": {"b": 1}})},
)


@settings(max_examples=400, deadline=None)
@given(
    body=st.fixed_dictionaries(
        {"instances": st.lists(PLAIN, max_size=3)}, optional={"more": st.integers()}
    )
    | BODIES,
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_the_quick_way_agrees_with_the_long_one(
    body: Any, ascii_only: bool, indent: int | None
) -> None:
    agree(json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass"))


REVIEW = st.fixed_dictionaries(
    {
        "review": st.sampled_from(
            ["", "good: very good", "é" * 300, "x" * 301, "a\u2028b", "\ud800"]
        )
        | NUMBER,
        "title": st.sampled_from(["12345678", "123456789", "a:b", "éééééééé"]) | st.none(),
        "shop": TEXT | st.none(),
        "stars": NUMBER | st.none() | st.just("5"),
    },
    optional={"event_id": ID, "event_time": TIME},
)


@settings(max_examples=200, deadline=None)
@given(instances=st.lists(REVIEW, min_size=1, max_size=3), ascii_only=st.booleans())
def test_it_agrees_about_free_texts(instances: list[dict[str, Any]], ascii_only: bool) -> None:
    raw = json.dumps({"instances": instances}, ensure_ascii=ascii_only)
    agree(raw.encode("utf-8", "surrogatepass"), "reviews")


@pytest.mark.parametrize(
    ("review", "taken"), [("fine: really", True), ("x" * 300, True), ("x" * 301, False), (5, False)]
)
def test_the_quick_way_takes_free_texts(review: object, taken: bool) -> None:
    one = {"review": review, "title": None, "shop": "x" * 256, "stars": 4}
    assert (agree(json.dumps({"instances": [one]}).encode(), "reviews") is not None) == taken


@settings(max_examples=300, deadline=None)
@given(
    at=st.integers(0, 400), cut=st.integers(0, 12), put=st.binary(max_size=8), twice=st.booleans()
)
def test_it_agrees_about_bodies_with_something_wrong(
    at: int, cut: int, put: bytes, twice: bool
) -> None:
    raw = json.dumps({"instances": [flight(event_id="a"), flight(carrier="a:b")]}).encode()
    at %= len(raw)
    agree(raw[:at] + put + raw[at : at + cut] * twice + raw[at + cut * (not twice) :])


@pytest.mark.parametrize(
    ("raw", "taken"),
    [
        (json.dumps({"instances": [flight()]}), True),
        (
            json.dumps({"instances": [flight(event_id="a:b", event_time="2013-07-01T12:00:00Z")]}),
            True,
        ),
        (json.dumps({"instances": [flight(carrier=None, distance=7)]}), True),
        (json.dumps({"instances": [flight(event_id="a")] * 2}), False),
        (json.dumps({"instances": [flight(carrier="\n")]}), False),
        (json.dumps({"instances": [flight(wind=1.0)]}), False),
        (json.dumps({"instances": [flight()]})[:-1] + ', "instances": []}', False),
        (json.dumps({"instances": [flight()]}).replace('"hour"', '"hour": 1, "hour"'), False),
        (json.dumps({"instances": []}), False),
        ("\ufeff" + json.dumps({"instances": [flight()]}), False),
    ],
)
def test_what_the_quick_way_takes(raw: str, taken: bool) -> None:
    assert (agree(raw.encode()) is not None) == taken


async def test_both_ways_give_the_same_answer_and_event() -> None:
    answers, events = [], []
    # The long way is taken for a header that somebody else may look at.
    for headers in ({}, {"Idempotency-Key": "k"}):
        log = MemoryLog()
        async with connect(service(log)) as client:
            raw = json.dumps({"instances": [flight(event_id="a", distance=900)]})
            answer = await client.post(
                PREDICT, content=raw, headers={"content-type": "application/json", **headers}
            )
            answers.append(answer.json())
            events.append(log.events[0].data)
            metrics = (await client.get("/metrics")).text
            assert 'route="/v1/tasks/{task}/predict",status="200"} 1.0' in metrics
    assert answers[0] == answers[1]
    assert events[0] == events[1]


async def test_both_ways_refuse_in_the_same_words() -> None:
    async def words(
        client: httpx.AsyncClient, **headers: str
    ) -> list[tuple[int, bytes, list[str]]]:
        found = []
        for raw in (b"", b"{}", json.dumps({"instances": [flight(hour="x")]}).encode()):
            answer = await client.post(PREDICT, content=raw, headers=headers)
            found.append((answer.status_code, answer.content, sorted(answer.headers.values())))
        log.broken = True
        raw = json.dumps({"instances": [flight()]}).encode()
        answer = await client.post(PREDICT, content=raw, headers=headers)
        found.append((answer.status_code, answer.content, sorted(answer.headers.values())))
        log.broken = False
        return found

    log = MemoryLog()
    async with connect(service(log)) as client:
        quick = await words(client)
        assert quick == await words(client, **{"Idempotency-Key": "k"})
    assert [status for status, *_ in quick] == [422, 422, 422, 503]


@settings(max_examples=60)
@given(partitions=st.integers(1, 12), batches=st.integers(1, 5))
def test_the_ids_of_a_batch_share_a_partition_and_batches_go_round(
    partitions: int, batches: int
) -> None:
    ids = PlacedIds("t", lambda _, last: ((last + 1) % partitions, partitions))
    seen = set()
    for number in range(batches):
        ids.next_batch()
        made = {ids() for _ in range(40)}
        assert len(made) == 40
        assert {zlib.crc32(one.encode()) % partitions for one in made} == {number % partitions}
        assert all(one[14] == "4" and one[19] in "89ab" and len(one) == 36 for one in made)
        seen |= made
    assert len(seen) == 40 * batches


def test_without_a_log_ids_are_random() -> None:
    ids = PlacedIds("t")
    ids.next_batch()
    assert len({ids() for _ in range(600)}) == 600
