"""driftlog: an event-sourced machine-learning system. This is what a Task file imports."""

from streams.expectations import Expect, QualityPolicy
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

__all__ = [
    "Ask",
    "Category",
    "DriftPolicy",
    "Expect",
    "Fairness",
    "GatePolicy",
    "LabelPolicy",
    "Numeric",
    "Observation",
    "Observed",
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
