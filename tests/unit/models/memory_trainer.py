"""A trainer on a log and a history in memory; it can be killed between any two events."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import snapshot_file
from models.artifacts import ArtifactStore
from models.dataset import Dataset
from models.lineage import Cut, Run
from models.registry import Registry, RegistryState
from models.snapshot_file import Span
from models.trainer import Trainer
from models.trainer_metrics import TrainerMetrics
from schemas.event import Event, Position
from streams.fold import Projector
from streams.quarantine import Quarantine
from streams.task import Task
from tests.unit.models.model_parts import START_MS, UNTIL_MS, WEAR
from tests.unit.models.serving_parts import codec


class Killed(BaseException):
    """The process is gone."""


@dataclass
class MemoryLog:
    """What `models.registry_log.RegistryLog` does, in a list; `kill_before`: dies before that event.

    Every event goes through the codec; of two with one id the first counts.
    """

    events: list[Event] = field(default_factory=list)
    kill_before: int | None = None
    now_ms: int = UNTIL_MS
    task: Task = WEAR

    def __post_init__(self) -> None:
        self._codec = codec(self.task)
        self._projector = Projector([Registry(), Quarantine(self.task)])
        self._projector.feed(self.events)

    @property
    def state(self) -> RegistryState:
        found: RegistryState = self._projector.states["registry"]
        return found

    def state_of(self, fold: str) -> Any:
        return self._projector.states[fold]

    def catch_up(self) -> None:
        pass

    def say(self, *events: Event) -> None:
        for event in events:
            if self.kill_before == len(self.events):
                raise Killed
            if event.id not in {known.id for known in self.events}:
                place = Position(event.topic, 0, len(self.events))
                read = self._codec.decode(place, self._codec.encode(event))
                self.events.append(read)
                self._projector.feed([read])

    def end_offsets(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        return {(topic, 0): 1 for topic in topics}

    def event_time(self, task: Task, now_ms: int) -> int:
        return self.now_ms


@dataclass
class MemorySnapshots:
    """The same rows at every cut."""

    store: ArtifactStore
    rows: Dataset

    def take(self, run: Run, offsets: Any, pause: Any, kept_out: Any = ()) -> Cut:
        stored = self.store.put_snapshot(snapshot_file.to_parquet(run.task, self.rows))
        span = Span(START_MS, UNTIL_MS)
        return Cut(
            *(stored.sha256, stored.path, stored.bytes, len(self.rows), self.rows.positives),
            *(span.from_time, span.to_time, "SELECT 1", offsets),
        )

    def take_golden(self, run: Run, training_set: Any, rows: Dataset) -> Cut | None:
        return None

    def load(self, task: Task, taken: Any) -> Dataset:
        return snapshot_file.from_parquet(task, self.store.read(taken["path"], taken["snapshot"]))


def run_trainer(task: Task, rows: Dataset, log: MemoryLog, folder: Path) -> ArtifactStore:
    """Start a trainer and let it answer what is pending; raises Killed where `log` says so."""
    store = ArtifactStore(folder)
    snapshots: Any = MemorySnapshots(store, rows)
    trainer = Trainer(
        [task],
        log,
        snapshots,
        store,
        TrainerMetrics(),
        threading.Event(),  # type: ignore[arg-type]
    )
    trainer.start()
    for request_id in trainer.pending():
        trainer._answer(request_id)
    return store
