"""driftlog itself: a window worker and the control plane, as live, until every DriftScored is in the log.

The control plane is up before the clock starts and has judged a window of long ago: its topics are in use.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.drift_windows import workload
from benchmarks.drift_windows.job import Job, finish, now, wait_for_go
from infra.settings import Settings
from schemas.catalogue import (
    ALERTS,
    DRIFT_SCORES,
    MODEL_VERSIONS,
    QUALITY_REPORTS,
    RETRAIN_REQUESTS,
    SKETCHES,
    STATE_HASHES,
    predictions_topic,
)
from schemas.codec import Codec
from schemas.event import Event, derive
from streams import log, replay
from streams.folds import control_folds
from streams.task import DriftPolicy, Numeric, Task
from streams.topics import ensure_topics, register_schemas
from streams.window_hashes import fold_name

PARTS = ("windows", "control")
WRITTEN = (
    SKETCHES, DRIFT_SCORES, MODEL_VERSIONS, QUALITY_REPORTS, ALERTS, RETRAIN_REQUESTS, STATE_HASHES,
)  # fmt: skip
"""Emptied before each run: the same ids twice would be one event."""


RUN = "DRIFTLOG_BENCHMARK_RUN"
"""Names this run's groups: they must be new, and a kept cluster remembers those of earlier ones."""


def task_of(job: Job) -> Task:
    return Task(
        name=job.topic.removesuffix(".predictions"),
        features=tuple(Numeric(name) for name in job.features),
        label="label",
        drift=DriftPolicy(
            window_hours=job.window_ms / 3_600_000,
            grace_minutes=job.lateness_ms / 60_000,
            bins=workload.BINS,
        ),
    )


def main() -> None:
    job = Job.read()
    if len(sys.argv) > 2:
        part(job, sys.argv[2])
        return
    os.environ[RUN] = f"{job.run}-{time.time_ns()}"
    settings, task = Settings.from_env(os.environ), task_of(job)
    codec = log.connect_codec(settings, [task])
    empty_topics(settings, task)
    log.LogWriter(settings.bootstrap, codec).append(
        [registered(job, task, version) for version in job.models]
    )
    worker, control = parts = [start(name) for name in PARTS]
    for process in parts:
        assert process.stdout is not None
        if process.stdout.readline() != "READY\n":
            raise SystemExit("a part did not get ready")
    tell(control)
    next(arrivals(settings, DRIFT_SCORES))
    wait_for_go()
    tell(worker)
    scores, ended = wait_for_scores(job, settings, task)
    wait_for_hashes(settings, task)
    began, worker_mb = map(float, stop(worker).split())
    stop(control)
    rows = [(model, start_, name, psi) for (model, start_, name), psi in scores.items()]
    finish(job, began, ended, rows, worker_mb=worker_mb)


def part(job: Job, name: str) -> None:
    """One service in a process of its own; the worker has said something before it says READY."""
    import threading

    settings, task = Settings.from_env(os.environ), task_of(job)
    codec = log.connect_codec(settings, [task])
    if name == "control":
        from streams.app import run_control

        print("READY", flush=True)
        sys.stdin.readline()
        threading.Thread(target=exit_when_told, daemon=True).start()
        run_control(settings, [task], group=f"control-{os.environ[RUN]}")
        return
    from streams.window_worker import WindowWorker

    log.LogWriter(settings.bootstrap, codec).append(old_statements(job, settings, task, codec))
    done = threading.Event()
    worker = WindowWorker(settings.bootstrap, codec, [task], f"windows-{os.environ[RUN]}")
    thread = threading.Thread(target=worker.run, args=(done,))
    print("READY", flush=True)
    sys.stdin.readline()
    thread.start()
    sys.stdin.readline()
    done.set()
    thread.join()
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(worker.began, peak_kb / 1024, flush=True)


def exit_when_told() -> None:
    sys.stdin.readline()
    os._exit(0)


def old_statements(job: Job, settings: Settings, task: Task, codec: Codec) -> list[Event]:
    """What all partitions say of some rows of 1970; compiled code is loaded with it."""
    said = [old_windows(job, task, codec, each) for each in range(settings.partitions)]
    return [event for events in said for event in events]


def old_windows(job: Job, task: Task, codec: Codec, partition: int) -> list[Event]:
    """What one partition says of them."""
    from schemas.columnar import Records
    from streams.window_partition import WindowPartition

    features = dict.fromkeys(job.features, 0.5)
    data = {
        "event_id": "0",
        "event_time": 0,
        "caused_by": None,
        "model_version": job.models[0],
        "score": 0.5,
        "label": 1,
        "features": features,
    }
    references = dict.fromkeys(job.models, job.reference)
    run = WindowPartition(task, codec, partition, references)
    said: list[Event] = []
    for time_ in (0, 1_000_000, 2_000_000):
        payload = codec.encode(
            Event(
                job.topic, "PredictionMade", {**data, "event_id": str(time_), "event_time": time_}
            )
        )
        offsets = range(time_, time_ + 2_000)
        said += run.take(Records.of(job.topic, partition, [payload] * 2_000, offset=offsets))[0]
    return said


