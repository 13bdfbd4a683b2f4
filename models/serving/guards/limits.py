"""Token buckets: a caller has `burst` tokens, a request takes one, and `rate` come back each second.

In Redis all replicas share them; one script reads and writes a bucket, so no two requests get the same token.
While Redis is away each process counts for itself: n replicas then let n times as much through.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

logger = structlog.get_logger()

CALLERS = 20_000
"""Buckets in memory; the one that was used least recently goes first, and is full when it comes back."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests a second in the long run, and how many may come at once."""

    rate: float
    burst: float

    @classmethod
    def of(cls, rate: float, burst: float = 0.0) -> Limit:
        return cls(rate, max(burst or rate, 1.0))


@dataclass(frozen=True, slots=True)
class Taken:
    """What a request got: a token or a wait."""

    granted: bool
    left: float
    """Tokens after it."""
    wait_s: float
    """Until the next token; 0 if it got one."""


def refill(tokens: float, elapsed_s: float, limit: Limit) -> float:
    """Tokens after `elapsed_s`; time that runs backwards brings none."""
    return min(limit.burst, tokens + max(0.0, elapsed_s) * limit.rate)


def take(tokens: float, limit: Limit) -> tuple[float, Taken]:
    """(tokens afterwards, what the request got)."""
    if tokens >= 1.0:
        return tokens - 1.0, Taken(True, tokens - 1.0, 0.0)
    return tokens, Taken(False, tokens, (1.0 - tokens) / limit.rate)


class Buckets(Protocol):
    """Where tokens are counted."""

    async def take(self, caller: str, limit: Limit) -> Taken:
        """One request of `caller`."""


class LocalBuckets:
    """In this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, callers: int = CALLERS) -> None:
        self._clock = clock
        self._callers = callers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def take(self, caller: str, limit: Limit) -> Taken:
        now = self._clock()
        tokens, at = self._buckets.pop(caller, (limit.burst, now))
        tokens, taken = take(refill(tokens, now - at, limit), limit)
        self._buckets[caller] = tokens, now
        if len(self._buckets) > self._callers:
            self._buckets.popitem(last=False)
        return taken


SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(found[1]) or burst
local elapsed = math.max(0, now - (tonumber(found[2]) or now))
tokens = math.min(burst, tokens + elapsed * rate)
local granted = tokens >= 1
if granted then tokens = tokens - 1 end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.9f', tokens), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(1000 * burst / rate) + 1000)
return {granted and 1 or 0, string.format('%.9f', tokens)}
"""
"""The same as `refill` and `take`, by Redis's own clock, so that replicas' clocks need not agree."""


class SharedBuckets:
    """In Redis, and in this process while Redis is away."""

    def __init__(self, redis: SharedRedis, local: LocalBuckets | None = None) -> None:
        self._redis = redis
        self._local = local or LocalBuckets()

    async def take(self, caller: str, limit: Limit) -> Taken:
        # Callers' names and addresses stay out of Redis's keys.
        name = "driftlog:limit:" + hashlib.blake2b(caller.encode(), digest_size=12).hexdigest()
        found = await self._redis.script(SCRIPT, [name], [limit.rate, limit.burst])
        if found is None:
            return await self._local.take(caller, limit)
        granted, tokens = bool(int(found[0])), float(found[1])
        wait = 0.0 if granted else max(0.0, (1.0 - tokens) / limit.rate)
        return Taken(granted, tokens, wait)


class SharedRedis(Protocol):
    """Redis as the guards use it."""

    async def script(self, source: str, keys: list[str], arguments: list[Any]) -> Any | None:
        """What the script returns; None while Redis is away."""


def whole_seconds(wait_s: float) -> int:
    """For Retry-After: never 0, never an hour."""
    return min(max(1, math.ceil(wait_s)), 3600)
