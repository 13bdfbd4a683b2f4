"""A steady stream of predictions, the services that watch it, and the scores that must come of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infra.settings import Settings
from kernels.reference import bin_index, js, ks, psi
from schemas.catalogue import DRIFT_SCORES, MODEL_VERSIONS, SKETCHES
from schemas.event import Event, derive, derived_id
from streams import log
from streams.reference import build_reference, histogram_with_missing
from streams.task import Category, DriftPolicy, Numeric, Task
from streams.topics import ensure_topics, register_schemas

START_MS = 1_700_000_000_000
WIDTH_MS = 10_000
PARTITIONS = 4
DRIFT = DriftPolicy(window_hours=10 / 3_600, grace_minutes=5 / 60, bins=8, min_rows=20)
TASK_FILE = """
from driftlog import *

task = Task(
    name={name!r},
    features=(Numeric("x"), Numeric("y"), Category("c")),
    label="bad",
    drift=DriftPolicy(window_hours=10 / 3600, grace_minutes=5 / 60, bins=8, min_rows=20),
)
"""
CATEGORIES = ("red", "green", "blue", "new")
COLUMNS = ("x", "y", "c", "score")


def task_named(name: str) -> Task:
    features = (Numeric("x"), Numeric("y"), Category("c"))
    return Task(name=name, features=features, label="bad", drift=DRIFT)


@dataclass
class Stream:
    """Predictions of two versions: in disorder, a few windows late, some sent twice."""

    settings: Settings
    task: Task
    seed: int = 1
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Event id -> what was sent, each once."""
    repeats: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._codec = log.connect_codec(self.settings, [self.task])
        topics = log.all_topics(self.settings, [self.task])
        ensure_topics(self.settings.bootstrap, topics, self.settings.replication)
        register_schemas(self._codec._registry, topics)
        self._writer = log.LogWriter(self.settings.bootstrap, self._codec)
        self.versions = [f"{self.task.name}-{n}" for n in (1, 2)]
        self.reference = self._reference()
        self._writer.append([self._registered(version) for version in self.versions])
        self._now = START_MS

    def send(self, count: int, per_second: int) -> None:
        """`count` predictions, `per_second` of them in a second of event time."""
        batch = []
        for _ in range(count):
            self._now += 1_000 // per_second
            late = self._rng.choice((0, 0, 0, 0, 2_000, 2_000, 30_000))
            batch.append(self._prediction(self._now - self._rng.randrange(late + 1)))
        again = [event for event in batch if self._rng.random() < 0.01]
        self.repeats += len(again)
        self._writer.append(batch + again)

    def close(self) -> None:
        """Events far ahead in each partition, twice: all windows before them close, and each partition has
        stated one after them, so that a last window which few partitions have rows in is judged, too.
        """
        for ahead in (40, 80):
            taken: set[int] = set()
            while len(taken) < PARTITIONS:
                event = self._prediction(self._now + ahead * WIDTH_MS)
                (position,) = self._writer.append([event])
                taken.add(position.partition)

    def truth(self) -> dict[tuple[str, int, str], dict[str, float]]:
        """Of each window and column: rows and distances, by NumPy from what was sent."""
        last = (self._now // WIDTH_MS) * WIDTH_MS
        groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for data in self.sent.values():
            start = data["event_time"] // WIDTH_MS * WIDTH_MS
            if start <= last:
                groups.setdefault((data["model_version"], start), []).append(data)
        scores = {}
        for (version, start), rows in groups.items():
            for column in self.reference:
                name = column["name"]
                values = [r["score"] if name == "score" else r["features"][name] for r in rows]
                window, whole = _histogram(column, values), histogram_with_missing(column)
                scores[version, start, name] = {
                    "count": len(rows),
                    "psi": psi(window, whole),
                    "ks": ks(window, whole),
                    "js": js(window, whole),
                }
        return scores

    def scores(self) -> dict[tuple[str, int, str], dict[str, float]]:
        """The newest DriftScored of each window and column in the log."""
        found: dict[tuple[str, int, str], dict[str, Any]] = {}
        for event in log.read(self.settings.bootstrap, self._codec, [DRIFT_SCORES]):
            data = event.data
            key = data["model_version"], data["window_start"], data["feature"]
            if data["task"] == self.task.name and (
                key not in found or data["revision"] >= found[key]["revision"]
            ):
                found[key] = dict(data)
        return {key: {n: d[n] for n in ("count", "psi", "ks", "js")} for key, d in found.items()}

    def statements(self) -> Counter[str]:
        """Ids of the task's SketchTaken, and how often each is in the log; equal ids say the same."""
        counted: Counter[str] = Counter()
        said: dict[str, Any] = {}
        for event in log.read(self.settings.bootstrap, self._codec, [SKETCHES]):
            if event.data["task"] == self.task.name:
                counted[event.id] += 1
                assert said.setdefault(event.id, event.data) == event.data
        return counted

    def _prediction(self, time: int) -> Event:
        rng, number = self._rng, len(self.sent)
        id_ = derived_id("PredictionMade", self.task.name, self.seed, number)
        data = {
            "event_id": id_,
            "event_time": time,
            "caused_by": None,
            "model_version": rng.choice(self.versions),
            "score": rng.random(),
            "label": 1,
            "features": {
                "x": rng.gauss(0, 1) if rng.random() < 0.98 else None,
                "y": rng.gauss(0, 1) + (time - START_MS) / 1e6,
                "c": rng.choice(CATEGORIES) if rng.random() < 0.99 else None,
            },
        }
        self.sent[id_] = data
        return Event(f"{self.task.name}.predictions", "PredictionMade", data)

    def _reference(self) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        columns: dict[str, Any] = {
            "x": rng.standard_normal(2_000),
            "y": rng.standard_normal(2_000),
            "c": rng.choice(CATEGORIES[:3], 2_000).tolist(),
        }
        kinds: dict[str, Any] = {"x": "double", "y": "double", "c": "string"}
        return build_reference(columns, kinds, rng.random(2_000).tolist(), [0] * 2_000, DRIFT)

    def _registered(self, version: str) -> Event:
        return derive(
            MODEL_VERSIONS,
            "ModelRegistered",
            version,
            time=START_MS,
            caused_by=None,
            task=self.task.name,
            model_version=version,
            parent=None,
            request_id="none",
            snapshot=None,
            golden=None,
            artifact="0" * 64,
            path="none",
            bytes=0,
            recipe="none",
            parameters="{}",
            seed=0,
            environment={},
            features=["x", "y", "c"],
            metrics={},
            reference_count=2_000,
            reference=self.reference,
        )


def _histogram(column: dict[str, Any], values: list[Any]) -> list[int]:
    missing = sum(value is None for value in values)
    present = [value for value in values if value is not None]
    if column["categories"]:
        known = {name: at for at, name in enumerate(column["categories"])}
        index = np.array([known.get(value, len(known)) for value in present], np.int64)
    else:
        index = bin_index(present, column["edges"])
    return [*np.bincount(index, minlength=len(column["counts"])).tolist(), missing]


class Services:
    """Services of a task in processes of their own, killed and started at will."""

    def __init__(self, settings: Settings, task: Task, folder: Path) -> None:
        self._settings = settings
        self._file = folder / f"{task.name}.py"
        self._file.write_text(TASK_FILE.format(name=task.name), encoding="utf-8")
        self._log = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", "driftlog.services", name, "--task", str(self._file)]
        env = {**os.environ, **self._settings.to_env()}
        with (self._log / f"{name}.log").open("ab") as out:
            self.running[name] = subprocess.Popen(command, env=env, stdout=out, stderr=out)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        assert process.poll() is None, f"{name} had ended by itself with {process.returncode}"
        process.kill()
        process.wait()

    def gained(self, name: str) -> int:
        """How often a worker was given a partition, as it says."""
        return (self._log / f"{name}.log").read_text().count("partition gained")

    def told(self) -> str:
        """The last words of each service, and which of them still run."""
        ended = {name: process.poll() for name, process in self.running.items()}
        logs = {path.stem: path.read_text()[-3_000:] for path in sorted(self._log.glob("*.log"))}
        return "\n".join([f"exit codes: {ended}", *(f"--- {n}\n{t}" for n, t in logs.items())])

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()


class Load(threading.Thread):
    """Sends for as long as it is let."""

    def __init__(self, stream: Stream, batch: int = 200, per_second: int = 200) -> None:
        super().__init__(daemon=True)
        self._stream, self._batch, self._per_second = stream, batch, per_second
        self._enough = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._enough.wait(0.05):
                self._stream.send(self._batch, self._per_second)
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        self._enough.set()
        self.join()
        if self.error is not None:
            raise self.error
