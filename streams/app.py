"""Joins the stream core to the world: the worker (batch runner) and the control plane (Faust runner)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Gauge, start_http_server

from infra.settings import HOST, Settings
from streams import batch, control, log
from streams.fold import Fold, Projector
from streams.folds import control_folds, worker_folds
from streams.online import OnlineStore
from streams.recovery import recover
from streams.task import Task

WORKER_GROUP = "driftlog-worker"
CONTROL_GROUP = "driftlog-control"


def run_worker(settings: Settings, tasks: Sequence[Task]) -> None:
    """Features, windows and outcomes of every task, until SIGTERM."""
    stop = threading.Event()

    def on_signal(*_: Any) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    applied = Counter("driftlog_worker_events", "Events applied by the worker.")
    pending = Gauge("driftlog_worker_waiting_predictions", "Predictions without label.", ["task"])

    def on_batch(count: int, projector: Projector) -> None:
        applied.inc(count)
        for task in tasks:
            join = projector.states[f"{task.name}.outcomes"].join
            pending.labels(task.name).set(len(join.predictions))

    store = OnlineStore(settings.redis, tasks)

    def on_recovered() -> None:
        start_http_server(settings.port(18002), HOST)

    batch.run(
        settings.bootstrap,
        log.connect_codec(settings, tasks),
        WORKER_GROUP,
        worker_folds(tasks, settings.partitions),
        stop,
        store.flush,
        on_batch,
        on_recovered,
    )


def run_control(settings: Settings, tasks: Sequence[Task], more: Sequence[Fold] = ()) -> None:
    """Scoring and the retrain policy of every task, and the folds `more`, until SIGTERM."""
    codec = log.connect_codec(settings, tasks)
    folds = [*control_folds(tasks, settings.partitions), *more]
    projector = recover(settings.bootstrap, codec, CONTROL_GROUP, folds)
    start_http_server(settings.port(18003), HOST)
    control.run(settings.bootstrap, codec, CONTROL_GROUP, projector, settings.home / "faust")
