"""Faust's Kafka transport, with short fetches and less ado about each record."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Self

import aiokafka
from faust.transport.drivers import aiokafka as driver
from mode.services import Service, WaitResults

FETCH_WAIT_MS = 50
"""How long a broker may hold back a small answer.

aiokafka has one fetch on its way to each broker, and what was just read is only asked for again in the next
one: with Faust's 1,500 ms a topic that is written to stands still beside one that is not.
"""


class Deliveries(Service):  # type: ignore[misc,unused-ignore]
    """A service whose first wait is for something that mostly ends at once."""

    async def wait_first(self, *coros: Any, timeout: Any = None) -> WaitResults:
        """Faust waits for a record's delivery or a rebalance, with four tasks for each record.

        A delivery ends at once unless a queue is full: tasks are for those that do not. (What is begun
        here may go on in a task, so it must not ask which task it runs in; deliveries do not.)
        """
        first, *others = coros
        if not others or not all(map(asyncio.iscoroutine, coros)):
            return await super().wait_first(*coros, timeout=timeout)
        try:
            blocked_on = first.send(None)
        except BaseException as ended:
            for other in others:
                other.close()
            if not isinstance(ended, StopIteration):
                raise
            return WaitResults([first], [ended.value], self.should_stop)
        return await super().wait_first(_rest(first, blocked_on), *others, timeout=timeout)


async def _rest(begun: Coroutine[Any, Any, Any], blocked_on: Any) -> Any:
    """What is left of a coroutine that has run up to its first wait."""
    return await _Resumed(begun, blocked_on)


class _Resumed:
    """Awaits what a begun coroutine waits for, then goes on with it."""

    def __init__(self, begun: Coroutine[Any, Any, Any], blocked_on: Any) -> None:
        self._begun = begun
        self._blocked_on = [blocked_on]

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # type: ignore[return-value]  # an iterator with what `await` asks of a generator

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        return self._blocked_on.pop() if self._blocked_on else self._begun.send(value)

    def throw(self, error: BaseException) -> Any:
        return self._begun.throw(error)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # read when it starts
        return consumer


class _Consumer(Deliveries, driver.Consumer):
    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class Transport(driver.Transport):
    """For `app.transport`."""

    Consumer = _Consumer
