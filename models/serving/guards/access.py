"""The keys to the serving API: a fold over `driftlog.access`. Pure.

A key has 256 bits from the system's generator, so its SHA-256 can neither be guessed nor looked up in a
table; slow hashes and salts are for passwords that people choose. Keys are found by their hashes: what the
timing of a lookup tells about a hash says nothing about a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.catalogue import ACCESS
from schemas.event import Event

PREFIX = "dl_"
"""Begins every key, so that scanners for leaked secrets can find them."""
NO_KEY, UNKNOWN, EARLY, EXPIRED, REVOKED = (
    "no_key",
    "unknown_key",
    "early_key",
    "expired_key",
    "revoked_key",
)


@dataclass(frozen=True, slots=True)
class Key:
    """An issued key; times are ms since the epoch."""

    name: str
    hash: str
    scopes: tuple[str, ...]
    not_before: int
    expires: int | None
    rate: float | None
    issued: int
    actor: str


@dataclass(slots=True)
class Access:
    """All keys ever issued, and from when on those that were revoked do not count; by hash."""

    issued: dict[str, Key] = field(default_factory=dict)
    revoked: dict[str, int] = field(default_factory=dict)

    def problem(self, key_hash: str, now_ms: int) -> str | None:
        """Why the key with this hash does not count at `now_ms`; None if it does."""
        key = self.issued.get(key_hash)
        if key is None:
            return UNKNOWN
        if now_ms >= self.revoked.get(key_hash, now_ms + 1):
            return REVOKED
        if key.expires is not None and now_ms >= key.expires:
            return EXPIRED
        return EARLY if now_ms < key.not_before else None

    def of(self, name: str, now_ms: int) -> list[Key]:
        """The keys of this name that count now or will, oldest first."""
        mine = [key for key in self.issued.values() if key.name == name]
        live = [key for key in mine if self.problem(key.hash, now_ms) in (None, EARLY)]
        return sorted(live, key=lambda key: (key.issued, key.hash))


class AccessKeys:
    """Fold: see the module. A key that was revoked before it was issued, as the log has them, is revoked."""

    name = "access"
    topics = (ACCESS,)

    def initial(self) -> Access:
        return Access()

    def apply(self, state: Access, batch: Sequence[Event]) -> Access:
        for event in batch:
            data = event.data
            found = data["key_hash"]
            if event.type == "KeyIssued":
                state.issued.setdefault(found, _key(event))
            elif event.type == "KeyRevoked":
                until = int(data["from_time"])
                state.revoked[found] = min(until, state.revoked.get(found, until))
        return state


def hash_of(key: str) -> str:
    """What the log holds in place of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _key(event: Event) -> Key:
    data = event.data
    expires, rate = data.get("expires"), data.get("rate")
    return Key(
        name=data["name"],
        hash=data["key_hash"],
        scopes=tuple(sorted(data["scopes"])),
        not_before=int(data["not_before"]),
        expires=None if expires is None else int(expires),
        rate=None if rate is None else float(rate),
        issued=event.time,
        actor=data["actor"],
    )
