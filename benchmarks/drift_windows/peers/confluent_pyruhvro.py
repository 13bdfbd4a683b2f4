"""confluent-kafka's batches, pyruhvro (Avro to Arrow in Rust), NumPy's bins."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Message
from pyruhvro import deserialize_array

from benchmarks.drift_windows.counting import NumpyWindows
from benchmarks.drift_windows.job import Job, finish, now, wait_for_go
from benchmarks.drift_windows.peers.batches import batches, make_consumer


class Decoder:
    def __init__(self, job: Job) -> None:
        self._schema = json.dumps(job.schema)
        self._models = pa.array(job.models)

    def __call__(self, messages: list[Message]) -> tuple[Any, ...]:
        """(partition, time, model, values) for `NumpyWindows.add`."""
        payloads = [message.value()[5:] for message in messages]
        batch = deserialize_array(payloads, self._schema)
        # NaN for null, without a copy where there is none
        vectors = [
            column.to_numpy(zero_copy_only=False) for column in batch.column("features").flatten()
        ]
        return (
            np.array([message.partition() for message in messages]),
            batch.column("event_time").to_numpy(),
            pc.index_in(batch.column("model_version"), self._models).to_numpy(),
            [*vectors, batch.column("score").to_numpy()],
        )


def main() -> None:
    job = Job.read()
    consumer, decode, windows = make_consumer(job), Decoder(job), NumpyWindows(job)
    wait_for_go()
    began = now()
    for messages in batches(consumer, job):
        windows.add(*decode(messages))
    finish(job, began, now(), windows.scores)


if __name__ == "__main__":
    main()
