"""The guards of one process: what they refuse to start as, and what they say before they stop."""

from __future__ import annotations

import pytest
import uvicorn
from fastapi import FastAPI

from infra.settings import Settings
from models.serving.guards.guard import Refused
from models.serving.guards.settings import GuardSettings
from models.serving.guards.setup import Guards, NobodyHasAKey
from models.serving.metrics import Metrics
from tests.unit.models.guard_parts import PUBLIC, folded, issue
from tests.unit.models.serving_parts import MemoryLog

NOWHERE = Settings(redis_url="redis://127.0.0.1:1/0")


def guards(settings: GuardSettings) -> Guards:
    return Guards(NOWHERE, settings, ("flights",), Metrics())


def test_others_are_not_let_in_without_any_key() -> None:
    with pytest.raises(NobodyHasAKey, match="driftlog keys create"):
        guards(PUBLIC).know(folded())
    guards(GuardSettings(host="0.0.0.0", open=True)).know(folded())
    guards(GuardSettings()).know(folded())
    made = guards(PUBLIC)
    made.know(folded(issue(1, "*:read")))
    made.know(folded())  # later it is no reason to stop: everybody is refused


@pytest.mark.parametrize("broken", [False, True])
async def test_what_was_refused_is_said_before_it_stops(broken: bool) -> None:
    made = guards(PUBLIC)
    made.know(folded(issue(1, "*:read")))
    log = MemoryLog()
    log.broken = broken
    async with made.running(lambda: log, uvicorn.Config(FastAPI())):
        with pytest.raises(Refused):
            made.guard.identify(None, "10.0.0.7")
    said = [event.data["caller"] for event in log.events]
    assert said == ([] if broken else ["10.0.0.7"])
