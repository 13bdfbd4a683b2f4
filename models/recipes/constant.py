"""The model of a task that has nothing to learn from yet."""

from __future__ import annotations

from models import onnx_graph
from models.dataset import Dataset
from models.recipes.encoding import blank_encoder
from streams.task import Task


def constant(task: Task, rows: Dataset | None, seed: int, score: float | None = None) -> bytes:  # noqa: ARG001
    """The same score for every request (default: the task's prior)."""
    value = task.prior_score if score is None else score
    return onnx_graph.constant(value, blank_encoder(task))
