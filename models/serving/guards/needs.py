"""What a request needs, by its route: which task, which action. Pure; the same for HTTP and gRPC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from models.serving.guards.scopes import ANY, LABEL, PREDICT, READ


@dataclass(frozen=True, slots=True)
class Need:
    """`action` None: nothing is asked (health). `task` None: none is named in the route.

    `in_body`: the task may be named by the request itself.
    """

    action: str | None
    task: str | None = None
    in_body: bool = False


OPEN = Need(None)
_LOOKS = frozenset(("GET", "HEAD", "OPTIONS"))
_OPEN_PATHS = frozenset(("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"))
_TASK = re.compile(r"/v1/tasks/([^/]+)/([^/]+)").fullmatch
_SHORT = re.compile(r"/v1/(predict|labels)(?:/[^/]+)*").fullmatch
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?(?:/([^/]+))?").fullmatch
_ACTIONS = {"predict": PREDICT, "labels": LABEL, "label": LABEL, "infer": PREDICT}


@lru_cache(1024)
def of_path(path: str, method: str) -> Need:
    """Of an HTTP request. What is not known needs `read`, or every action if it is no mere look."""
    if path in _OPEN_PATHS:
        return OPEN
    other = READ if method in _LOOKS else ANY
    if found := _TASK(path):
        return Need(_ACTIONS.get(found[2], other), found[1])
    if found := _SHORT(path):
        return Need(_ACTIONS[found[1]], None, in_body=True)
    if found := _MODEL(path):
        return Need(_ACTIONS.get(found[2] or "", other), found[1])
    return Need(other)


_OPEN_METHODS = ("/grpc.health.v1.Health/",)
_OPEN_CALLS = frozenset(("ServerLive", "ServerReady"))


@lru_cache(1024)
def of_method(method: str) -> Need:
    """Of a gRPC method, `/package.Service/Method`; the messages name the task."""
    call = method.rpartition("/")[2]
    if method.startswith(_OPEN_METHODS) or call in _OPEN_CALLS:
        return OPEN
    if "Predict" in call or "Infer" in call:
        return Need(PREDICT, None, in_body=True)
    if "Label" in call:
        return Need(LABEL, None, in_body=True)
    return Need(READ, None, in_body=call.startswith("Model"))


def task_of(message: object) -> str | None:
    """The task that a message names: `task` of ours, `model_name` or `name` of Open Inference."""
    for field in ("task", "model_name", "name"):
        found = getattr(message, field, None)
        if isinstance(found, str) and found:
            return found
    return None
