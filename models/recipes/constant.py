"""The model of a task that has nothing to learn from yet."""

from __future__ import annotations

from models import onnx_graph
from models.dataset import Dataset
from models.encoder import Encoder, FeatureCode
from streams.task import TEXT, Task


def constant(task: Task, rows: Dataset | None, seed: int, score: float | None = None) -> bytes:  # noqa: ARG001
    """The same score for every request (default: the task's prior); no category is known to it."""
    codes = [
        FeatureCode(name, {} if kind == "string" else None)
        for name, kind in task.kinds.items()
        if kind != TEXT
    ]
    value = task.prior_score if score is None else score
    return onnx_graph.constant(value, Encoder(task.name, tuple(codes)))
