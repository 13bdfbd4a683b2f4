"""Joins the stream core to the world: the worker (batch runner) and the control plane (Faust runner)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import Counter, Gauge, start_http_server

import kernels
from infra import garbage
from infra.settings import Settings
from streams import batch, log
from streams.control import ControlPlane
from streams.device import export_calls, use_device
from streams.fold import Fold, Projector
from streams.folds import control_folds, worker_folds
from streams.lag import LagMeter
from streams.online import OnlineStore
from streams.recovery import recover
from streams.task import Task

if TYPE_CHECKING:
    from streams.outcome_worker import OutcomeWorker

logger = structlog.get_logger()
WORKER_GROUP = "driftlog-worker"
WINDOWS_GROUP = "driftlog-windows"
CONTROL_GROUP = "driftlog-control"


def outcomes_group(task: Task) -> str:
    """Of the outcomes of one task: each has a local store that stands at its own offsets."""
    return f"driftlog-outcomes-{task.name}"


def run_worker(settings: Settings, tasks: Sequence[Task]) -> None:
    """Features and outcomes of every task, until SIGTERM."""
    from streams.outcome_worker import OutcomeWorker  # compiled loops: only who needs them waits

    stop = _stop_on_signals()
    applied = Counter("driftlog_worker_events", "Events applied to the features.")
    pending = Gauge("driftlog_worker_waiting_predictions", "Predictions without label.", ["task"])
    joined = Gauge(
        "driftlog_worker_outcomes",
        "Predictions that met their label (matched) or aged out (unmatched); labels that aged out (unused),"
        " those among them that came too late (late).",
        ["task", "outcome"],
    )
    codec = log.connect_codec(settings, tasks)
    outcomes = [
        OutcomeWorker(
            settings.bootstrap,
            codec,
            task,
            settings.partitions,
            outcomes_group(task),
            settings.home / "outcomes" / task.name,
            _skipped,
        )
        for task in tasks
    ]
    threads = [OutcomeThread(worker, stop) for worker in outcomes]

    def on_batch(count: int, projector: Projector) -> None:  # noqa: ARG001
        applied.inc(count)

    def tell() -> None:
        while not stop.wait(1.0):
            for worker in outcomes:
                pending.labels(worker.task.name).set(worker.waiting)
                for outcome, count in worker.counts.items():
                    joined.labels(worker.task.name, outcome).set(count)

    store = OnlineStore(settings.redis, tasks)

    def on_recovered() -> None:
        garbage.keep_what_lives()
        start_http_server(settings.port(18002), settings.metrics_host)
        threading.Thread(target=tell, daemon=True).start()

    for thread in threads:
        thread.start()
    try:
        batch.run(
            settings.bootstrap,
            codec,
            WORKER_GROUP,
            worker_folds(tasks, settings.partitions),
            stop,
            store.flush,
            on_batch,
            on_recovered,
            settings.home / "checkpoints",
        )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for thread in threads:
        if thread.failed is not None:
            raise thread.failed


class OutcomeThread(threading.Thread):
    """Runs an outcome worker; what ends it early ends the service."""

    def __init__(self, worker: OutcomeWorker, stop: threading.Event) -> None:
        super().__init__(name=f"outcomes-{worker.task.name}", daemon=True)
        self.failed: Exception | None = None
        self._worker, self._stopping = worker, stop

    def run(self) -> None:
        try:
            self._worker.run(self._stopping)
        except Exception as error:
            self.failed = error
            self._stopping.set()


def _skipped(partition: log.Partition, bad: Sequence[Any]) -> None:
    """The history consumer owns the dead-letter topic."""
    first = str(bad[0].error)
    logger.warning("undecodable records skipped", at=partition, count=len(bad), first=first)


def run_windows(settings: Settings, tasks: Sequence[Task], name: str, base_port: int) -> None:
    """Input windows of every task, as the member `name` of their group, until SIGTERM."""
    from streams.window_worker import WindowWorker  # compiled loops: only who needs them waits

    stop = _stop_on_signals()
    use_device(settings)
    export_calls()
    unreadable = Counter("driftlog_windows_unreadable", "Records that are no event.", ["topic"])

    def on_bad(partition: log.Partition, bad: Sequence[Any]) -> None:
        unreadable.labels(partition[0]).inc(len(bad))
        _skipped(partition, bad)

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
    start_http_server(settings.port(base_port), settings.metrics_host)
    garbage.keep_what_lives()
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
    use_device(settings)
    export_calls()
    kernels.load()
    codec = log.connect_codec(settings, tasks)
    folds = [*control_folds(tasks, settings.partitions), *more]
    checkpoints = settings.home / "checkpoints"
    projector = recover(settings.bootstrap, codec, group, folds, checkpoints)
    start_http_server(settings.port(18003), settings.metrics_host)
    data = settings.home / "faust"
    control = ControlPlane(settings.bootstrap, codec, group, projector, data, checkpoints)
    garbage.keep_what_lives()
    control.run()
