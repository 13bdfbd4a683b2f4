"""Idempotency keys: the same key and the same body get the first answer; its events count once.

What is kept is the claim (who began with which body, and when) and then the answer. A claim pins the time of
the request, and event ids are derived from the caller, the key and the place in the request: whoever answers
a retry makes the same events. With Redis all replicas know claims and answers for a day; the claim of a
replica that died is taken over within seconds, and what it may have logged is looked for in the log first
(`recall`). Without Redis a restarted service or another replica derives the same ids, so that each event
counts once; its answer is computed anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import structlog

from models.serving.guards.guard import Refused
from models.serving.guards.limits import SharedRedis
from models.serving.problems import RETRY_AFTER_S
from schemas.event import derived_id

logger = structlog.get_logger()

MAX_KEY = 255
REMEMBERED = 4_096
"""First answers in memory."""
LARGEST = 1 << 18
"""Bytes of an answer that Redis keeps; a larger one is found in the log or computed again."""
KEPT_S = 86_400
ALIVE_S = 3.0
BEAT_S = 1.0
POLL_S = 0.05
PATIENCE_S = 5.0
"""A retry waits so long for the first request to end; then it is told to come back."""
FULL_SHARE = 0.6
"""Of Redis's memory: beyond it no more answers are put there, as features need the room."""

MINE, KNOWN, OTHER, BUSY = "mine", "known", "other", "busy"


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known about a key. `mine`: answer it, as of `since`; `known`: `answer` was given."""

    state: str
    since: int = 0
    again: bool = False
    """Somebody began before and may have logged it."""
    answer: bytes = b""


@dataclass(slots=True)
class Pinned:
    """The request being served under a key: where its ids and its time come from.

    Without a scope it is one that its caller sends again, and that brings its ids.
    """

    scope: str
    since: int
    again: bool
    made: int = 0

    def next_id(self) -> str:
        self.made += 1
        return derived_id("Idempotent", self.scope, self.made - 1)


pinned: ContextVar[Pinned | None] = ContextVar("pinned", default=None)


def new_id(fresh: Callable[[], str]) -> str:
    """For `Service.new_id`: derived from the key of the request, if it has one."""
    now = pinned.get()
    return fresh() if now is None or not now.scope else now.next_id()


def now_ms() -> int:
    """For `Service.now_ms`: when a request with this key first came."""
    now = pinned.get()
    return time.time_ns() // 1_000_000 if now is None else now.since


def scope_of(caller: str, route: str, key: str) -> str:
    """Names a request: keys are the caller's own, and a key on another route is another key."""
    parts = "\0".join((caller, route, key))
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def parse_key(text: str) -> str:
    """The key of an `Idempotency-Key` header, quoted (RFC 9651) or bare; raises ValueError."""
    key = text.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        raise ValueError(f"Idempotency-Key must have 1 to {MAX_KEY} printable ASCII characters")
    return key


@dataclass(slots=True)
class _Entry:
    body: bytes
    since: int
    answer: bytes | None = None
    running: bool = True


class LocalAnswers:
    """Claims and answers of this process; only ended requests are forgotten."""

    def __init__(self, capacity: int = REMEMBERED) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def claim(self, scope: str, body: bytes, now: int) -> Claim:
        entry = self._entries.get(scope)
        if entry is None:
            self._entries[scope] = _Entry(body, now)
            self._forget()
            return Claim(MINE, now)
        if entry.body != body:
            return Claim(OTHER)
        if entry.answer is not None:
            return Claim(KNOWN, entry.since, answer=entry.answer)
        if entry.running:
            return Claim(BUSY)
        entry.running = True
        return Claim(MINE, entry.since, again=True)

    def pin(self, scope: str, since: int) -> None:
        """Another replica had begun at `since`."""
        self._entries[scope].since = since

    def keep(self, scope: str, answer: bytes) -> None:
        if scope in self._entries:
            self._entries[scope].answer = answer
            self._entries[scope].running = False

    def release(self, scope: str, forget: bool) -> None:
        """It was not answered: nothing of it can be in the log (`forget`), or something may."""
        if forget:
            self._entries.pop(scope, None)
        elif scope in self._entries:
            self._entries[scope].running = False

    def _forget(self) -> None:
        for scope in list(self._entries)[: max(0, len(self._entries) - self._capacity)]:
            if not self._entries[scope].running:
                del self._entries[scope]


_CLAIM = """
local found = redis.call('HMGET', KEYS[1], 'body', 'since', 'answer', 'owner')
if not found[1] then
  if ARGV[6] == '1' then return {'mine', ARGV[3], ''} end
  redis.call('HSET', KEYS[1], 'body', ARGV[1], 'since', ARGV[3], 'owner', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return {'mine', ARGV[3], ''}
end
if found[1] ~= ARGV[1] then return {'other', '0', ''} end
if found[3] then return {'known', found[2], found[3]} end
local owner = found[4]
if owner ~= '' and owner ~= ARGV[2] and redis.call('EXISTS', ARGV[5] .. owner) == 1 then
  return {'busy', '0', ''}
end
redis.call('HSET', KEYS[1], 'owner', ARGV[2])
return {'again', found[2], ''}
"""
_KEEP = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'answer', ARGV[1])
return 1
"""
_RELEASE = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then return redis.call('DEL', KEYS[1]) end
return redis.call('HSET', KEYS[1], 'owner', '')
"""
_BEAT = """
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local said = redis.call('INFO', 'memory')
return {string.match(said, 'used_memory:(%d+)') or '0', string.match(said, 'maxmemory:(%d+)') or '0'}
"""
_ALIVE = "driftlog:replica:"


