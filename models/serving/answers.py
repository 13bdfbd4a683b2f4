"""Retries: the same request again, with its own event ids, gets the answer of the first."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.event import Event

REMEMBERED = 512

Answer = dict[str, Any]
Prepare = Callable[[], Awaitable[tuple[Answer, Sequence[Event]]]]
Append = Callable[[Sequence[Event]], Awaitable[None]]


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: Answer | None = None
    events: Sequence[Event] = ()
    """What is not in the log yet."""


@dataclass(slots=True)
class Answers:
    """The last `capacity` requests that can be told from others, with what they were answered."""

    capacity: int = REMEMBERED
    _entries: OrderedDict[bytes, _Entry] = field(default_factory=OrderedDict)

    async def once(self, key: bytes, prepare: Prepare, append: Append) -> Answer:
        """Prepare, append, answer; each only if an earlier request with this key has not done it.

        A retry that overtakes the first request waits for it. After an append that failed, the retry
        appends the same events again: whatever the log took, equal ids have equal content.
        """
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            if len(self._entries) > self.capacity:
                self._entries.popitem(last=False)
        async with entry.lock:
            if entry.answer is None:
                entry.answer, entry.events = await prepare()
            if entry.events:
                await append(entry.events)
                entry.events = ()
            return entry.answer


def key_of(task: str, raw: bytes) -> bytes:
    """Identifies a request by its task and the bytes of its body."""
    return hashlib.blake2b(task.encode() + b"\0" + raw, digest_size=16).digest()
