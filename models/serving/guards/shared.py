"""Redis for what replicas share: buckets and first answers. While it is away the guards do without."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

logger = structlog.get_logger()

TIMEOUT_S = 1.0
PAUSE_S = 2.0
"""After a failure Redis is left alone for so long: a dead one must not cost every request its timeout."""


class RedisScripts:
    """Runs Lua scripts; says once when Redis goes and once when it is back."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), protocol=2)
        self._clock = clock
        self._scripts: dict[str, Any] = {}
        self._closed_until = 0.0
        self.away = False

    async def script(self, source: str, keys: list[str], arguments: list[Any]) -> Any | None:
        """What the script returns; None while Redis is away."""
        if self._clock() < self._closed_until:
            return None
        script = self._scripts.get(source)
        if script is None:
            script = self._scripts[source] = self._redis.register_script(source)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await script(keys=keys, args=arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self._closed_until = self._clock() + PAUSE_S
            if not self.away:
                why = str(error) or type(error).__name__
                logger.warning(
                    "Redis is away: limits and answers are each replica's own", reason=why
                )
            self.away = True
            return None
        if self.away:
            logger.info("Redis is back: replicas share limits and answers")
        self.away = False
        return found

    async def close(self) -> None:
        await self._redis.aclose()
