"""A codec over the system's topics and those of a small task, with a registry in this process."""

from __future__ import annotations

import pytest

from schemas.catalogue import Topic, system_topics, task_topics
from schemas.codec import Codec
from schemas.registry.service import LocalRegistry


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
