"""`GET /lag`: has the history stored everything that the log held when it was asked?

Unlike the gauges of `/metrics`, which the consumer writes as it reads, this asks the brokers first, so
`caught_up` covers every event that was acknowledged before the request:

    {"caught_up": true, "lag": 0, "state": "running", "problem": "",
     "topics": {"flights.predictions": {"end": 20000, "stored": 20000, "lag": 0}, ...}}

`?wait=SECONDS` (at most 300) answers as soon as that is so, or with the lag that is left when the time
is over; what is written meanwhile does not count. 503 and {"error"} if no broker answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumers.history.metrics import HistoryMetrics
from consumers.history.record import Partition

Ends = Callable[[], Mapping[Partition, int]]
"""Asks the log where its partitions end now; raises ConnectionError."""

LONGEST_WAIT_S = 300.0
LOOK_S = 0.05


def lag_route(metrics: HistoryMetrics, ends: Ends) -> Route:
    """The route; `ends` is called in a thread, once a request."""

    async def lag(request: Request) -> Response:
        try:
            wait_s = _seconds(request.query_params.get("wait", "0"))
            at = await anyio.to_thread.run_sync(ends)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ConnectionError as error:
            return JSONResponse({"error": f"the log does not say where it ends: {error}"}, 503)
        give_up = time.monotonic() + wait_s
        while True:
            found = metrics.lag(at)
            if found["caught_up"] or time.monotonic() >= give_up:
                return JSONResponse(found)
            await anyio.sleep(LOOK_S)

    return Route("/lag", lag)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise ValueError(
            f"wait={text}: a number of seconds from 0 to {LONGEST_WAIT_S:g} is expected"
        )
    return seconds
