"""The floor: confluent-kafka hands on every record, and nothing is decoded."""

from __future__ import annotations

from benchmarks.drift_windows.job import Job, finish, now, wait_for_go
from benchmarks.drift_windows.peers.batches import batches, make_consumer


def main() -> None:
    job = Job.read()
    consumer = make_consumer(job)
    wait_for_go()
    began = now()
    for _ in batches(consumer, job):
        pass
    finish(job, began, now(), [])


if __name__ == "__main__":
    main()
