"""The online feature store: the feature fold's blobs in Redis, a key each. Wipe it and it comes back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import redis
import structlog

from streams.canonical import fingerprint
from streams.features import Blob, FeatureState
from streams.fold import Projector
from streams.task import Task

logger = structlog.get_logger()

FILLED = "alive"
"""Key that is written after all others; its value is how far the features are folded (event time, ms)."""


def store_key(task: str, key: str) -> str:
    return f"driftlog:{task}:{key}"


class OnlineStore:
    """Writes what changed; writes everything when the store turns out to be empty (restarted, flushed)."""

    def __init__(self, url: str, tasks: Sequence[Task]) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
        self._tasks = tasks
        self._down = False

    def flush(self, projector: Projector) -> None:
        """Redis being away stops nothing: the keys stay dirty and are written when it is back."""
        for task in self._tasks:
            state: FeatureState = projector.states[f"{task.name}.features"]
            try:
                if not self._redis.exists(store_key(task.name, FILLED)):
                    state.dirty.update(state.keys())
                self._write(task.name, state)
            except redis.RedisError as error:
                if not self._down:
                    logger.warning("online store unreachable", error=str(error))
                self._down = True
            else:
                self._down = False

    def _write(self, task: str, state: FeatureState) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for key in state.dirty:
            blob = state.blob(key)
            if blob:
                pipe.set(store_key(task, key), json.dumps(blob, separators=(",", ":")))
            else:
                pipe.delete(store_key(task, key))
        # Event time up to which the features are folded: tells a reader how far behind they are.
        pipe.set(store_key(task, FILLED), max(state.predictions.high(), state.labels.high(), 0))
        pipe.execute()
        state.dirty.clear()

    def folded_to(self, task: str) -> int | None:
        """Event time (ms) up to which a task's features are folded; None while the store is not filled."""
        raw = self._redis.get(store_key(task, FILLED))
        return None if raw is None else int(str(raw, "ascii"))  # type: ignore[arg-type]

    def content(self, task: str) -> dict[str, Blob]:
        """Everything stored for a task, by blob key. Raises redis.RedisError."""
        prefix = store_key(task, "")
        names: Iterable[bytes] = self._redis.scan_iter(match=prefix + "*", count=1_000)
        keys = sorted(name.decode() for name in names)
        values = self._redis.mget(keys) if keys else []
        found = dict(zip(keys, values, strict=True))
        found.pop(store_key(task, FILLED), None)
        return {key[len(prefix) :]: json.loads(raw) for key, raw in found.items() if raw}

    def wipe(self) -> None:
        """Delete everything of these tasks."""
        for task in self._tasks:
            for key in self._redis.scan_iter(match=store_key(task.name, "*"), count=1_000):
                self._redis.delete(key)


def content_fingerprint(content: dict[str, Blob]) -> str:
    return fingerprint(content)


def expected_content(state: FeatureState) -> dict[str, Blob]:
    """What the store holds when it is up to date with the fold."""
    keys = state.keys()
    pairs = {key: state.blob(key) for key in keys}
    return {key: blob for key, blob in pairs.items() if blob}
