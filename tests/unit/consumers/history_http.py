"""The HTTP face of the history on a socket of this machine, without a log behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import uvicorn

from consumers.history.engine import Engine
from consumers.history.http import history_app
from consumers.history.metrics import HistoryMetrics
from consumers.history.record import Partition


@dataclass
class Service:
    """A running HTTP face, with what its consumer and its log would say."""

    url: str
    metrics: HistoryMetrics
    ends: dict[Partition, int] = field(default_factory=dict)
    log_answers: bool = True

    def ask_log(self) -> dict[Partition, int]:
        if not self.log_answers:
            raise ConnectionError("no broker answers")
        return dict(self.ends)


def serve(engine: Engine | None, elsewhere: str = "") -> Iterator[Service]:
    listener = socket.create_server(("127.0.0.1", 0))
    service = Service(f"http://127.0.0.1:{listener.getsockname()[1]}", HistoryMetrics())
    app = history_app(service.metrics, engine, service.ask_log, elsewhere)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield service
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
