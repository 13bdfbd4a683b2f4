"""evidently's default drift test as a retrain policy: the real package, in its own Python, day by day."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from driftlog.simulate.history import History
from driftlog.simulate.policies import request
from schemas.catalogue import predictions_topic
from schemas.event import Event
from streams.task import DAY_MS, Task

WORKER = Path(__file__).with_name("evidently_worker.py")


class PeerFailed(RuntimeError):
    """The peer could not be asked; the message says why."""


class EvidentlyTest:
    """Reactor: after each window, DataDriftPreset() with its defaults; dataset drift asks for a model.

    The reference is what the last training read, the current data are the window's rows; both travel as
    Parquet files of the served features.
    """

    def __init__(self, task: Task, history: History, python: Path) -> None:
        self.task = task
        self.name = f"{task.name}.evidently"
        self.topics: tuple[str, ...] = (predictions_topic(task.name),)
        self._data = history.data
        self._known = history.known
        self._python = python

    def initial(self) -> dict[str, Any]:
        folder = tempfile.TemporaryDirectory()
        process = subprocess.Popen(
            [str(self._python), str(WORKER), folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        return {"folder": folder, "process": process, "window": None, "due": []}

    def apply(self, state: dict[str, Any], batch: Sequence[Event]) -> dict[str, Any]:
        state["due"] = []
        for event in batch:
            window = event.time // self.task.window_ms
            if state["window"] is None:
                self._refer(state, event.time)
            elif window != state["window"]:
                answer = self._judge(state, state["window"] * self.task.window_ms)
                if answer["drifted"]:
                    reason = f"evidently: {answer['share']:.0%} of the columns drifted"
                    time = window * self.task.window_ms
                    state["due"].append(request(self.task, time, event.id, "evidently", reason))
                    self._refer(state, time)
            state["window"] = window
        return state

    def react(self, state: dict[str, Any], event: Event) -> list[Event]:  # noqa: ARG002
        due: list[Event] = state["due"]
        return due

    def _refer(self, state: dict[str, Any], until: int) -> None:
        rows = self._known(until - self.task.recipe.training_days * DAY_MS, until)
        self._write(state, "reference", rows.columns)

    def _judge(self, state: dict[str, Any], start: int) -> dict[str, Any]:
        times = self._data.times
        begin, end = np.searchsorted(times, [start, start + self.task.window_ms])
        columns = {name: values[begin:end] for name, values in self._data.columns.items()}
        if end - begin < self.task.drift.min_rows:
            return {"drifted": False, "share": 0.0}
        self._write(state, "current", columns)
        process = state["process"]
        process.stdin.write("judge\n")
        line = process.stdout.readline()
        if not line:
            raise PeerFailed(f"evidently's worker ended with status {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _write(self, state: dict[str, Any], name: str, columns: Any) -> None:
        kinds = {"double": pa.float64(), "string": pa.string()}
        arrays = {
            n: pa.array(v, kinds[self.task.vector[n]], from_pandas=True) for n, v in columns.items()
        }
        pq.write_table(pa.table(arrays), Path(state["folder"].name) / f"{name}.parquet")
