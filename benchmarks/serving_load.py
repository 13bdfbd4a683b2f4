"""The load generator of `benchmarks.serving`: one process, raw sockets, the same for every arm.

    python -m benchmarks.serving_load JOB.json

Closed loop: each of `connections` sends its next request when it has the answer to the last. Open loop:
request i is due at start + i / rate, whatever became of those before it, and its latency counts from that
moment: a server that stalls cannot hide how long callers would have waited (coordinated omission). Prints
one line of JSON. An UNNAMED in a body is replaced by an id that is new each time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from array import array
from collections import Counter, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

TICK_S = 0.001
"""The open loop looks so often for what is due; a request that is due in between waits for the next look."""
END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
UNNAMED = b"@" * 36
"""Stands for an id in a body."""


@dataclass
class Job:
    """What to send where, for how long."""

    port: int
    path: str
    bodies: str
    """A file with one JSON body a line."""
    seconds: float
    connections: int = 64
    rate: float | None = None
    """Requests a second of an open loop; None: closed."""
    warm_s: float = 1.0
    grpc_method: str = ""
    """Full name of a method; then the bodies are serialised messages in hex."""
    streaming: bool = False

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


class Tally:
    """Latencies (s) of what was answered between the end of the warm-up and the end."""

    def __init__(self, job: Job) -> None:
        self.begin = time.perf_counter() + job.warm_s
        self.end = self.begin + job.seconds
        self.latencies = array("d")
        self.statuses: Counter[str] = Counter()
        self.sample = ""

    def note(self, since: float, status: str) -> None:
        now = time.perf_counter()
        if self.begin <= now < self.end:
            self.latencies.append(now - since)
            self.statuses[status] += 1

    def result(self, job: Job) -> dict[str, Any]:
        found = np.frombuffer(self.latencies, dtype=np.float64) * 1e3
        quantiles = np.quantile(found, [0.5, 0.99, 0.999]) if len(found) else [0.0] * 3
        return {
            "answered": len(found),
            "rate": len(found) / job.seconds,
            "p50_ms": float(quantiles[0]),
            "p99_ms": float(quantiles[1]),
            "p999_ms": float(quantiles[2]),
            "max_ms": float(found.max()) if len(found) else 0.0,
            "statuses": dict(self.statuses),
            "failed": sum(n for status, n in self.statuses.items() if status not in ("200", "OK")),
            "sample": self.sample,
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._seen = b""
        self.since = 0.0
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, request: bytes, since: float) -> None:
        self.since = since
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._seen = seen = self._seen + data if self._seen else data
        head = seen.find(END)
        if head < 0:
            return
        at = seen[:head].lower().find(LENGTH)
        stop = seen.find(b"\r", at + len(LENGTH))
        whole = head + len(END) + int(seen[at + len(LENGTH) : stop])
        if len(seen) < whole:
            return
        self._seen = b""
        status = seen[9:12].decode()
        if status != "200" or not self._load.tally.sample:
            self._load.tally.sample = seen[head + 4 : whole][:300].decode("utf-8", "replace")
        self._load.answered(self, status)

    def connection_lost(self, _: Exception | None) -> None:
        self._load.tally.statuses["connection lost"] += 1


class Load:
    """Sends requests over connections, in a closed or an open loop."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._requests = [
            f"POST {job.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
            for body in Path(job.bodies).read_bytes().splitlines()
        ]
        self._named = UNNAMED in self._requests[0]
        self._run = uuid.uuid4().hex[:16]
        self._sent = 0
        self._idle: list[Connection] = []
        self._late: deque[float] = deque()
        self.tally = Tally(job)

    def answered(self, connection: Connection, status: str) -> None:
        self.tally.note(connection.since, status)
        if self._job.rate is None:
            if time.perf_counter() < self.tally.end:
                connection.send(self._next(), time.perf_counter())
        elif self._late:
            connection.send(self._next(), self._late.popleft())
        else:
            self._idle.append(connection)

    def _next(self) -> bytes:
        self._sent += 1
        request = self._requests[self._sent % len(self._requests)]
        if self._named:
            return request.replace(UNNAMED, f"{self._run}{self._sent:020d}".encode())
        return request

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        opened = []
        for _ in range(self._job.connections):
            _, made = await loop.create_connection(
                lambda: Connection(self), "127.0.0.1", self._job.port
            )
            opened.append(made)
        self.tally = Tally(self._job)
        if self._job.rate is None:
            for connection in opened:
                connection.send(self._next(), time.perf_counter())
            await asyncio.sleep(self.tally.end - time.perf_counter())
        else:
            self._idle = opened
            await self._tick(self._job.rate)
        result = self.tally.result(self._job)
        for connection in opened:
            connection.transport.abort()
        return result

    async def _tick(self, rate: float) -> None:
        start, due = time.perf_counter(), 0
        while (now := time.perf_counter()) < self.tally.end:
            while start + due / rate <= now:
                since = start + due / rate
                due += 1
                if self._idle:
                    self._idle.pop().send(self._next(), since)
                else:
                    self._late.append(since)
            await asyncio.sleep(TICK_S)
        self.tally.statuses["never sent"] += len(self._late)


async def over_grpc(job: Job) -> dict[str, Any]:
    """The same over one gRPC channel per 16 callers; messages go as bytes, nothing is parsed."""
    import grpc

    messages = [bytes.fromhex(line) for line in Path(job.bodies).read_text().split()]
    channels = [
        grpc.aio.insecure_channel(
            f"127.0.0.1:{job.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        for _ in range(max(1, job.connections // 16))
    ]
    tally = Tally(job)

    async def unary(number: int) -> None:
        call = channels[number % len(channels)].unary_unary(job.grpc_method)
        sent = number
        while (since := time.perf_counter()) < tally.end:
            sent += job.connections
            try:
                answer = await call(messages[sent % len(messages)])
                tally.sample = tally.sample or repr(answer)[:200]
                tally.note(since, "OK")
            except grpc.aio.AioRpcError as error:
                tally.sample = str(error.details())
                tally.note(since, error.code().name)

    async def stream(number: int) -> None:
        """Answers come in order; each is followed by the next message."""
        call = channels[number % len(channels)].stream_stream(job.grpc_method)()
        sent = number
        while (since := time.perf_counter()) < tally.end:
            sent += job.connections
            await call.write(messages[sent % len(messages)])
            answer = await call.read()
            tally.sample = tally.sample or repr(answer)[:200]
            tally.note(since, "200" if isinstance(answer, bytes) else "ended")
            if not isinstance(answer, bytes):
                return
        await call.done_writing()

    async with asyncio.timeout(job.seconds + job.warm_s + 30):
        await asyncio.gather(
            *((stream if job.streaming else unary)(n) for n in range(job.connections))
        )
    result = tally.result(job)
    for channel in channels:
        await channel.close()
    return result


def main() -> int:
    job = Job(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    run = over_grpc(job) if job.grpc_method else Load(job).run()
    print(json.dumps(uvloop.run(run)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
