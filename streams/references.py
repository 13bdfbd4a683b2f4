"""The references of registered model versions, followed in the log."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.catalogue import MODEL_VERSIONS
from schemas.codec import Codec
from schemas.event import Event
from streams import log

Reference = Sequence[Mapping[str, Any]]


class References:
    """`reference` of each ModelRegistered, by version; the first statement about a version counts."""

    def __init__(self, bootstrap: str, codec: Codec) -> None:
        self._bootstrap = bootstrap
        self._codec = codec
        self._lock = threading.Lock()
        self._next: log.Offsets = {}
        self.by_version: dict[str, Reference] = {}

    @property
    def offsets(self) -> log.Offsets:
        """What has been read."""
        return dict(self._next)

    def refresh(self, to: log.Offsets | None = None) -> None:
        """Read on to the end of the log (or to the offsets `to`); raises LogUnavailable."""
        with self._lock:
            events = log.read(
                self._bootstrap, self._codec, [MODEL_VERSIONS], to=to, start=self._next
            )
            for event in events:
                assert event.at is not None
                self._next[event.at.topic, event.at.partition] = event.at.offset + 1
                self.add(event)

    def add(self, event: Event) -> None:
        """Take in a ModelRegistered."""
        self.by_version.setdefault(event.data["model_version"], event.data["reference"])
