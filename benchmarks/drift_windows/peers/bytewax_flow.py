"""Bytewax: its Kafka source, its event clock, its tumbling windows, folded event by event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import numpy as np
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from benchmarks.drift_windows.counting import Scorer
from benchmarks.drift_windows.job import Job, finish, now, wait_for_go
from benchmarks.drift_windows.peers.rows import RowBins, RowDecoder

BATCH = 1_000
PATIENCE = timedelta(minutes=10)
"""The clock of a key sees all partitions, which are not read evenly, and the wall clock moves it, too."""


def flow(job: Job, found: list[Any], began: list[float]) -> Dataflow:
    decode, bins, names = RowDecoder(job), RowBins(job), job.models
    until = job.start_ms + job.windows * job.window_ms

    def decoded(messages: list[KafkaSourceMessage[Any, Any]]) -> list[Any]:
        if not began:
            began.append(now())
        rows = []
        for message in messages:
            time, model, values = decode(message.value)
            if time >= until:  # a partition's closing event would close the others' windows, too
                continue
            moment = datetime.fromtimestamp(time / 1000, UTC)
            rows.append((names[model], (moment, values)))
        return rows

    def counted(counts: Any, row: Any) -> Any:
        bins.add(counts, row[1])
        return counts

    made = Dataflow("drift")
    source = KafkaSource(
        job.bootstrap.split(","),
        [job.topic],
        tail=False,
        batch_size=BATCH,
        add_config={"check.crcs": "false", "fetch.wait.max.ms": "50"},
    )
    messages = op.input("predictions", made, source)
    keyed = op.flat_map_batch("decode", messages, decoded)
    windows = win.fold_window(
        "count",
        keyed,
        win.EventClock(lambda row: row[0], wait_for_system_duration=PATIENCE),
        win.TumblingWindower(
            length=timedelta(milliseconds=job.window_ms),
            align_to=datetime.fromtimestamp(job.start_ms / 1000, UTC),
        ),
        bins.empty,
        counted,
        lambda one, other: [a + b for a, b in zip(one, other, strict=True)],
        ordered=False,
    )
    scored = op.flat_map("score", windows.down, partial(scores, job, Scorer(job), bins))
    op.output("scores", scored, TestingSink(found))
    return made


def scores(job: Job, scorer: Scorer, bins: RowBins, window: Any) -> list[Any]:
    model, (number, counts) = window
    start = job.start_ms + number * job.window_ms
    return scorer(model, start, np.array(counts).reshape(bins.columns, bins.bins))


def main() -> None:
    job = Job.read()
    found: list[Any] = []
    began: list[float] = []
    made = flow(job, found, began)
    wait_for_go()
    run_main(made)
    finish(job, began[0], now(), found)


if __name__ == "__main__":
    main()
