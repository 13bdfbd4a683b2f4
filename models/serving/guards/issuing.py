"""Making, rotating and revoking keys, as the events that do it. Pure: the secret is given."""

from __future__ import annotations

from models.serving.guards.access import PREFIX, Key, hash_of
from schemas.catalogue import ACCESS
from schemas.event import Event, derive


def key_from(secret: bytes) -> str:
    """The key that 32 random bytes make."""
    if len(secret) != 32:
        raise ValueError(f"a key has 256 bits, not {8 * len(secret)}")
    return PREFIX + secret.hex()


def issued(
    key: str,
    name: str,
    scopes: tuple[str, ...],
    now_ms: int,
    actor: str,
    reason: str,
    expires: int | None = None,
    rate: float | None = None,
    replaces: str | None = None,
) -> Event:
    """The KeyIssued of a key that counts from `now_ms` on."""
    found = hash_of(key)
    return derive(
        *(ACCESS, "KeyIssued", found),
        time=now_ms,
        caused_by=None,
        name=name,
        key_hash=found,
        scopes=list(scopes),
        not_before=now_ms,
        expires=expires,
        rate=rate,
        replaces=replaces,
        actor=actor,
        reason=reason,
    )


def revoked(key: Key, now_ms: int, actor: str, reason: str, from_ms: int | None = None) -> Event:
    """The KeyRevoked of a key that counts until `from_ms` (default: now)."""
    until = now_ms if from_ms is None else from_ms
    return derive(
        *(ACCESS, "KeyRevoked", key.hash, until),
        time=now_ms,
        caused_by=None,
        name=key.name,
        key_hash=key.hash,
        from_time=until,
        actor=actor,
        reason=reason,
    )
