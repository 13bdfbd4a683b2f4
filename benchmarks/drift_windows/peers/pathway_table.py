"""Pathway: the topic as a table, decoded by a batched function, windowed and summed by the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pathway as pw

from benchmarks.drift_windows.counting import Scorer
from benchmarks.drift_windows.job import Job, Score, finish, now, wait_for_go
from benchmarks.drift_windows.peers.rows import RowBins, RowDecoder

BATCH = 1_000


def build(job: Job, found: dict[tuple[str, int, str], Score], began: list[float]) -> None:
    decode, bins, score = RowDecoder(job), RowBins(job), Scorer(job)

    @pw.udf(max_batch_size=BATCH)
    def decoded(payloads: list[bytes]) -> list[tuple[int, int, np.ndarray]]:
        if not began:
            began.append(now())
        rows = []
        for payload in payloads:
            time, model, values = decode(payload)
            counts = np.zeros(bins.size, np.int64)
            bins.add(counts, values)
            rows.append((time, model, counts))
        return rows

    records = pw.io.kafka.read(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": f"bench-{job.run}",
            "auto.offset.reset": "earliest",
            "check.crcs": "false",
        },
        topic=job.topic,
        format="raw",
        mode="static",
        autogenerate_key=True,
    )
    rows = records.select(row=decoded(pw.this.data))
    rows = rows.select(time=pw.this.row[0], model=pw.this.row[1], counts=pw.this.row[2])
    windows = rows.windowby(
        pw.this.time,
        window=pw.temporal.tumbling(duration=job.window_ms, origin=job.start_ms),
        instance=pw.this.model,
    ).reduce(
        model=pw.this._pw_instance,
        start=pw.this._pw_window_start,
        counts=pw.reducers.sum(pw.this.counts),
    )

    def on_change(row: dict[str, Any], is_addition: bool, **_: Any) -> None:
        if is_addition:  # a window that grew is told anew: the newest statement counts
            counts = row["counts"].reshape(bins.columns, bins.bins)
            for one in score(job.models[row["model"]], row["start"], counts):
                found[one[:3]] = one

    pw.io.subscribe(windows, on_change)


def main() -> None:
    job = Job.read()
    found: dict[tuple[str, int, str], Score] = {}
    began: list[float] = []
    build(job, found, began)
    wait_for_go()
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    finish(job, began[0], now(), found.values())


if __name__ == "__main__":
    main()
