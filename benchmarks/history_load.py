"""Steady load: events at a given rate, and how far behind them what is stored stands, in seconds."""

from __future__ import annotations

import statistics
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Producer

from benchmarks.drift_windows import workload
from benchmarks.drift_windows.encoder import encode, keys
from infra.settings import Settings
from schemas.catalogue import task_topics
from schemas.registry.client import RegistryClient
from streams.log import CLIENT_SETTINGS
from streams.topics import ensure_topics, register_schemas

TICK_S = 0.05
LOOK_S = 0.25
_BLOCK = 50_000


@dataclass(frozen=True)
class Step:
    """One rate, held for some seconds. Lags: age of the oldest event that is not stored."""

    asked_mb: float
    sent_mb: float
    stored_mb: float
    lag_median_s: float
    lag_most_s: float
    kept_up: bool


class Load:
    """Sends predictions that never repeat, at any rate asked for, until the process ends."""

    def __init__(self, settings: Settings, task: str, partitions: int) -> None:
        kinds = dict.fromkeys(workload.FEATURES, "double")
        topics = task_topics(task, kinds, (), partitions)
        ensure_topics(settings.bootstrap, topics, settings.replication)
        registry = RegistryClient(settings.registry, settings.home / "schemas")
        register_schemas(registry, topics)
        self.topic = topics[0].name
        self._schema_id = registry.schema_id(topics[0].subject, topics[0].value_schema)
        self._partitions = partitions
        self._producer = Producer(
            {
                **CLIENT_SETTINGS,
                "bootstrap.servers": settings.bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
            }
        )
        self._ready: list[tuple[bytes, bytes]] = []
        self._seed = 0
        self.sent = 0
        """Events sent so far."""

    def prepare(self, events: int) -> None:
        """Encode so many ahead, so that encoding takes nothing from what is measured."""
        while len(self._ready) < events:
            self._seed += 1
            work = workload.make(_BLOCK, self._partitions, seed=self._seed)
            values, ends = encode(work, self._schema_id, 0, _BLOCK)
            ids = keys(work, 0, _BLOCK)
            places = [0, *ends.tolist()]
            self._ready += [
                (ids[36 * row : 36 * row + 36], values[places[row] : places[row + 1]])
                for row in range(_BLOCK)
            ]

    def send(self, count: int) -> int:
        """Bytes of payload."""
        size = 0
        for _ in range(min(count, len(self._ready))):
            key, value = self._ready.pop()
            while True:
                try:
                    self._producer.produce(self.topic, value, key)
                    break
                except BufferError:
                    self._producer.poll(0.05)
            size += len(value)
            self.sent += 1
        self._producer.poll(0)
        return size

    def flush(self) -> None:
        if self._producer.flush(30):
            raise TimeoutError("the brokers do not acknowledge the load")

    @property
    def event_bytes(self) -> float:
        sample = self._ready[:1000]
        return sum(len(value) for _, value in sample) / len(sample)


def load(made: Load, rate_mb: float, seconds: float, stored: Callable[[], int]) -> Step:
    """Hold a rate. `stored` tells how many events of the topic are stored; they are waited for before."""
    made.prepare(_BLOCK)
    per_second = rate_mb * 1e6 / made.event_bytes
    made.prepare(int(per_second * seconds * 1.1))
    size = made.event_bytes
    _wait(stored, made.sent, 120)
    times, counts, first = [time.monotonic()], [made.sent], made.sent
    lags: list[float] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_S):
            lags.append(lag_seconds(times, counts, stored(), time.monotonic()))

    watcher = threading.Thread(target=look)
    watcher.start()
    began = time.monotonic()
    try:
        while (passed := time.monotonic() - began) < seconds:
            made.send(int(passed * per_second) - (made.sent - first))
            times.append(time.monotonic())
            counts.append(made.sent)
            time.sleep(TICK_S)
        sent_s = time.monotonic() - began
        at_end = stored() - first
        made.flush()
    finally:
        done.set()
        watcher.join()
    half = lags[len(lags) // 2 :]  # what it settled to
    sent_mb = (made.sent - first) * size / sent_s / 1e6
    return Step(
        rate_mb,
        sent_mb,
        at_end * size / sent_s / 1e6,
        statistics.median(half),
        max(half),
        max(half) < seconds / 4 and sent_mb > 0.95 * rate_mb,
    )


def lag_seconds(times: list[float], counts: list[int], stored: int, now: float) -> float:
    """Age of the oldest event not stored: `counts[i]` events had been sent at `times[i]`, ascending."""
    place = bisect_right(counts, stored)
    return max(0.0, now - times[place]) if place < len(counts) else 0.0


def _wait(stored: Callable[[], int], count: int, timeout_s: float) -> None:
    give_up = time.monotonic() + timeout_s
    while stored() < count:
        if time.monotonic() > give_up:
            raise TimeoutError("what was sent before is not stored")
        time.sleep(LOOK_S)
