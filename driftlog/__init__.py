"""driftlog: an event-sourced machine-learning system. This is what a Task file imports."""

from streams.task import (
    Ask,
    Category,
    DriftPolicy,
    GatePolicy,
    Numeric,
    Observation,
    Observed,
    Rate,
    Recipe,
    RetrainPolicy,
    RolloutPolicy,
    Task,
    TaskError,
    Truth,
)

__all__ = [
    "Ask",
    "Category",
    "DriftPolicy",
    "GatePolicy",
    "Numeric",
    "Observation",
    "Observed",
    "Rate",
    "Recipe",
    "RetrainPolicy",
    "RolloutPolicy",
    "Task",
    "TaskError",
    "Truth",
]

__version__ = "0.1.0"
