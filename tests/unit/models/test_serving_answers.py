"""Retries of a request: one answer, one set of facts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

import pytest

from models.serving.answers import Answer, Answers, key_of
from schemas.event import Event
from streams.log import LogUnavailable


class Caller:
    """Sends one request again and again; each preparation would make another event."""

    def __init__(self, answers: Answers | None = None) -> None:
        self.answers = answers or Answers()
        self.log: list[Event] = []
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._numbers = count()

    async def prepare(self) -> tuple[Answer, Sequence[Event]]:
        number = next(self._numbers)
        return {"number": number}, [Event("t", "PredictionMade", {"event_id": "a", "n": number})]

    async def append(self, events: Sequence[Event]) -> None:
        await self.gate.wait()
        self.log += events
        if self.broken:  # as a timeout: the log may have taken them all the same
            raise LogUnavailable("no acknowledgement")

    async def send(self, key: bytes = b"request") -> int:
        answer = await self.answers.once(key, self.prepare, self.append)
        return int(answer["number"])


async def test_a_repeated_request_is_answered_from_memory() -> None:
    caller = Caller()
    assert [await caller.send(), await caller.send()] == [0, 0]
    assert len(caller.log) == 1


async def test_a_retry_that_overtakes_the_first_waits_for_its_answer() -> None:
    caller = Caller()
    caller.gate.clear()
    sent = [asyncio.create_task(caller.send()) for _ in range(3)]
    await asyncio.sleep(0)
    caller.gate.set()
    assert await asyncio.gather(*sent) == [0, 0, 0]
    assert len(caller.log) == 1


async def test_a_retry_after_a_failed_append_repeats_the_same_facts() -> None:
    caller = Caller()
    caller.broken = True
    with pytest.raises(LogUnavailable):
        await caller.send()
    caller.broken = False
    assert await caller.send() == 0
    assert [event.data["n"] for event in caller.log] == [0, 0]


async def test_a_caller_that_gives_up_leaves_the_answer_to_the_next() -> None:
    caller = Caller()
    caller.gate.clear()
    leaving, staying = (asyncio.create_task(caller.send()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    caller.gate.set()
    assert await staying == 0
    assert len(caller.log) == 1


async def test_only_the_newest_requests_are_remembered() -> None:
    caller = Caller(Answers(capacity=2))
    first = [await caller.send(key) for key in (b"a", b"b", b"c")]
    assert first == [0, 1, 2]
    assert [await caller.send(key) for key in (b"c", b"b", b"a")] == [2, 1, 3]


def test_a_request_is_known_by_its_task_and_its_body() -> None:
    assert key_of("a", b"body") == key_of("a", b"body")
    assert len({key_of("a", b"body"), key_of("b", b"body"), key_of("a", b"other")}) == 3
