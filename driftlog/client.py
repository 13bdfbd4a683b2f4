"""Clients of serving: typed answers, batches, retries that add nothing, failover between replicas.

    with Client("http://127.0.0.1:18000", task="flights") as client:
        said = client.predict({"distance": 1089, "hour": 18, "carrier": "AA", "origin": "JFK", "dest": "ORD"})
        client.label(said.event_id, 1)

A connection that fails, a 503 or a 429 (and what balancers say in their place) is tried again with the same
bytes, first elsewhere, then after a wait: the event ids in them are the client's, so whatever the log took
already, it takes once. docs/serving.md has the rest.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from driftlog import client_core as core
from driftlog.client_core import (
    API_KEY,
    Attempts,
    Call,
    ClientError,
    FieldError,
    Health,
    Model,
    NotAllowed,
    Options,
    Policy,
    Prediction,
    Refused,
    Reply,
    Rollout,
    Unavailable,
)

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "FieldError",
    "Health",
    "Model",
    "NotAllowed",
    "Prediction",
    "Refused",
    "Rollout",
    "Unavailable",
]

T = TypeVar("T")
BASE = "http://127.0.0.1:18000"
AT_ONCE = 64
"""Requests under way at a time, of all callers of one client."""
LIMITS = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)


def options(
    bases: str | Sequence[str] = BASE,
    *,
    task: str | None = None,
    api_key: str | None = None,
    batch: int = 200,
    timeout_s: float = 60.0,
    attempt_timeout_s: float = 20.0,
    retries: int = 8,
) -> Options:
    """What a client is made with; without `api_key`, DRIFTLOG_API_KEY of the environment.

    `bases`: one URL or several replicas'. `task` may be None where the service has one. `batch`: instances
    (or labels) in one request. For the times see `Policy`.
    """
    listed = (bases,) if isinstance(bases, str) else tuple(bases)
    return Options(
        tuple(base.rstrip("/") for base in listed),
        task,
        api_key or os.environ.get(API_KEY) or None,
        batch,
        Policy(timeout_s, attempt_timeout_s, retries),
    )


class Client:
    """Synchronous; threads may share one. Close it, or use it in a `with`."""

    def __init__(
        self,
        bases: str | Sequence[str] = BASE,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        **more: Any,
    ) -> None:
        """Takes what `options` takes. `transport` and `sleep` are for tests and special networks."""
        self._options = options(bases, **more)
        self._sleep = sleep
        self._good = 0
        self._http = httpx.Client(
            headers=core.headers(self._options.api_key), transport=transport, limits=LIMITS
        )

    def predict(self, instance: Mapping[str, Any], task: str | None = None) -> Prediction:
        """Score one instance; the answer is in the log. Raises ClientError."""
        return self.predict_many([instance], task)[0]

    def predict_many(
        self, instances: Iterable[Mapping[str, Any]], task: str | None = None
    ) -> list[Prediction]:
        """Score instances, one answer each, in order; large ones in several requests. Raises ClientError."""
        listed = list(instances)
        calls = core.predict_calls(task or self._options.task, listed, self._options.batch, new_id)
        return self._all(calls, core.predictions_in)

    def label(self, prediction_id: str, label: int, task: str | None = None) -> str:
        """Record the truth about a prediction; the label's event id. Raises ClientError."""
        return self.label_many([{"prediction_id": prediction_id, "label": label}], task)[0]

    def label_many(self, labels: Iterable[Mapping[str, Any]], task: str | None = None) -> list[str]:
        """Record many: `{"prediction_id", "label"}` each, `event_time` as wanted. Raises ClientError."""
        calls = core.label_calls(task or self._options.task, list(labels), self._options.batch)
        return self._all(calls, core.label_ids_in)

    def models(self) -> list[Model]:
        """The champion of each task. Raises ClientError."""
        return core.understood(core.models_in, self._send(Call("GET", "/v1/models")))

    def health(self) -> list[Health]:
        """What each of the services says about itself now, in the order of the base URLs. Raises nothing."""
        call, limit = Call("GET", "/readyz"), self._options.policy.limit(0)
        return [_health(self._try(base, call, limit)) for base in self._options.bases]

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _all(self, calls: Iterable[Call], read: Callable[[bytes], list[T]]) -> list[T]:
        done: list[T] = []
        try:
            for call in calls:
                done += core.understood(read, self._send(call))
        except core.ClientError as error:
            error.done = list(done)
            raise
        return done

    def _send(self, call: Call) -> bytes:
        bases, policy = self._options.bases, self._options.policy
        attempts, began = Attempts(len(bases), policy, self._good), time.monotonic()
        now = time.time_ns() // 1_000_000
        while True:
            limit = policy.limit(time.monotonic() - began)
            reply = self._try(bases[attempts.base], call, limit)
            wait = attempts.judge(reply, time.monotonic() - began, random.random())  # noqa: S311
            if wait is None:
                self._good = attempts.base
                return reply.content
            call = core.sent_again(call, now)
            self._sleep(wait)

    def _try(self, base: str, call: Call, limit_s: float) -> Reply:
        try:
            response = self._http.request(
                call.method,
                base + call.path,
                content=call.content,
                headers=call.headers,
                timeout=limit_s,
            )
        except httpx.HTTPError as error:
            return Reply(None, reason=f"{base}: {error!r}")
        return _reply(response)


