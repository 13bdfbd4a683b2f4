"""What a key may do: `TASK:ACTION`, e.g. `flights:predict`; `*` stands for every task or every action."""

from __future__ import annotations

import re
from collections.abc import Collection

PREDICT, LABEL, READ = "predict", "label", "read"
ACTIONS = (PREDICT, LABEL, READ)
ANY = "*"
_TASK = re.compile(r"\*|[A-Za-z0-9_.-]{1,80}").fullmatch


def parse_scopes(text: str) -> tuple[str, ...]:
    """`flights:predict,flights:label` -> its scopes, sorted, each once; raises ValueError."""
    found = {part.strip() for part in text.split(",") if part.strip()}
    for scope in found:
        task, colon, action = scope.partition(":")
        if not colon or not _TASK(task) or action not in (*ACTIONS, ANY):
            known = ", ".join((*ACTIONS, ANY))
            raise ValueError(f"scope {scope!r}: TASK:ACTION is wanted, ACTION one of {known}")
    if not found:
        raise ValueError("a key without a scope could do nothing: e.g. flights:predict,*:read")
    return tuple(sorted(found))


def allows(scopes: Collection[str], task: str | None, action: str) -> bool:
    """Whether one of `scopes` covers it. Without a task, a scope for any task is enough."""
    for scope in scopes:
        of, _, may = scope.partition(":")
        if may in (action, ANY) and (task is None or of in (task, ANY)):
            return True
    return False


def wanted(task: str | None, action: str) -> str:
    """The scope that would do, as a refusal names it."""
    return f"{task or ANY}:{action}"
