"""Open-loop callers: RATE requests a second through driftlog's own client, whatever the answers take.

callers.py BASES RATE: prints {"started": true}, asks until a line comes on standard input, then prints
what was answered and what failed. Latencies (s) count from the moment at which a request was due.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

from driftlog import AsyncClient
from driftlog.client import ClientError

INSTANCE = {
    "departure_hour": 9.5,
    "weekday": "mon",
    "carrier": "UA",
    "origin": "EWR",
    "dest": "IAH",
    "scheduled_minutes": 227.0,
    "distance": 1400.0,
    "event_time": "2013-01-14T12:00:00Z",
}


async def main(bases: list[str], rate: float) -> None:
    answered: list[str] = []
    versions: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    stop = loop.run_in_executor(None, sys.stdin.readline)
    async with AsyncClient(bases, task="flights", timeout_s=240) as client:

        async def ask(due: float) -> None:
            try:
                said = await client.predict(INSTANCE)
            except ClientError as error:
                failures[f"{type(error).__name__}: {error}"[:120]] += 1
                return
            latencies.append(time.perf_counter() - due)
            answered.append(said.event_id)
            versions[said.model_version] += 1

        await client.predict(INSTANCE)
        print(json.dumps({"started": True}), flush=True)
        asking: set[asyncio.Task[None]] = set()
        began, sent = time.perf_counter(), 0
        while not stop.done():
            due = began + sent / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            one = loop.create_task(ask(due))
            asking.add(one)
            one.add_done_callback(asking.discard)
            sent += 1
            if sent % 50 == 0:
                await asyncio.sleep(0)  # a caller that is late must not starve its own answers
        seconds = time.perf_counter() - began
        await asyncio.gather(*asking)
    latencies.sort()
    said: dict[str, Any] = {
        "sent": sent,
        "rate": sent / seconds,
        "answered": answered,
        "versions": versions,
        "failures": failures,
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[len(latencies) * 99 // 100],
        "slowest": latencies[-1],
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1].split(","), float(sys.argv[2])))
