"""driftlog: an event-sourced machine-learning system. What a Task file imports, and serving's clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streams.expectations import Expect, QualityPolicy
from streams.personal import Personal
from streams.task import (
    Ask,
    Category,
    DriftPolicy,
    Fairness,
    GatePolicy,
    LabelPolicy,
    Numeric,
    Observation,
    Observed,
    Rate,
    Recipe,
    RetrainPolicy,
    RolloutPolicy,
    Task,
    TaskError,
    Text,
    Truth,
)

if TYPE_CHECKING:
    from driftlog.client import AsyncClient, Client

__all__ = [
    "Ask",
    "AsyncClient",
    "Category",
    "Client",
    "DriftPolicy",
    "Expect",
    "Fairness",
    "GatePolicy",
    "LabelPolicy",
    "Numeric",
    "Observation",
    "Observed",
    "Personal",
    "QualityPolicy",
    "Rate",
    "Recipe",
    "RetrainPolicy",
    "RolloutPolicy",
    "Task",
    "TaskError",
    "Text",
    "Truth",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The clients, imported when they are asked for: a Task file needs no HTTP."""
    if name not in ("AsyncClient", "Client"):
        raise AttributeError(f"module 'driftlog' has no attribute {name!r}")
    from driftlog import client

    return getattr(client, name)
