"""Dynamic batching: who is answered together, and that nobody pays for another's mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.serving.batching import Batcher
from models.serving.core import Champion, Request, predict_all
from models.serving.instances import InvalidRequest
from models.serving.lineup import Dealt
from streams.task import Ask
from tests.unit.models.serving_parts import FLIGHTS, NOW_MS, Line, champion, flight


class Kitchen:
    """Notes the batches that it gets; while `gate` is closed they take for ever."""

    def __init__(self, rows: int = 512, wait_s: float = 60.0) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.batcher: Batcher[str, str] = Batcher(self.cook, rows, wait_s)

    async def cook(self, orders: Sequence[str]) -> list[str | Exception]:
        self.batches.append(list(orders))
        await self.gate.wait()
        return [ValueError(order) if "bad" in order else order.upper() for order in orders]

    async def order(self, what: str) -> str:
        found = await self.batcher.join(what)
        self.batcher.finish()
        return found

    def orders(self, *what: str) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(self.order(each)) for each in what]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_one_alone_starts_at_once() -> None:
    kitchen = Kitchen()
    assert await kitchen.order("a") == "A"
    assert kitchen.batches == [["a"]]


async def test_who_comes_meanwhile_goes_together() -> None:
    kitchen = Kitchen()
    kitchen.gate.clear()
    first = kitchen.orders("a")
    await turns()
    later = kitchen.orders("b", "c", "d")
    await turns()
    assert kitchen.batches == [["a"]]
    kitchen.gate.set()
    assert await asyncio.gather(*first, *later) == ["A", "B", "C", "D"]
    assert kitchen.batches == [["a"], ["b", "c", "d"]]


async def test_a_batch_lasts_until_its_last_request_is_finished() -> None:
    kitchen = Kitchen()
    assert await kitchen.batcher.join("a") == "A"
    later = kitchen.orders("b")
    await turns()
    assert kitchen.batches == [["a"]]
    kitchen.batcher.finish()
    assert await later[0] == "B"


async def test_a_batch_that_stalls_holds_others_up_for_a_while_only() -> None:
    kitchen = Kitchen(wait_s=0.01)
    kitchen.gate.clear()
    first = kitchen.orders("a")
    await turns()
    later = kitchen.orders("b")
    while len(kitchen.batches) < 2:
        await asyncio.sleep(0.001)
    kitchen.gate.set()
    assert await asyncio.gather(*first, *later) == ["A", "B"]


async def test_enough_instances_wait_for_nobody() -> None:
    kitchen = Kitchen(rows=4)
    kitchen.gate.clear()
    waiting = kitchen.orders("a")
    await turns()
    waiting += kitchen.orders("bb", "cc", "dddddd", "e")
    await turns(10)
    assert kitchen.batches == [["a"], ["bb", "cc"], ["dddddd"]], "a large one is a batch of its own"
    kitchen.gate.set()
    assert await asyncio.gather(*waiting) == ["A", "BB", "CC", "DDDDDD", "E"]


async def test_one_error_is_one_callers_error() -> None:
    kitchen = Kitchen()
    found = await asyncio.gather(*kitchen.orders("a", "bad", "c"), return_exceptions=True)
    assert (found[0], found[2]) == ("A", "C")
    assert isinstance(found[1], ValueError)
    assert await kitchen.order("d") == "D"


async def test_what_goes_wrong_as_a_whole_is_everybodys_error_and_then_over() -> None:
    async def fail(orders: Sequence[str]) -> list[str | Exception]:
        raise RuntimeError(f"{len(orders)} orders")

    batcher: Batcher[str, str] = Batcher(fail)
    for _ in range(2):
        found = await asyncio.gather(batcher.join("a"), batcher.join("b"), return_exceptions=True)
        assert [str(error) for error in found] == ["2 orders"] * 2


async def test_a_caller_that_leaves_leaves_no_trace() -> None:
    kitchen = Kitchen()
    kitchen.gate.clear()
    first = kitchen.orders("a")
    await turns()
    leaving, staying = kitchen.orders("b", "c")
    await turns()
    leaving.cancel()
    first[0].cancel()
    await turns()
    kitchen.gate.set()
    assert await staying == "C"
    assert kitchen.batches == [["a"], ["c"]]
    assert await kitchen.order("d") == "D"


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.integers(0, 3), st.text("ab", min_size=1, max_size=4), st.booleans()),
        max_size=25,
    ),
    rows=st.integers(1, 6),
)
def test_everybody_is_answered_once_whoever_comes_and_goes(
    plan: list[tuple[int, str, bool]], rows: int
) -> None:
    async def run() -> None:
        kitchen = Kitchen(rows, wait_s=0.001)
        made: list[tuple[str, bool, asyncio.Task[str]]] = []
        for pause, text, leaves in plan:
            (task,) = kitchen.orders(text)
            made.append((text, leaves, task))
            await turns(pause)
            if leaves:
                task.cancel()
        async with asyncio.timeout(60):
            found = await asyncio.gather(*(task for *_, task in made), return_exceptions=True)
            assert await kitchen.order("z") == "Z", "nothing is left under way"
        for (text, leaves, _), one in zip(made, found, strict=True):
            assert one == text.upper() or (leaves and isinstance(one, asyncio.CancelledError))
        assert all(len(batch) == 1 or sum(map(len, batch)) <= rows for batch in kitchen.batches)

    asyncio.run(run())


def asks(*distances: float | None) -> list[Ask]:
    return [Ask(NOW_MS, f"{d}-{n}", flight(distance=d)) for n, d in enumerate(distances)]


class Moody:
    """Fails on any batch with a negative distance; has no finite score at 13."""

    def __init__(self, at: float = 0.1) -> None:
        self.calls: list[int] = []
        self._line = Line(at)

    def score(self, vectors: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        self.calls.append(len(vectors))
        if any((v["distance"] or 0) < 0 for v in vectors):
            raise ValueError("negative")
        scores = self._line.score(vectors)
        return np.where([v["distance"] == 13 for v in vectors], np.nan, scores)


def moody(version: str, at: float = 0.1) -> Champion:
    return Champion(version, Moody(at), NOW_MS, "all gates passed")


def nothing(_: str) -> None:
    return None


def test_requests_that_go_well_are_one_call_of_the_model() -> None:
    who = moody("flights-1")
    requests = [Request(who, asks(*range(100, 100 + size))) for size in (1, 3, 2)]
    found = predict_all(FLIGHTS, requests, nothing)
    assert [len(one) for one in found if isinstance(one, list)] == [1, 3, 2]
    assert isinstance(who.scorer, Moody)
    assert who.scorer.calls == [6]


RISKY = st.lists(st.sampled_from([None, -1.0, 13.0, 100.0, 4_000.0]), min_size=1, max_size=3)


@settings(max_examples=80, deadline=None)
@given(
    wanted=st.lists(st.tuples(RISKY, st.sampled_from("abc"), st.booleans()), max_size=6),
    degraded=st.sampled_from([None, "online_features"]),
)
def test_together_is_as_alone(
    wanted: list[tuple[list[float | None], str, bool]], degraded: str | None
) -> None:
    versions = {name: moody(f"flights-{name}", n / 10) for n, name in enumerate("abc")}
    challenger = moody("flights-new", 0.5)
    requests = []
    for distances, name, splits in wanted:
        them = asks(*distances)
        half = len(them) // 2
        parts = [
            Dealt(versions[name], tuple(range(half)), "r/1/champion"),
            Dealt(challenger, tuple(range(half, len(them))), "r/1/challenger", "r/1/null"),
        ]
        requests.append(Request(versions[name], them, parts if splits else None))
    together = predict_all(FLIGHTS, requests, nothing, degraded)
    for request, found in zip(requests, together, strict=True):
        (alone,) = predict_all(FLIGHTS, [request], nothing)
        if isinstance(alone, Exception):
            assert (type(found), str(found)) == (type(alone), str(alone))
        else:
            assert isinstance(found, list)
            assert [event.data | {"degraded": None} for event in found] == [e.data for e in alone]
            assert {event.data["degraded"] for event in found} <= {degraded}


def test_no_finite_score_names_the_instance_of_its_own_request() -> None:
    who = champion()
    odd = moody("flights-1")
    requests = [
        Request(who, asks(1.0, 2.0)),
        Request(odd, asks(5.0, 13.0)),
        Request(odd, asks(6.0)),
    ]
    first, second, third = predict_all(FLIGHTS, requests, nothing)
    assert isinstance(first, list)
    assert isinstance(third, list)
    assert isinstance(second, InvalidRequest)
    assert second.errors[0].loc == "instances[1]"
    (alone,) = predict_all(FLIGHTS, [Request(odd, asks(13.0))], nothing)
    assert isinstance(alone, InvalidRequest)
