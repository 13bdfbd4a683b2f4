"""confluent-kafka's batches, a fastavro loop, NumPy's bins."""

from __future__ import annotations

from benchmarks.drift_windows.job import Job, finish, now, wait_for_go
from benchmarks.drift_windows.peers.batches import batches, make_consumer
from benchmarks.drift_windows.peers.fastavro_rows import Rows


def main() -> None:
    job = Job.read()
    consumer, rows = make_consumer(job), Rows(job)
    wait_for_go()
    began = now()
    for messages in batches(consumer, job):
        for message in messages:
            rows.add(message.partition(), message.value())
        rows.flush()
    finish(job, began, now(), rows.windows.scores)


if __name__ == "__main__":
    main()