@dataclass(slots=True)
class Once:
    """First answers, in this process and, if `redis` is given and there, for all replicas."""

    replica: str
    """Names this process; no two may be equal."""
    redis: SharedRedis | None = None
    local: LocalAnswers = field(default_factory=LocalAnswers)
    patience_s: float = PATIENCE_S
    clock: Callable[[], float] = time.monotonic
    full: bool = False
    fingerprint: Callable[[bytes], bytes] = lambda body: hashlib.sha256(body).digest()
    """Tells the bodies of requests apart."""

    async def begin(self, scope: str, body: bytes, now: int) -> Claim:
        """Claim a request; a retry that overtakes the first request waits for it (then `busy`)."""
        until = self.clock() + self.patience_s
        while True:
            claim = await self._claim(scope, body, now)
            if claim.state != BUSY or self.clock() >= until:
                return claim
            await asyncio.sleep(POLL_S)

    async def keep(self, scope: str, answer: bytes) -> None:
        """The answer that was given."""
        self.local.keep(scope, answer)
        if len(answer) <= LARGEST:
            await self._script(_KEEP, scope, [answer])
        else:
            await self._script(_RELEASE, scope, [self.replica, "0"])

    async def release(self, scope: str, forget: bool) -> None:
        """See LocalAnswers."""
        self.local.release(scope, forget)
        await self._script(_RELEASE, scope, [self.replica, "1" if forget else "0"])

    async def beat(self) -> None:
        """Say that this replica lives, for ever; a silent one loses its claims after ALIVE_S."""
        while self.redis is not None:
            await self.beat_once()
            await asyncio.sleep(BEAT_S)

    async def beat_once(self) -> None:
        if self.redis is None:
            return
        name = _ALIVE + self.replica
        found = await self.redis.script(_BEAT, [name], [int(ALIVE_S * 1000)])
        if found is None:
            return
        used, most = int(found[0]), int(found[1])
        full = most > 0 and used > FULL_SHARE * most
        if full != self.full:
            state = "is full" if full else "has room again"
            logger.warning(
                f"Redis {state} for answers to idempotency keys", used=used, maxmemory=most
            )
        self.full = full

    async def _claim(self, scope: str, body: bytes, now: int) -> Claim:
        mine = self.local.claim(scope, body, now)
        if mine.state != MINE or self.redis is None:
            return mine
        arguments = [body, self.replica, mine.since, KEPT_S * 1000, _ALIVE, int(self.full)]
        found = await self._script(_CLAIM, scope, arguments)
        if found is None:
            return mine
        state, since, answer = _text(found[0]), int(found[1]), found[2]
        if state in (MINE, "again"):
            self.local.pin(scope, since)
            return Claim(MINE, since, again=mine.again or state != MINE)
        if state == KNOWN:
            self.local.keep(scope, answer)
            return Claim(KNOWN, since, answer=answer)
        self.local.release(scope, forget=True)
        return Claim(state)

    async def _script(self, source: str, scope: str, arguments: list[Any]) -> Any | None:
        if self.redis is None:
            return None
        return await self.redis.script(source, [f"driftlog:once:{scope}"], arguments)


class KeyReused(Exception):
    """The key came with another request before."""


@dataclass(slots=True)
class Attempt:
    """A request under a key: `known` is the answer it got before; else whoever answers it sets `answer`."""

    known: bytes | None = None
    answer: bytes | None = None


@asynccontextmanager
async def attempt(
    once: Once, scope: str, request: bytes, now: int, harmless: Callable[[], bool]
) -> AsyncIterator[Attempt]:
    """Claim the key, pin its ids and its time meanwhile, and keep the answer, or give the key back.

    `harmless`: asked where there is no answer, whether the request was refused before anything of it could be
    logged. Raises KeyReused, or Refused 409 while the first request is still under way.
    """
    claim = await once.begin(scope, once.fingerprint(request), now)
    if claim.state == OTHER:
        raise KeyReused
    if claim.state == BUSY:
        detail = "the first request with this key is still answered"
        raise Refused(409, BUSY, detail, RETRY_AFTER_S)
    if claim.state == KNOWN:
        yield Attempt(known=claim.answer)
        return
    token = pinned.set(Pinned(scope, claim.since, claim.again))
    trying, kept = Attempt(), False
    try:
        yield trying
        if trying.answer is not None:
            await once.keep(scope, trying.answer)
            kept = True
    finally:
        pinned.reset(token)
        if not kept:
            await once.release(scope, forget=harmless() and not claim.again)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
