"""The readers that `benchmarks.replay` compares, each in a process of its own: `NAME JOB-FILE`.

Another way to fold the log is another function in ARMS, and its name in FOLDING if it gives the states of
all folds. Settings come from the environment.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fastavro

from benchmarks.drift_windows import workload
from benchmarks.drift_windows.job import now, wait_for_go
from infra.settings import Settings
from models.registry import Registry
from schemas.catalogue import MODEL_VERSIONS, labels_topic, predictions_topic
from schemas.codec import without
from schemas.registry.client import RegistryClient
from streams import log, replay
from streams.checkpoint import save
from streams.fold import Fold
from streams.folds import control_folds, outcome_folds, worker_folds
from streams.side_by_side import Plan, rebuild_all
from streams.task import Numeric, Rate, Task

CHECKPOINT_AT = 0.95
"""How much of the log the checkpoint holds: a runner saves one every minute."""
FLOOR, LOOP = "confluent-kafka, decoding nothing", "confluent-kafka + fastavro"
ZERO, SIDE_BY_SIDE = "driftlog, from zero", "driftlog, a process a CPU"
RESTORED = "driftlog, from a checkpoint"


@dataclass(frozen=True)
class Job:
    """So many predictions, and as many labels."""

    predictions: int
    partitions: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True)
class Bench:
    """What every reader is given; `ends`: the offsets to which it reads."""

    settings: Settings
    task: Task
    ends: log.Offsets

    @property
    def topics(self) -> list[str]:
        return sorted({topic for topic, _ in self.ends})

    @property
    def folds(self) -> list[list[Fold]]:
        partitions = self.settings.partitions
        return [
            [*worker_folds([self.task], partitions), *outcome_folds([self.task], partitions)],
            [*control_folds([self.task], partitions), Registry()],
        ]


Result = tuple[int, dict[str, str]]
"""(events met, fold -> fingerprint)"""


def task_of(job: Job) -> Task:
    """Seven numbers and one rate that is folded from the labels."""
    numbers = tuple(Numeric(name) for name in workload.FEATURES[:-1])
    rate = Rate(workload.FEATURES[-1], by=(), hours=1)
    return Task(f"replay{job.predictions}", (*numbers, rate), label="1", label_delay_hours=1)


def read_only(bench: Bench, use: Callable[[Any], None]) -> int:
    """Consume the topics in large batches to their ends; `use` gets each message."""
    consumer = log.make_consumer(
        bench.settings.bootstrap,
        **{"fetch.message.max.bytes": 1_048_576, "queued.min.messages": 100_000},
    )
    left = {key for key, end in bench.ends.items() if end}
    consumer.assign([log.TopicPartition(*key, 0) for key in left])
    count = 0
    while left:
        for message in consumer.consume(10_000, 0.2):
            key = message.topic(), message.partition()
            if message.error() is None:
                use(message)
                count += 1
            elif message.error().code() == log.KafkaError._PARTITION_EOF:
                left.discard(key)
    consumer.close()
    return count


def floor(bench: Bench) -> Result:
    return read_only(bench, lambda message: None), {}


def loop(bench: Bench) -> Result:
    """A plain loop: the schemas known beforehand, no resolution, no envelope."""
    registry = RegistryClient(bench.settings.registry, bench.settings.home / "schemas")
    topics = {topic.name: topic for topic in log.all_topics(bench.settings, [bench.task])}
    schemas = {}
    for name in bench.topics:
        registry.schema_id(topics[name].subject, topics[name].value_schema)
        bare = without(topics[name].schemas[0], frozenset({"logicalType"}))
        schemas[name] = fastavro.parse_schema(bare, named_schemas={})
    read = fastavro.schemaless_reader

    def use(message: Any) -> None:
        body = io.BytesIO(message.value())
        body.seek(5)
        read(body, schemas[message.topic()], None)

    return read_only(bench, use), {}


def from_zero(bench: Bench) -> Result:
    return _rebuilt(bench, None, 1)


def side_by_side(bench: Bench) -> Result:
    """The folds of the worker, which all read every event, each in a process of its own."""
    return _rebuilt(bench, None, None, [[fold] for group in bench.folds for fold in group])


def from_checkpoint(bench: Bench) -> Result:
    return _rebuilt(bench, bench.settings.home / "checkpoints", 1)


def make_checkpoint(bench: Bench) -> None:
    """What a live runner would have left behind."""
    codec = log.connect_codec(bench.settings, [bench.task])
    folder = bench.settings.home / "checkpoints"
    if folder.exists():
        return
    to = {
        key: end if key[0] == MODEL_VERSIONS else int(CHECKPOINT_AT * end)
        for key, end in bench.ends.items()
    }
    for group in bench.folds:
        save(replay.rebuild(bench.settings.bootstrap, codec, group, to=to), folder)


def _rebuilt(
    bench: Bench, checkpoints: Path | None, jobs: int | None, groups: list[list[Fold]] | None = None
) -> Result:
    plan = Plan(
        bench.settings.bootstrap,
        partial(log.connect_codec, bench.settings, [bench.task]),
        bench.ends,
        checkpoints=checkpoints,
    )
    groups = groups or bench.folds
    found = rebuild_all(plan, groups, jobs)
    names = [fold.name for group in groups for fold in group]
    return found.events, {name: found.fingerprint(name) for name in names}


ARMS: dict[str, Callable[[Bench], Result]] = {
    FLOOR: floor,
    LOOP: loop,
    ZERO: from_zero,
    SIDE_BY_SIDE: side_by_side,
    RESTORED: from_checkpoint,
}
FOLDING = (ZERO, SIDE_BY_SIDE, RESTORED)
"""These give the state of every fold, and it must be the same."""


def main() -> None:
    name, path = sys.argv[1:]
    job = Job(**json.loads(Path(path).read_text("utf-8")))
    settings, task = Settings.from_env(os.environ), task_of(job)
    topics = [predictions_topic(task.name), labels_topic(task.name), MODEL_VERSIONS]
    bench = Bench(settings, task, replay.ends(settings.bootstrap, topics))
    if name == RESTORED:
        make_checkpoint(bench)
    wait_for_go()
    began = now()
    events, states = ARMS[name](bench)
    result = {"began": began, "ended": now(), "events": events, "states": states}
    print("RESULT " + json.dumps(result), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
