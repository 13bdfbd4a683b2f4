"""Faust: an app with one agent that takes batches; bins in NumPy, without a table and its changelog."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import faust

from benchmarks.drift_windows.job import Job, finish, now, wait_for_go
from benchmarks.drift_windows.peers.fastavro_rows import Rows

BATCH = 5_000


def make_app(job: Job, rows: Rows) -> faust.App:
    app = faust.App(
        f"bench-{job.run}",
        broker=[f"kafka://{address}" for address in job.bootstrap.split(",")],
        datadir=str(Path(job.scores).with_suffix(".faust")),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=4_194_304,
        broker_max_poll_records=BATCH,
        stream_buffer_maxsize=2 * BATCH,
        stream_wait_empty=False,
        broker_commit_interval=5.0,
        loghandlers=[],
    )
    topic = app.topic(job.topic, key_serializer="raw", value_serializer="raw")

    async def count(stream: Any) -> None:
        left, began = sum(job.ends), 0.0
        async for events in stream.take_events(BATCH, within=0.5):
            began = began or now()
            for event in events:
                rows.add(event.message.partition, event.value)
            rows.flush()
            left -= len(events)
            if not left:
                await asyncio.to_thread(finish, job, began, now(), rows.windows.scores)
                os._exit(0)

    app.agent(topic)(count)
    return app


def main() -> None:
    job = Job.read()
    app = make_app(job, Rows(job))
    wait_for_go()
    worker = faust.Worker(app, loglevel="WARN", quiet=True, redirect_stdouts=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
