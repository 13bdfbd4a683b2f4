"""Joins the trainer to the world: log, history, artifact store, metrics; stops on SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any

from prometheus_client import start_http_server

from infra.settings import Settings
from models.artifacts import ArtifactStore
from models.history import History
from models.registry_log import RegistryLog, Stopped
from models.snapshots import Snapshots
from models.trainer import Trainer
from models.trainer_metrics import TrainerMetrics
from streams.device import export_calls, use_device
from streams.log import connect_codec
from streams.quarantine import Quarantine
from streams.task import Task

PORT = 18004


def main(settings: Settings, tasks: Sequence[Task]) -> None:
    """Answer retrain requests until SIGTERM, which ends a training at once: the next start does it again."""
    stop = threading.Event()
    codec = connect_codec(settings, tasks)
    log = RegistryLog(settings.bootstrap, codec, stop, [Quarantine(task) for task in tasks])
    history = History(settings.clickhouse)
    store = ArtifactStore(settings.artifacts)
    metrics = TrainerMetrics()
    use_device(settings)
    export_calls(metrics.registry)
    trainer = Trainer(tasks, log, Snapshots(history, store), store, metrics, stop)

    def on_signal(*_: Any) -> None:
        stop.set()
        if trainer.interruptible:
            raise Stopped

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        trainer.start()
        start_http_server(settings.port(PORT), settings.metrics_host, metrics.registry)
        trainer.run()
    except Stopped:
        pass
    finally:
        log.close()
        history.close()
