"""A trainer without servers: its log, history and disk last, the process itself can be killed anywhere."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from models import artifacts, trainer, training
from models.artifacts import ArtifactStore
from models.dataset import Dataset, to_arrow
from models.registry import Registry, RegistryState
from models.serving.deployments import candidates, load
from models.snapshots import Snapshots
from models.trainer import Trainer
from models.trainer_metrics import TrainerMetrics
from schemas.catalogue import RETRAIN_REQUESTS
from schemas.event import Event, Position, derive
from streams.expectations import QualityPolicy
from streams.fold import Projector
from streams.quarantine import Quarantine
from streams.task import GatePolicy, Recipe, Task
from tests.unit.models.model_parts import UNTIL_MS, WEAR, rows
from tests.unit.models.serving_parts import codec

TASK: Task = dataclasses.replace(
    WEAR,
    recipe=Recipe("logistic_regression", training_days=30),
    gate=GatePolicy(recent_days=3, golden_share=0.1, min_rows=30),
    quality=QualityPolicy(leakage=False),  # many trainings more, at each death
)
ROWS = rows(400)


class Killed(BaseException):
    """kill -9: nothing of ours may catch it."""


class Fuse:
    """Counts what the process does to the world, and kills it at the n-th of these moments."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.passed: list[str] = []

    def burn(self, moment: str) -> None:
        self.passed.append(moment)
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.left = None
            raise Killed(moment)


class DurableLog:
    """What Kafka keeps: records, encoded and decoded by the real codec; repeats stay in it."""

    def __init__(self, task: Task) -> None:
        self._codec = codec(task)
        self.records: list[Event] = []

    def append(self, event: Event) -> None:
        offset = sum(known.topic == event.topic for known in self.records)
        at = Position(event.topic, 0, offset)
        self.records.append(self._codec.decode(at, self._codec.encode(event), offset))

    def state(self) -> RegistryState:
        """The registry as any reader has it now."""
        projector = Projector([Registry()])
        projector.feed(self.records)
        found: RegistryState = projector.states["registry"]
        return found


class ProcessLog:
    """What `RegistryLog` is to a trainer; its fold dies with the process."""

    def __init__(self, durable: DurableLog, fuse: Fuse) -> None:
        self._durable, self._fuse = durable, fuse
        self._projector = Projector([Registry(), Quarantine(TASK)])

    @property
    def state(self) -> RegistryState:
        found: RegistryState = self._projector.states["registry"]
        return found

    def state_of(self, fold: str) -> Any:
        return self._projector.states[fold]

    def catch_up(self) -> None:
        self._projector.feed(self._durable.records)

    def say(self, *events: Event) -> None:
        for event in events:
            self._fuse.burn(f"before {event.type} is said")
            self._durable.append(event)
            self._fuse.burn(f"{event.type} is in the log, not acknowledged")
        self.catch_up()

    def end_offsets(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        self._fuse.burn("before the end of the log is asked for")
        return {(topic, 0): 7 for topic in topics}

    def event_time(self, task: Task, now_ms: int) -> int:
        self._fuse.burn("before the time is asked for")
        return UNTIL_MS


class RowsHistory:
    """The history of one data set, whatever is asked."""

    def __init__(self, fuse: Fuse, data: Dataset) -> None:
        self._fuse, self._data = fuse, data

    def wait_for(self, *_: object) -> None:
        self._fuse.burn("while the history catches up")

    def query(self, sql: str) -> pa.Table:
        self._fuse.burn("before the rows are read")
        return to_arrow(TASK, self._data)


class Disk:
    """`os`, as the artifact store knows it: it loses power around the renaming of a file."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def replace(self, temporary: str, path: Path) -> None:
        self._fuse.burn(f"half a file in {path.parent.name}")
        os.replace(temporary, path)
        self._fuse.burn(f"a file in {path.parent.name} that no event names")

    def unlink(self, path: str) -> None:
        """The dead clean nothing up."""


class World:
    """Everything that outlives the trainer, and a way to run one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fuse = Fuse()
        self.folder = folder
        self.log = DurableLog(TASK)
        self.store = ArtifactStore(folder)
        self.retrained: Callable[[training.Trained], training.Trained] = lambda found: found
        """What comes out of a training, should a library be less deterministic than ours are."""
        monkeypatch.setattr(trainer.training, "train", self._train(training.train))
        monkeypatch.setattr(artifacts, "os", Disk(self.fuse))

    def start(self) -> Trainer:
        """A new process, which knows nothing but what is in the log and on the disk."""
        log = ProcessLog(self.log, self.fuse)
        snapshots = Snapshots(RowsHistory(self.fuse, ROWS), self.store)  # type: ignore[arg-type]
        made = Trainer(
            [TASK],
            log,
            snapshots,
            self.store,
            TrainerMetrics(),
            threading.Event(),  # type: ignore[arg-type]
        )
        made.start()
        return made

    def work(self, kill_at: int | None = None) -> str | None:
        """Run a trainer until nothing is pending, or the moment at which it was killed."""
        self.fuse.left = kill_at
        try:
            process = self.start()
            while pending := process.pending():
                process._answer(pending[0])
        except Killed as killed:
            return str(killed)
        finally:
            self.fuse.left = None
        return None

    def ask(self, name: str) -> str:
        event = derive(
            RETRAIN_REQUESTS,
            "RetrainRequested",
            name,
            time=UNTIL_MS,
            caused_by=None,
            task=TASK.name,
            trigger="drift",
            reason="a test wants it",
            actor="policy",
            labels_until=UNTIL_MS,
            evidence={},
        )
        self.log.append(event)
        return event.id

    def served(self) -> tuple[str, str] | None:
        """(version, file) of what serving would answer with now; it must load, verified, at any moment."""
        for candidate in candidates(self.log.state(), TASK.name):
            return load(self.store, TASK, candidate).version, candidate.sha256
        return None

    def events(self, request_id: str) -> dict[str, list[Mapping[str, Any]]]:
        """Type -> the different events about a request (repeats of an id once)."""
        found: dict[str, dict[str, Mapping[str, Any]]] = {}
        for event in self.log.records:
            if event.data.get("request_id") == request_id:
                found.setdefault(event.type, {}).setdefault(event.id, event.data)
        return {type_: list(events.values()) for type_, events in found.items()}

    def files(self) -> set[str]:
        """Model files on the disk, by their hash."""
        return {path.stem for path in (self.folder / "models").glob("*.onnx")}

    def _train(self, train: Callable[..., training.Trained]) -> Callable[..., training.Trained]:
        def trained(*arguments: Any, **more: Any) -> training.Trained:
            self.fuse.burn("before the training")
            found = train(*arguments, **{**more, "clock": None})  # latencies differ each time
            self.fuse.burn("the training is over")
            return self.retrained(found)

        return trained
