"""A codec over the system's topics and those of a small task, with a registry in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from schemas.catalogue import Topic, system_topics, task_topics
from schemas.codec import Codec
from schemas.registry import client
from schemas.registry.service import LocalRegistry
from tests.unit.schemas.serving import Served, serving


@pytest.fixture
def topics() -> list[Topic]:
    own = task_topics("demo", {"distance": "double", "carrier": "string"}, ["wind"])
    return [*system_topics(), *own]


@pytest.fixture
def registry() -> LocalRegistry:
    return LocalRegistry()


@pytest.fixture
def codec(registry: LocalRegistry, topics: list[Topic]) -> Codec:
    return Codec(registry, topics)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A registry by HTTP; its clients do not wait between tries."""
    monkeypatch.setattr(client, "PAUSES_S", (0, 0, 0))
    monkeypatch.setattr(client, "CONFIRM_S", 0)
    with serving() as one:
        yield one
