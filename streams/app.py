"""Joins the stream core to the world: the worker (batch runner) and the control plane (Faust runner)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, start_http_server

import kernels
from infra.settings import HOST, Settings
from streams import batch, control, log
from streams.fold import Fold, Projector
from streams.folds import control_folds, worker_folds
from streams.lag import LagMeter
from streams.online import OnlineStore
from streams.recovery import recover
from streams.task import Task

logger = structlog.get_logger()
WORKER_GROUP = "driftlog-worker"
WINDOWS_GROUP = "driftlog-windows"
CONTROL_GROUP = "driftlog-control"


def run_worker(settings: Settings, tasks: Sequence[Task]) -> None:
    """Features and outcomes of every task, until SIGTERM."""
    stop = _stop_on_signals()
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


def run_windows(settings: Settings, tasks: Sequence[Task], name: str, base_port: int) -> None:
    """Input windows of every task, as the member `name` of their group, until SIGTERM."""
    from streams.window_worker import WindowWorker  # compiled loops: only who needs them waits

    stop = _stop_on_signals()
    unreadable = Counter("driftlog_windows_unreadable", "Records that are no event.", ["topic"])

    def on_bad(partition: log.Partition, bad: Sequence[Any]) -> None:
        """The history consumer owns the dead-letter topic."""
        unreadable.labels(partition[0]).inc(len(bad))
        logger.warning("undecodable records", at=partition, count=len(bad), first=str(bad[0].error))

    codec = log.connect_codec(settings, tasks)
    worker = WindowWorker(
        settings.bootstrap, codec, tasks, WINDOWS_GROUP, member=name, on_bad=on_bad
    )
    taken = Gauge(
        "driftlog_windows_events", "Events summarised since the start.", ["topic", "partition"]
    )
    too_late = Gauge(
        "driftlog_windows_too_late", "Events later than anyone waits.", ["topic", "partition"]
    )
    waiting = Gauge(
        "driftlog_windows_waiting", "Events of unregistered versions.", ["topic", "partition"]
    )

    meter = LagMeter(settings.bootstrap, WINDOWS_GROUP)

    def tell() -> None:
        while not stop.wait(1.0):
            meter.observe({key: owned.run.position for key, owned in worker.owned.copy().items()})
            for (topic, partition), owned in list(worker.owned.items()):
                taken.labels(topic, partition).set(owned.run.events)
                too_late.labels(topic, partition).set(owned.run.state.too_late)
                waiting.labels(topic, partition).set(owned.run.state.pending)

    threading.Thread(target=tell, daemon=True).start()
    start_http_server(settings.port(base_port), HOST)
    try:
        worker.run(stop)
    finally:
        meter.close()


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(*_: Any) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def run_control(
    settings: Settings,
    tasks: Sequence[Task],
    more: Sequence[Fold] = (),
    group: str = CONTROL_GROUP,
) -> None:
    """Scoring and the retrain policy of every task, and the folds `more`, until SIGTERM."""
    kernels.load()
    codec = log.connect_codec(settings, tasks)
    folds = [*control_folds(tasks, settings.partitions), *more]
    projector = recover(settings.bootstrap, codec, group, folds)
    start_http_server(settings.port(18003), HOST)
    control.run(settings.bootstrap, codec, group, projector, settings.home / "faust")