class AsyncClient:
    """The same with `await`. Close it with `aclose`, or use it in an `async with`."""

    def __init__(
        self,
        bases: str | Sequence[str] = BASE,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Any] = asyncio.sleep,
        **more: Any,
    ) -> None:
        """Takes what `options` takes. `transport` and `sleep` are for tests and special networks."""
        self._options = options(bases, **more)
        self._sleep = sleep
        self._good = 0
        self._lines = _Lines(core.headers(self._options.api_key), transport)

    async def predict(self, instance: Mapping[str, Any], task: str | None = None) -> Prediction:
        """Score one instance; the answer is in the log. Raises ClientError."""
        return (await self.predict_many([instance], task))[0]

    async def predict_many(
        self, instances: Iterable[Mapping[str, Any]], task: str | None = None
    ) -> list[Prediction]:
        """Score instances, one answer each, in order; large ones in several requests. Raises ClientError."""
        listed = list(instances)
        calls = core.predict_calls(task or self._options.task, listed, self._options.batch, new_id)
        return await self._all(calls, core.predictions_in)

    async def label(self, prediction_id: str, label: int, task: str | None = None) -> str:
        """Record the truth about a prediction; the label's event id. Raises ClientError."""
        return (await self.label_many([{"prediction_id": prediction_id, "label": label}], task))[0]

    async def label_many(
        self, labels: Iterable[Mapping[str, Any]], task: str | None = None
    ) -> list[str]:
        """Record many: `{"prediction_id", "label"}` each, `event_time` as wanted. Raises ClientError."""
        calls = core.label_calls(task or self._options.task, list(labels), self._options.batch)
        return await self._all(calls, core.label_ids_in)

    async def models(self) -> list[Model]:
        """The champion of each task. Raises ClientError."""
        return core.understood(core.models_in, await self._send(Call("GET", "/v1/models")))

    async def health(self) -> list[Health]:
        """What each of the services says about itself now, in the order of the base URLs. Raises nothing."""
        call, limit = Call("GET", "/readyz"), self._options.policy.limit(0)
        tries = (self._try(base, call, limit) for base in self._options.bases)
        return [_health(reply) for reply in await asyncio.gather(*tries)]

    async def aclose(self) -> None:
        await self._lines.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _all(self, calls: Iterable[Call], read: Callable[[bytes], list[T]]) -> list[T]:
        done: list[T] = []
        try:
            for call in calls:
                done += core.understood(read, await self._send(call))
        except core.ClientError as error:
            error.done = list(done)
            raise
        return done

    async def _send(self, call: Call) -> bytes:
        bases, policy = self._options.bases, self._options.policy
        attempts, began = Attempts(len(bases), policy, self._good), time.monotonic()
        now = time.time_ns() // 1_000_000
        while True:
            limit = policy.limit(time.monotonic() - began)
            reply = await self._try(bases[attempts.base], call, limit)
            wait = attempts.judge(reply, time.monotonic() - began, random.random())  # noqa: S311
            if wait is None:
                self._good = attempts.base
                return reply.content
            call = core.sent_again(call, now)
            await self._sleep(wait)

    async def _try(self, base: str, call: Call, limit_s: float) -> Reply:
        try:
            async with self._lines.free() as http:
                response = await http.request(
                    call.method,
                    base + call.path,
                    content=call.content,
                    headers=call.headers,
                    timeout=limit_s,
                )
        except httpx.HTTPError as error:
            return Reply(None, reason=f"{base}: {error!r}")
        return _reply(response)


class _Lines:
    """Up to AT_ONCE httpx clients, each for one request at a time, the last used first.

    One client for all would look through all its connections and all that wait for one at each step of
    each request: a third of the throughput at 64 callers.
    """

    def __init__(
        self, headers: Mapping[str, str], transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self._headers = headers
        self._transport = transport
        self._trust = httpx.create_ssl_context()
        self._made: list[httpx.AsyncClient] = []
        self._free: list[httpx.AsyncClient] = []
        self._turn = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def free(self) -> AsyncIterator[httpx.AsyncClient]:
        async with self._turn:
            line = self._free.pop() if self._free else self._make()
            try:
                yield line
            finally:
                self._free.append(line)

    def _make(self) -> httpx.AsyncClient:
        made = httpx.AsyncClient(
            headers=self._headers, transport=self._transport, verify=self._trust
        )
        self._made.append(made)
        return made

    async def aclose(self) -> None:
        for line in self._made:
            await line.aclose()


def new_id() -> str:
    """An event id of the client's making."""
    return str(uuid.uuid4())


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, response.content, response.headers.get("retry-after"))


def _health(reply: Reply) -> Health:
    said = core.health_in(reply)
    return said or Health(False, {"reason": reply.reason or f"status {reply.status}"})
