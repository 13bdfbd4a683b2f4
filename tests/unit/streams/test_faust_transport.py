"""A delivery that ends at once, one that waits, one that fails: as Faust's own `wait_first` has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streams.faust_transport import Deliveries


@pytest.fixture
async def service() -> AsyncIterator[Deliveries]:
    made = Deliveries()
    await made.start()
    yield made
    await made.stop()


async def delivery(queue: asyncio.Queue[int], item: int) -> str:
    await asyncio.sleep(0)
    await queue.put(item)
    return f"delivered {item}"


async def at_once(queue: asyncio.Queue[int], item: int) -> str:
    queue.put_nowait(item)
    return f"delivered {item}"


async def test_what_ends_at_once_needs_no_task(service: Deliveries) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    before = len(asyncio.all_tasks())
    first, never = at_once(queue, 1), asyncio.Event().wait()
    found = await service.wait_first(first, never)
    assert found.done == [first]
    assert found.results == ["delivered 1"]
    assert not found.stopped
    assert len(asyncio.all_tasks()) == before
    assert never.cr_frame is None, "the other would be reported as never awaited"


async def test_what_waits_goes_on_where_it_was(service: Deliveries) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    queue.put_nowait(0)
    waiting = asyncio.create_task(
        service.wait_first(delivery(queue, 1), asyncio.Event().wait(), timeout=5)
    )
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert await queue.get() == 0
    assert (await waiting).results == ["delivered 1"]
    assert await queue.get() == 1


async def test_a_rebalance_ends_the_wait(service: Deliveries) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    queue.put_nowait(0)
    suspended = asyncio.Event()
    waiting = asyncio.create_task(service.wait_first(delivery(queue, 1), suspended.wait()))
    await asyncio.sleep(0.01)
    suspended.set()
    found = await waiting
    assert found.results == [True]
    await asyncio.sleep(0.01)
    assert queue.qsize() == 1, "the delivery was given up"


@pytest.mark.parametrize("late", [False, True])
async def test_a_failure_is_raised(service: Deliveries, late: bool) -> None:
    async def failing() -> None:
        if late:
            await asyncio.sleep(0.001)
        raise LookupError("no such queue")

    with pytest.raises(LookupError, match="no such queue"):
        await service.wait_first(failing(), asyncio.Event().wait())


async def test_a_service_that_stops_says_so(service: Deliveries) -> None:
    async def stopping() -> None:
        service._stopped.set()

    assert (await service.wait_first(stopping(), asyncio.Event().wait())).stopped


async def test_a_cancellation_reaches_what_was_begun(service: Deliveries) -> None:
    ended = []

    async def cleaning_up() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(True)

    waiting = asyncio.create_task(service.wait_first(cleaning_up(), asyncio.Event().wait()))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0.01)
    assert ended == [True]
