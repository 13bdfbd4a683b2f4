"""The online feature store, read side: Redis strings `driftlog:<task>:<blob key>`, one MGET per request.

It is a cache of the feature fold. Without it requests are served with missing rates and observations, and
the answers say so. A store that its writer has not filled (just started, flushed) counts as absent.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from streams.features import Blob
from streams.online import FILLED, store_key

TIMEOUT_S = 1.0
PAUSE_S = 2.0
"""After a failure the store is left alone for so long: a dead one must not cost every request its timeout."""
LOOP_TURNS = 10
CACHED_BLOBS = 20_000

Blobs = Callable[[str], Blob | None]


class OnlineStore(Protocol):
    """Reads blobs; never raises."""

    @property
    def problem(self) -> str | None:
        """Why the last read brought nothing; None if it did."""

    async def blobs(self, task: str, keys: Sequence[str]) -> Blobs | None:
        """A lookup over `keys`; None if the store has no answer (`problem` says why)."""


class RedisStore:
    """See the module. Decoded blobs are kept per key together with the bytes they came from."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), protocol=2)
        self._clock = clock
        self._closed_until = 0.0
        self._decoded: dict[str, tuple[bytes, Blob | None]] = {}
        self.problem: str | None = None

    async def blobs(self, task: str, keys: Sequence[str]) -> Blobs | None:
        if not keys:
            return _nothing
        if self._clock() < self._closed_until:
            return None
        names = [store_key(task, key) for key in keys]
        values = await self._mget([store_key(task, FILLED), *names])
        if values is None:
            self.problem = "Redis does not answer"
            self._closed_until = self._clock() + PAUSE_S
            return None
        filled, *values = values
        self.problem = None if filled else "Redis is not filled yet"
        if not filled:
            return None
        pairs = zip(keys, names, values, strict=True)
        found = {key: self._decode(name, raw) for key, name, raw in pairs if raw is not None}
        return found.get

    async def _mget(self, names: list[str]) -> list[bytes | None] | None:
        """None if Redis fails or is silent for TIMEOUT_S (delays of this process do not count)."""
        call = cast("Awaitable[list[bytes | None]]", self._redis.mget(names))
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait({task}, timeout=TIMEOUT_S)
            for _ in range(LOOP_TURNS):
                if task.done():
                    break
                await asyncio.sleep(
                    0
                )  # the answer may be here already, behind other requests' work
            return task.result() if task.done() else None
        except (RedisError, OSError):
            return None
        finally:
            task.cancel()

    def _decode(self, name: str, raw: bytes) -> Blob | None:
        cached = self._decoded.get(name)
        if cached is not None and cached[0] == raw:
            return cached[1]
        try:
            blob = json.loads(raw)
        except ValueError:
            blob = None
        if len(self._decoded) >= CACHED_BLOBS:
            self._decoded.clear()
        self._decoded[name] = raw, blob if isinstance(blob, list) else None
        return self._decoded[name][1]

    async def close(self) -> None:
        await self._redis.aclose()


def _nothing(_: str) -> Blob | None:
    return None
