"""Personal fields on their way into the log: sealed for a whole batch, in a thread beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog

from models.personal.cipher import MasterKey
from models.personal.errors import PersonalDataError
from models.personal.keystore import KeyStore
from models.personal.sealing import Sealed, seal_all
from models.serving.guards.guard import Refused
from models.serving.problems import RETRY_AFTER_S, Problem
from schemas.event import Event
from streams.task import Ask, Task

logger = structlog.get_logger()

PATIENCE_S = 5.0
"""A disk that does not answer for so long is away."""
T = TypeVar("T")


class Sealer:
    """See the module. While the keys are away every request with personal fields is refused, 503."""

    def __init__(self, keys: KeyStore, patience_s: float = PATIENCE_S) -> None:
        self._keys = keys
        self._patience_s = patience_s
        self._thread = ThreadPoolExecutor(1, "personal")
        self._master: MasterKey | None = None
        self.problem: str | None = None
        """Why the keys could not be had the last time; None if they could."""

    async def seal(self, task: Task, asks: Sequence[Ask]) -> list[Sealed]:
        """What the log holds in place of the personal fields of each ask; raises Problem 503."""
        return await self._try(partial(seal_all, self._keys, task, asks))

    async def look(self) -> str | None:
        """Why the keys cannot be had now; None if they can."""
        try:
            await self._try(lambda: self._keys.master)
        except Problem:
            return self.problem
        return None

    def fingerprint(self, body: bytes) -> bytes:
        """Tells bodies apart, for Redis: keyed, as a plain hash of a guessed body would confirm the guess.

        Raises Refused 503.
        """
        try:
            if self._master is None:
                self._master = self._keys.master
            return self._master.fingerprint(body)
        except PersonalDataError as error:
            self._away(str(error))
            raise Refused(503, "keys_away", _told(str(error)), RETRY_AFTER_S) from error

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._keys.close()

    async def _try(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self._patience_s):
                found = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except PersonalDataError as error:
            why = str(error)
        except TimeoutError:
            why = f"the key store did not answer within {self._patience_s:g} s"
        else:
            if self.problem is not None:
                logger.info("keys of personal data are back")
            self.problem = None
            return found
        self._away(why)
        raise Problem(503, _told(why))

    def _away(self, why: str) -> None:
        if self.problem is None:
            logger.warning("keys of personal data are away: it is refused", reason=why)
        self.problem = why


def sealed_events(events: Sequence[Event], sealed: Sequence[Sealed]) -> list[Event]:
    """Each event with its sealed fields."""
    return [
        Event(event.topic, event.type, {**event.data, **one})
        for event, one in zip(events, sealed, strict=True)
    ]


def _told(problem: str) -> str:
    return f"personal data cannot be encrypted now, so nothing of it is taken: {problem}"
