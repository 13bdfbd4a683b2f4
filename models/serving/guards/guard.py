"""The guard: whether a call is let in, decided the same way for every protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge

from models.serving.guards.access import EARLY, EXPIRED, NO_KEY, REVOKED, UNKNOWN, Access, hash_of
from models.serving.guards.audit import Refusals
from models.serving.guards.limits import Buckets, Limit, LocalBuckets, Taken, whole_seconds
from models.serving.guards.needs import Need
from models.serving.guards.scopes import allows, wanted
from models.serving.guards.settings import GuardSettings
from models.serving.problems import RETRY_AFTER_S

SCOPE, RATE, OVERLOAD, TOO_LARGE, NOT_READY = (
    *("scope", "rate", "overload", "too_large"),
    "keys_unread",
)
_WORDS = {
    NO_KEY: "a key is needed: send Authorization: Bearer KEY (`driftlog keys create` makes one)",
    UNKNOWN: "this key is none of this service: check it, or ask for one (`driftlog keys create`)",
    EARLY: "this key does not count yet",
    EXPIRED: "this key has expired: ask for a new one (`driftlog keys rotate`)",
    REVOKED: "this key was revoked: ask for a new one (`driftlog keys create`)",
}
LATENCY_WEIGHT = 0.05
"""Of one request in the moving average of latencies."""


class Refused(Exception):
    """A call that is not let in; `status` is HTTP's, `retry_after_s` None where waiting does not help."""

    def __init__(
        self,
        status: int,
        cause: str,
        detail: str,
        retry_after_s: int | None = None,
        scope: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.cause = cause
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.scope = scope
        """The scope that was missing."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `name` is empty for callers without a key, who are told apart by address alone."""

    name: str
    address: str
    scopes: Collection[str] | None
    """None: everything (no keys are asked for)."""
    limit: Limit | None

    @property
    def shown(self) -> str:
        return self.name or self.address

    @property
    def bucket(self) -> str:
        """A key that is named like an address is still somebody else."""
        return f"key {self.name}" if self.name else f"address {self.address}"


@dataclass(slots=True)
class Guard:
    """See the module. `access` is None until the keys were read from the log to its end."""

    settings: GuardSettings
    tasks: Collection[str]
    registry: CollectorRegistry
    buckets: Buckets = field(default_factory=LocalBuckets)
    refusals: Refusals = field(default_factory=lambda: Refusals("serving"))
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    clock: Callable[[], float] = time.perf_counter
    access: Access | None = None
    in_flight: int = 0
    _latency_s: float = 0.1
    _refused: Counter = field(init=False)

    def __post_init__(self) -> None:
        self._refused = Counter(
            "driftlog_serving_requests_refused",
            "Requests that the guards refused, by cause.",
            ("cause",),
            registry=self.registry,
        )
        gauge = Gauge(
            "driftlog_serving_in_flight", "Requests being answered.", registry=self.registry
        )
        gauge.set_function(lambda: self.in_flight)

    def know(self, access: Access) -> None:
        """The keys as the log has them now."""
        self.access = access

    @property
    def asks_for_keys(self) -> bool:
        """Open is only what was declared so, or a service on loopback for which no key was ever made."""
        if self.settings.open:
            return False
        return not self.settings.loopback or self.access is None or bool(self.access.issued)

    @property
    def lacks_keys(self) -> bool:
        """Others can reach it, it asks for keys, and nobody has ever been given one."""
        known = self.access is not None and not self.access.issued
        return known and not self.settings.open and not self.settings.loopback

    def identify(self, credential: str | None, address: str) -> Caller:
        """The caller; raises Refused 401, or 503 while the keys are not read yet."""
        default = Limit.of(self.settings.rate, self.settings.burst) if self.settings.rate else None
        if not self.asks_for_keys:
            return Caller("", address, None, default)
        if self.access is None:
            detail = "the keys have not been read from the log yet: try again"
            raise self._refusal(address, "", Refused(503, NOT_READY, detail, RETRY_AFTER_S))
        if credential is None:
            raise self._refusal(address, "", Refused(401, NO_KEY, _WORDS[NO_KEY]))
        found = hash_of(credential)
        problem = self.access.problem(found, self.now_ms())
        if problem is not None:
            known = self.access.issued.get(found)
            who = known.name if known else address
            raise self._refusal(who, "", Refused(401, problem, _WORDS[problem]))
        key = self.access.issued[found]
        limit = default if key.rate is None else Limit.of(key.rate)
        return Caller(key.name, address, key.scopes, limit)

    def authorise(self, caller: Caller, action: str, task: str | None) -> None:
        """Raises Refused 403 that names the missing scope."""
        if caller.scopes is None or allows(caller.scopes, task, action):
            return
        scope = wanted(task, action)[:120]
        detail = f"key {caller.name} lacks the scope {scope}"
        raise self.refuse(caller, task, Refused(403, SCOPE, detail, scope=scope))

    async def ration(self, caller: Caller, task: str | None) -> Taken | None:
        """Take a token; None where there is no limit. Raises Refused 429."""
        if caller.limit is None:
            return None
        taken = await self.buckets.take(caller.bucket, caller.limit)
        if taken.granted:
            return taken
        wait = whole_seconds(taken.wait_s)
        detail = f"{caller.shown} may make {caller.limit.rate:g} requests a second: wait {wait} s"
        raise self.refuse(caller, task, Refused(429, RATE, detail, wait))

    def enter(self, address: str) -> float:
        """Take one of `max_in_flight` places; raises Refused 429 at once. Returns what `leave` wants."""
        if self.in_flight >= self.settings.max_in_flight:
            wait = whole_seconds(self._latency_s)
            detail = f"{self.in_flight} requests are being answered already: wait {wait} s"
            raise self._refusal(address, "", Refused(429, OVERLOAD, detail, wait))
        self.in_flight += 1
        return self.clock()

    def leave(self, entered: float) -> None:
        """The request is over."""
        self.in_flight -= 1
        self._latency_s += LATENCY_WEIGHT * (self.clock() - entered - self._latency_s)

    def of_one(self, need: Need) -> str | None:
        """The task of a call whose route names none: the one that is served, if it is one."""
        if need.task is None and need.in_body and len(self.tasks) == 1:
            return next(iter(self.tasks))
        return need.task

    def refuse(self, caller: Caller, task: str | None, refused: Refused) -> Refused:
        """Count a refusal, and return it to be raised."""
        return self._refusal(caller.shown, task or "", refused)

    def _refusal(self, who: str, task: str, refused: Refused) -> Refused:
        self._refused.labels(refused.cause).inc()
        known = task if task in self.tasks else ""
        self.refusals.note(self.now_ms(), who, known, refused.cause)
        return refused