def registered(job: Job, task: Task, version: str) -> Event:
    return derive(
        MODEL_VERSIONS,
        "ModelRegistered",
        job.run,
        version,
        time=job.start_ms,
        caused_by=None,
        task=task.name,
        model_version=version,
        parent=None,
        request_id=job.run,
        snapshot=None,
        golden=None,
        artifact="0" * 64,
        path="none",
        bytes=0,
        recipe="benchmark",
        parameters="{}",
        seed=0,
        environment={},
        features=job.features,
        metrics={},
        reference_count=sum(job.reference[0]["counts"]) + job.reference[0]["missing"],
        reference=job.reference,
    )


def empty_topics(settings: Settings, task: Task) -> None:
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    there = set(admin.list_topics(timeout=10).topics) & set(WRITTEN)
    for future in admin.delete_topics(sorted(there)).values() if there else ():
        future.result(30)
    while there & set(admin.list_topics(timeout=10).topics):
        time.sleep(0.1)
    topics = log.all_topics(settings, [task])
    ensure_topics(settings.bootstrap, topics, settings.replication)
    register_schemas(log.connect_codec(settings, [task])._registry, topics)


def start(name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.drift_windows.driftlog_arm", sys.argv[1], name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("GO\n")
    process.stdin.flush()


def stop(process: subprocess.Popen[str]) -> str:
    tell(process)
    assert process.stdout is not None
    said = process.stdout.read().splitlines()  # log lines, then the answer
    process.wait(60)
    return said[-1] if said else ""


def wait_for_scores(
    job: Job, settings: Settings, task: Task
) -> tuple[dict[tuple[str, int, str], float], float]:
    """The newest score of each window and column, once these are about every event of the topic; and when
    the last of them came.

    They are decoded only once all may be there: whoever looks shall not disturb.
    """
    last_window = job.start_ms + (job.windows - 1) * job.window_ms
    newest: dict[tuple[str, int, str], tuple[int, int, float]] = {}
    codec = log.connect_codec(settings, [task])
    waiting: list[tuple[float, Message]] = []
    for at, message in arrivals(settings, DRIFT_SCORES):
        waiting.append((at, message))
        if len(newest) + len(waiting) < job.expected:
            continue
        for came, one in waiting:
            event = log.decode(codec, one)
            assert isinstance(event, Event)
            data = event.data
            if not job.start_ms <= data["window_start"] <= last_window:
                continue
            key = data["model_version"], data["window_start"], data["feature"]
            if data["revision"] >= newest.get(key, (-1,))[0]:
                newest[key] = data["revision"], data["count"], data["psi"]
            if len(newest) == job.expected:
                counted = sum(count for _, count, _ in newest.values())
                if counted == job.events * (len(job.features) + 1):
                    return {key: psi for key, (_, _, psi) in newest.items()}, came
        waiting.clear()
    raise AssertionError


def arrivals(settings: Settings, topic: str) -> Iterator[tuple[float, Message]]:
    """The topic's records from its start on, each with the moment at which it came."""
    consumer = log.make_consumer(settings.bootstrap, **{"fetch.wait.max.ms": 500})
    partitions = log.partitions_of(consumer, [topic])
    consumer.assign([TopicPartition(*key, 0) for key in partitions])
    while True:
        messages = consumer.consume(1, 0.2)
        messages += consumer.consume(999, 0.001) if messages else []
        at = now()
        yield from ((at, message) for message in messages if message.error() is None)


def wait_for_hashes(settings: Settings, task: Task) -> None:
    """Until every drift fold has stated its state at the end of what it reads: for the replay."""
    ends = replay.ends(settings.bootstrap, [predictions_topic(task.name), SKETCHES])
    due = {fold_name(task.name, p) for p in range(settings.partitions)}
    due |= {
        fold.name for fold in control_folds([task], settings.partitions) if SKETCHES in fold.topics
    }
    for event in events_in(settings, log.connect_codec(settings, [task]), STATE_HASHES):
        if all(offset >= ends.get(key, 0) for key, offset in replay.stated_offsets(event).items()):
            due.discard(event.data["fold"])
        if not due:
            return


def events_in(settings: Settings, codec: Codec, topic: str) -> Iterator[Event]:
    """Those in the log and those that come."""
    for items in log.follow(settings.bootstrap, codec, [topic], from_start=True, wait_s=0.02):
        yield from (item for item in items if isinstance(item, Event))


if __name__ == "__main__":
    main()
