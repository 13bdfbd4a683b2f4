"""Faust's Kafka transport, with short fetches."""

from __future__ import annotations

import asyncio

import aiokafka
from faust.transport.drivers import aiokafka as driver

FETCH_WAIT_MS = 50
"""How long a broker may hold back an empty answer.

aiokafka has one fetch on its way to each broker, and what was just read is only asked for again in the next
one: with Faust's 1,500 ms a topic that is written to stands still beside one that is not.
"""


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # read when it starts
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class Transport(driver.Transport):
    """For `app.transport`."""

    Consumer = _Consumer
