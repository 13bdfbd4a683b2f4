"""Registering schemas waits for a registry that is away, and not for ever."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.catalogue import system_topics
from schemas.errors import IncompatibleSchema, RegistryUnavailable
from streams import topics


class Away:
    """A registry that is away for so many calls, then takes everything but a subject or two."""

    def __init__(self, calls: int, refuses: str = "") -> None:
        self._calls = calls
        self._refuses = refuses
        self.registered: list[str] = []

    def schema_by_id(self, schema_id: int) -> Any:
        raise AssertionError

    def schema_id(self, subject: str, schema: Any) -> int:
        if self._calls:
            self._calls -= 1
            raise RegistryUnavailable("is it up?")
        if subject == self._refuses:
            raise IncompatibleSchema(subject)
        self.registered.append(subject)
        return len(self.registered)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only where something waits."""
    now = [0.0]
    monkeypatch.setattr(topics.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(topics.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def test_it_waits_for_a_registry_that_comes_back() -> None:
    registry = Away(calls=20)
    topics.register_schemas(registry, system_topics(), timeout_s=30)
    assert registry.registered == [topic.subject for topic in system_topics()]


def test_it_gives_up_on_one_that_does_not_and_on_one_that_refuses() -> None:
    with pytest.raises(RegistryUnavailable, match="is it up"):
        topics.register_schemas(Away(calls=10_000), system_topics(), timeout_s=30)
    refused = system_topics()[3].subject
    with pytest.raises(IncompatibleSchema):
        topics.register_schemas(Away(calls=0, refuses=refused), system_topics(), timeout_s=30)
