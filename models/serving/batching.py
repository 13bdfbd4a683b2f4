"""Dynamic batching: requests that come while others are under way are scored and written together.

A request that comes alone starts at once. While a batch is under way (its events are not acknowledged), later
ones gather, as they would before a busy partition. The next batch starts when the last is done, when `rows`
instances wait, or after `wait_s`. Callers that were answered together tend to come again together: with
nothing under way, as many as the last batch had are waited for, a few milliseconds at most.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

ROWS = 512
"""Instances that are scored together, at most (a larger request is a batch of its own)."""
WAIT_S = 0.1
"""A log that stalls for some holds up the others for so long, at most."""
PATIENCE = 0.25
"""Share of what the last batch took that the next waits for company, if the last had any."""
PATIENCE_S = 0.005
"""The same, at most."""


class Sized(Protocol):
    """A request: how many instances it has."""

    def __len__(self) -> int: ...


R = TypeVar("R", bound=Sized)
A = TypeVar("A")


@dataclass(slots=True)
class Batcher(Generic[R, A]):
    """`answer` gets requests in order and gives, for each, what it has for it or the exception for it."""

    answer: Callable[[Sequence[R]], Awaitable[Sequence[A | Exception]]]
    rows: int = ROWS
    wait_s: float = WAIT_S
    _waiting: list[tuple[R, asyncio.Future[A]]] = field(default_factory=list)
    _instances: int = 0
    """In `_waiting`."""
    _under_way: int = 0
    """Requests that were answered and are not finished, and batches that are being answered."""
    _expected: int = 1
    _patience_s: float = 0.0
    _began: float = 0.0
    _soon: asyncio.Handle | None = None
    _later: asyncio.TimerHandle | None = None
    _due: float = math.inf
    """When `_later` comes."""
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def join(self, request: R) -> A:
        """What `answer` has for it; call `finish` once that is dealt with (not if this raises)."""
        made: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, made))
        self._instances += len(request)
        self._look()
        try:
            return await made
        except asyncio.CancelledError:
            if made.done() and not made.cancelled() and made.exception() is None:
                self.finish()  # it was answered in the turn in which its caller went away
            raise

    def finish(self) -> None:
        """A request that `join` returned from is over."""
        self._under_way -= 1
        if not self._under_way:
            took = asyncio.get_running_loop().time() - self._began
            self._patience_s = min(PATIENCE_S, PATIENCE * took)
        if self._waiting:
            self._look()

    def _look(self) -> None:
        """See to it that what waits starts in time."""
        if self._soon is not None:
            return
        loop = asyncio.get_running_loop()
        together = not self._under_way and len(self._waiting) >= self._expected
        if together or self._instances >= self.rows:
            self._soon = loop.call_soon(self._start)
            return
        due = loop.time() + (self.wait_s if self._under_way else self._patience_s)
        if due < self._due:
            if self._later is not None:
                self._later.cancel()
            self._later, self._due = loop.call_at(due, self._start), due

    def _start(self) -> None:
        for handle in (self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._soon, self._later, self._due = None, None, math.inf
        batch = self._take()
        if batch:
            self._under_way += 1
            self._expected = len(batch)
            self._began = asyncio.get_running_loop().time()
            running = asyncio.create_task(self._run(batch))
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        if self._waiting:
            self._look()

    def _take(self) -> list[tuple[R, asyncio.Future[A]]]:
        """The oldest that wait, `rows` instances or one request; whose caller has gone is left out."""
        batch: list[tuple[R, asyncio.Future[A]]] = []
        size = taken = 0
        for request, made in self._waiting:
            if batch and size + len(request) > self.rows:
                break
            taken += 1
            self._instances -= len(request)
            if not made.cancelled():
                size += len(request)
                batch.append((request, made))
        del self._waiting[:taken]
        return batch

    async def _run(self, batch: list[tuple[R, asyncio.Future[A]]]) -> None:
        found: Sequence[A | Exception]
        try:
            found = await self.answer([request for request, _ in batch])
        except Exception as error:  # whatever it is, nobody may wait for ever
            found = [error] * len(batch)
        for (_, made), one in zip(batch, found, strict=True):
            if made.done():
                continue
            if isinstance(one, Exception):
                made.set_exception(one)
            else:
                self._under_way += 1
                made.set_result(one)
        self.finish()
