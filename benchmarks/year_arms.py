"""What the loop is compared with: models that are trained on a calendar, or never. Same requests for all."""

from __future__ import annotations

import numpy as np

from driftlog.simulate.history import History
from driftlog.simulate.loop import LATENCY_MS, First, Retrain, Run, Tell, score_rows
from models.dataset import golden_rows
from models.recipes import fit
from models.scorer import Scorer
from streams.task import DAY_MS, Task


def scheduled(
    task: Task, year: History, name: str, first: First, every_days: int | None, tell: Tell
) -> Run:
    """The shared first model; then, every so many days at its hour, a model that is installed ungated.

    `every_days` None: never. This is what a cron job does: the same recipe on the same rows as the loop's.
    """
    data, start = year.data, first.retrain.time
    golden = golden_rows(data.ids, task.gate.golden_share)
    run = Run(name, np.full(len(data), np.nan), [], np.zeros(len(data), dtype=np.bool_))
    end = int(data.times[-1]) + 1
    asked = range(start, end, (every_days or len(data)) * DAY_MS)
    for time, until in zip(asked, [*asked[1:], end], strict=True):
        since = time - task.recipe.training_days * DAY_MS
        read = (data.times >= since) & (data.label_times < time)
        run.read |= read
        if time == start:
            onnx, retrain = first.onnx, first.retrain
        else:
            rows = data.where(read & ~golden)
            onnx = fit(task, rows, task.recipe.name, task.recipe.parameters, task.recipe.seed)
            why = "schedule", f"{every_days} days are over"
            retrain = Retrain(time, *why, len(rows), True, "not gated")
        run.retrains.append(retrain)
        begin, stop = np.searchsorted(data.times, [time + LATENCY_MS, until + LATENCY_MS])
        run.scores[begin:stop] = score_rows(Scorer.from_bytes(onnx), year, begin, stop)
        tell(until)
    return run
