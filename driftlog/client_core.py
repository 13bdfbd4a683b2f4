"""What the clients do, without doing it: the request to send, what a response means, how long to wait.

Pure: no clock, no socket, no dice. Ids and random numbers are passed in, so that the sync and the async
client behave alike and tests can say what happens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote

MAX_ITEMS = 1_000
"""Instances, or labels, of one request that the service takes."""
MAX_BYTES = 1_000_000
"""Of a body; the service refuses more than 1 MiB."""
API_KEY = "DRIFTLOG_API_KEY"
"""Variable of the environment that holds the caller's key."""
FIRST_SENT = "Driftlog-First-Sent"
RETRIED = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses after which the same bytes may be sent again: their event ids make that harmless."""
FIRST_WAIT_S = 0.1
MAX_WAIT_S = 5.0

JsonObject = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer. Keep `event_id`: the label refers to it. `warnings` are those of the whole request."""

    event_id: str
    score: float
    label: int
    model_version: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """A version beside the champion: the share of requests it answers, or whether it only watches."""

    model_version: str
    share: float
    shadow: bool


@dataclass(frozen=True, slots=True)
class Model:
    """The champion of a task (None: none is loaded), since when (event time, ms) and why."""

    task: str
    model_version: str | None
    since: int | None
    reason: str | None
    rollout: Rollout | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a service is ready, and what it says about its parts."""

    ready: bool
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong, and where: `instances[3].distance`."""

    loc: str
    message: str


class ClientError(Exception):
    """A call that failed. `status` is the last response's, None if there was none.

    `done`: what earlier batches of the same call were answered; it is in the log.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.done: list[Any] = []


class Refused(ClientError):
    """The service will not take this request, now or later; `errors` name the fields."""

    def __init__(self, message: str, status: int, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message, status)
        self.errors = tuple(errors)


class NotAllowed(Refused):
    """No API key, a wrong one, or one without the right (401, 403)."""


class Unavailable(ClientError):
    """No service answered in time. What was sent may be in the log: send it again with the same event ids."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, the same bytes however often it is sent."""

    method: str
    path: str
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a response, or (status None) the reason why none did."""

    status: int | None
    content: bytes = b""
    retry_after: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a caller's patience lasts.

    `timeout_s`: for one request, its retries and waits included. `attempt_timeout_s`: how long a try may be
    silent. `retries`: tries after the first.
    """

    timeout_s: float = 60.0
    attempt_timeout_s: float = 20.0
    retries: int = 8

    def limit(self, elapsed_s: float) -> float:
        """How long the next try may be silent."""
        return min(self.attempt_timeout_s, max(self.timeout_s - elapsed_s, 0.001))


@dataclass(slots=True)
class Attempts:
    """The tries of one call over a list of services: which is next, and after how long.

    After a failure the next service is tried at once; a wait (doubled from round to round, with jitter, and
    no shorter than a Retry-After) comes only when all have failed. `first` is where the last success was.
    """

    bases: int
    policy: Policy
    first: int = 0
    _failed: int = 0
    _asked_s: float = 0.0

    @property
    def base(self) -> int:
        """Index of the service to try now."""
        return (self.first + self._failed) % self.bases

    def judge(self, reply: Reply, elapsed_s: float, dice: float) -> float | None:
        """None if `reply` is the answer, else how long to wait (s) before the next try.

        `elapsed_s` since the call began; `dice` uniform in 0..1. Raises Refused, NotAllowed or Unavailable.
        """
        if reply.status is not None and reply.status not in RETRIED:
            if 200 <= reply.status < 300:
                return None
            raise _refused(reply, reply.status)
        self._failed += 1
        self._asked_s = max(self._asked_s, _seconds(reply.retry_after))
        wait = 0.0
        if self._failed % self.bases == 0:
            rounds = self._failed // self.bases
            backoff = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** (rounds - 1))
            wait, self._asked_s = self._asked_s + backoff * (0.5 + dice / 2), 0.0
        if self._failed > self.policy.retries or elapsed_s + wait >= self.policy.timeout_s:
            tries = f"{self._failed} tries in {elapsed_s:.1f} s"
            raise Unavailable(f"no answer after {tries}; the last: {_why(reply)}", reply.status)
        return wait


def sent_again(call: Call, first_sent_ms: int) -> Call:
    """The call as a retry: what an earlier try of it has logged is to be its answer."""
    return replace(call, headers={FIRST_SENT: str(first_sent_ms)})


