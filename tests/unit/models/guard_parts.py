"""What tests of the guards share: keys as the log has them, a guard over them, and a clock that they turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from models.serving.api import create_app
from models.serving.guards.access import Access, AccessKeys
from models.serving.guards.guard import Guard
from models.serving.guards.http import Guarded
from models.serving.guards.issuing import issued, key_from
from models.serving.guards.once import Once
from models.serving.guards.settings import GuardSettings
from models.serving.service import Service
from schemas.event import Event
from tests.unit.models.serving_parts import NOW_MS

PUBLIC = GuardSettings(host="0.0.0.0")


def key(number: int) -> str:
    return key_from(bytes([number]) * 32)


def issue(number: int, *scopes: str, now_ms: int = NOW_MS, name: str = "", **more: Any) -> Event:
    """The KeyIssued of `key(number)`."""
    named = name or f"caller-{number}"
    return issued(key(number), named, scopes, now_ms, "tester", "a test", **more)


def folded(*events: Event) -> Access:
    fold = AccessKeys()
    return fold.apply(fold.initial(), events)


@dataclass
class Clock:
    ms: int = NOW_MS

    def __call__(self) -> int:
        return self.ms

    def seconds(self) -> float:
        return self.ms / 1000


def guard(
    settings: GuardSettings = PUBLIC,
    access: Access | None = None,
    clock: Callable[[], int] = lambda: NOW_MS,
    **more: Any,
) -> Guard:
    made = Guard(settings, ("flights",), CollectorRegistry(), now_ms=clock, **more)
    made.access = access
    return made


class Before:
    """`Guards` of a test: only what stands before HTTP."""

    def __init__(self, guard: Guard, once: Once | None = None) -> None:
        self._guard, self._once = guard, once

    def stand_before(self, app: FastAPI) -> None:
        app.state.max_body_bytes = self._guard.settings.max_body
        app.add_middleware(Guarded, guard=self._guard, once=self._once)


def connect(served: Service, guard: Guard, once: Once | None = None) -> httpx.AsyncClient:
    app = create_app(served, guards=Before(guard, once))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://serving")


def bearer(number: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {key(number)}"}
