"""The history service: one thread stores the log in ClickHouse, the main thread answers over HTTP.

The embedded ClickHouse (chDB) lives in `<home>/clickhouse`; delete it, and it comes back from the log.
HTTP on 18123: ClickHouse's own protocol on `/`, and `/ping`, `/healthz` (the process answers), `/readyz`
(the engine is open and the log is being read), `/lag[?wait=SECONDS]` (see `lag`), `/status`, `/metrics`.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infra.settings import HOST, Settings
from schemas.catalogue import Topic

if TYPE_CHECKING:
    from consumers.history.metrics import HistoryMetrics
    from consumers.history.runner import HistoryRunner
    from consumers.history.store import Store

log = logging.getLogger("driftlog.history")


def chdb_path(settings: Settings) -> Path:
    """The directory of the embedded ClickHouse."""
    return settings.home / "clickhouse"


def main(settings: Settings, topics: Sequence[Topic]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status. What was read is stored before it returns."""
    import uvicorn

    from consumers.history.consumer import LogEnds
    from consumers.history.engine import Engine
    from consumers.history.http import history_app
    from consumers.history.metrics import HistoryMetrics
    from consumers.history.runner import LogRecreated
    from consumers.history.store import Store, StoreUnavailable, open_embedded, open_server
    from consumers.history.tables import SchemaDrift

    metrics = HistoryMetrics()
    embedded = not settings.clickhouse_url
    try:
        client = (
            open_embedded(chdb_path(settings)) if embedded else open_server(settings.clickhouse_url)
        )
    except StoreUnavailable as error:
        log.error("%s", error)
        return 1
    engine = Engine(chdb_path(settings)) if embedded else None
    ends = LogEnds(settings.bootstrap, [topic.name for topic in topics])
    app = history_app(metrics, engine, ends, settings.clickhouse_url)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=HOST if embedded else settings.metrics_host,  # a database stays on loopback
            port=settings.port(settings.history_base),
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
    )
    stop = threading.Event()
    failed = threading.Event()
    store = Store(client)

    def consume() -> None:
        try:
            _runner(settings, topics, store, metrics, stop).run()
        except (LogRecreated, SchemaDrift) as error:  # what is stored can still be asked
            log.error("the history cannot go on: %s", error)
            failed.set()
        except Exception:
            log.exception("the history stops: its supervisor starts it anew")
            failed.set()
            server.should_exit = True

    thread = threading.Thread(target=consume, name="history-consumer")
    thread.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped: by then it must not kill the process.
        signal.signal(number, lambda *_: stop.set())
    try:
        server.run()
    finally:
        stop.set()
        thread.join()
        store.close()
    return 1 if failed.is_set() else 0


def _runner(
    settings: Settings,
    topics: Sequence[Topic],
    store: Store,
    metrics: HistoryMetrics,
    stop: threading.Event,
) -> HistoryRunner:
    from consumers.history.consumer import LogReader
    from consumers.history.dead_letters import DeadLetterQueue
    from consumers.history.runner import HistoryRunner
    from schemas.codec import Codec
    from schemas.registry.client import RegistryClient

    # While it is asked about one schema, nothing else is read: a short answer is worth more here.
    registry = RegistryClient(settings.registry, settings.home / "schemas", timeout_s=2.0)
    return HistoryRunner(
        topics=topics,
        decoder=Codec(registry, topics),
        reader=LogReader(settings.bootstrap, [topic.name for topic in topics]),
        store=store,
        dead_letters=DeadLetterQueue(settings.bootstrap, settings.replication),
        metrics=metrics,
        stop=stop,
    )