def predict_calls(
    task: str | None, instances: Sequence[JsonObject], size: int, new_id: Callable[[], str]
) -> Iterator[Call]:
    """Calls of at most `size` instances; each instance gets an event id unless it has one."""
    named = [dict(one) if "event_id" in one else {**one, "event_id": new_id()} for one in instances]
    return _split(task, "predict", "instances", named, size)


def label_calls(task: str | None, labels: Sequence[JsonObject], size: int) -> Iterator[Call]:
    """Calls of at most `size` labels; the service derives their ids from what they say."""
    return _split(task, "labels", "labels", [dict(one) for one in labels], size)


def _split(
    task: str | None, verb: str, name: str, items: list[dict[str, Any]], size: int
) -> Iterator[Call]:
    path = f"/v1/{verb}" if task is None else f"/v1/tasks/{quote(task, safe='')}/{verb}"
    batch: list[bytes] = []
    held = 0
    for item in items:
        encoded = json.dumps(item, separators=(",", ":"), default=_plain).encode()
        if batch and (len(batch) >= min(size, MAX_ITEMS) or held + len(encoded) > MAX_BYTES):
            yield _call(path, name, batch)
            batch, held = [], 0
        batch.append(encoded)
        held += len(encoded) + 1
    if batch:
        yield _call(path, name, batch)


def _call(path: str, name: str, batch: list[bytes]) -> Call:
    return Call("POST", path, b'{"%s":[%s]}' % (name.encode(), b",".join(batch)))


def _plain(value: Any) -> Any:
    """NumPy's scalars and moments in time; raises TypeError for what JSON has no word for."""
    for method in ("item", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"a feature cannot be of type {type(value).__name__}: {value!r:.80}")


def understood(read: Callable[[bytes], T], content: bytes) -> T:
    """What `read` finds in an answer; raises ClientError if somebody else than driftlog gave it."""
    try:
        return read(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClientError(f"the answer is no driftlog service's: {error!r}") from error


def predictions_in(content: bytes) -> list[Prediction]:
    """The answers of a predict response."""
    body = json.loads(content)
    whole, warnings = body["model_version"], tuple(body.get("warnings", ()))
    return [
        Prediction(
            said["event_id"],
            said["score"],
            said["label"],
            said.get("model_version", whole),
            warnings,
        )
        for said in body["predictions"]
    ]


def label_ids_in(content: bytes) -> list[str]:
    """The event ids of a labels response."""
    return list(json.loads(content)["event_ids"])


def models_in(content: bytes) -> list[Model]:
    """The models of a models response."""
    return [
        Model(
            said["task"],
            said["model_version"],
            said["since"],
            said["reason"],
            Rollout(**said["rollout"]) if said.get("rollout") else None,
        )
        for said in json.loads(content)["models"]
    ]


def health_in(reply: Reply) -> Health | None:
    """What a /readyz response says, ready or not; None if it is none."""
    if reply.status not in (200, 503):
        return None
    try:
        detail = json.loads(reply.content)
    except ValueError:
        return None
    is_health = isinstance(detail, dict) and "ready" in detail
    return Health(bool(detail["ready"]), detail) if is_health else None


def headers(api_key: str | None) -> dict[str, str]:
    """Of every request."""
    return {"Content-Type": "application/json", **authorization(api_key)}


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that shows a key, if there is one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


@dataclass(frozen=True, slots=True)
class Options:
    """What both clients are made with."""

    bases: tuple[str, ...]
    task: str | None = None
    api_key: str | None = field(default=None, repr=False)
    batch: int = 200
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        if not self.bases:
            raise ValueError("a client needs at least one base URL")
        if not 1 <= self.batch <= MAX_ITEMS:
            raise ValueError(f"batch={self.batch}: must lie between 1 and {MAX_ITEMS}")


def _refused(reply: Reply, status: int) -> Refused:
    kind = NotAllowed if status in (401, 403) else Refused
    body = _problem(reply.content)
    errors = [FieldError(e["loc"], e["message"]) for e in body.get("errors") or []]
    return kind(_why(reply), status, errors)


def _why(reply: Reply) -> str:
    if reply.status is None:
        return reply.reason
    said = str(_problem(reply.content).get("detail", ""))
    return f"{reply.status}: {said}" if said else f"status {reply.status}"


def _problem(content: bytes) -> dict[str, Any]:
    """An RFC 9457 body; empty if it is none (a proxy's page)."""
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _seconds(retry_after: str | None) -> float:
    """Retry-After in seconds; 0 for its other form, a date."""
    text = (retry_after or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0.0
