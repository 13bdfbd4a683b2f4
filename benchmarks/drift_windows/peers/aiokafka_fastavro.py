"""aiokafka's batches, a fastavro loop, NumPy's bins."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.drift_windows.job import Job, finish, now, wait_for_go
from benchmarks.drift_windows.peers.fastavro_rows import Rows


async def main() -> None:
    job = Job.read()
    rows = Rows(job)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=job.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        check_crcs=False,
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=4_194_304,
    )
    await consumer.start()
    await asyncio.to_thread(wait_for_go)
    began = now()
    consumer.assign([TopicPartition(job.topic, number) for number in range(len(job.ends))])
    left = sum(job.ends)
    while left:
        for place, records in (await consumer.getmany(timeout_ms=100, max_records=10_000)).items():
            for record in records:
                rows.add(place.partition, record.value)
            left -= len(records)
        rows.flush()
    finish(job, began, now(), rows.windows.scores)
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main())
