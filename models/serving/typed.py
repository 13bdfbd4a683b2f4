"""The quick way from bytes to asks: one typed decode for a body without any mistake.

It accepts less than `bodies.parse_json` and `instances.InstanceParser` do, and what it accepts, it reads as
they do; for everything else it gives None, and they say what is wrong: one place words the errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from models.serving.instances import (
    MAX_ID,
    MAX_INSTANCES,
    MAX_NUMBER,
    event_time,
    longest_texts,
    nobodys,
)
from streams.task import Ask, Task

_Number = Annotated[float, msgspec.Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
_ENVELOPE = ("event_id", "event_time")
_NONE = (None, None)
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]


class TypedParser:
    """Decodes the predict bodies of one task."""

    def __init__(self, task: Task) -> None:
        longest = longest_texts(task)
        self._personal = task.personal
        kinds: dict[str, Any] = dict.fromkeys(task.given, _Number | None)
        kinds |= {name: _text(most) | None for name, most in longest.items()}
        kinds |= {"event_id": NotRequired[_Id], "event_time": NotRequired[int | str]}
        # A functional TypedDict takes any mapping at run time; its members are the task's.
        instance = TypedDict("instance", kinds)  # type: ignore[misc]
        items = Annotated[list[instance], msgspec.Meta(min_length=1, max_length=MAX_INSTANCES)]
        body = TypedDict("body", {"instances": items})  # noqa: UP013
        self._decode = msgspec.json.Decoder(body).decode
        self._fields = len(task.given) + len(task.private)
        self._texts = tuple(longest)

    def parse(self, raw: bytes, now_ms: int, new_id: Callable[[], str]) -> list[Ask] | None:
        """What is asked; None if the body is anything but plain and right."""
        if b"\\" in raw:  # an escape may hide a colon
            return None
        try:
            found: Any = self._decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        instances: list[dict[str, Any]] = found["instances"]
        # A colon outside of texts stands after a name: one too many is a name that is unknown or there twice.
        if raw.count(b":") != 1 + sum(map(len, instances)) + self._colons(raw, instances):
            return None
        envelopes = [
            _NONE
            if len(one) == self._fields
            else (one.pop("event_id", None), one.pop("event_time", None))
            for one in instances
        ]
        named = [event_id for event_id, _ in envelopes if event_id is not None]
        if len(set(named)) != len(named) or (self._personal and self._names_nobody(instances)):
            return None
        asks: list[Ask] = []
        for one, (event_id, given) in zip(instances, envelopes, strict=True):
            time, problem = (now_ms, "") if given is None else event_time(given, now_ms)
            if problem:
                return None
            asks.append(Ask(time, event_id or new_id(), one))
        return asks

    def _names_nobody(self, instances: Sequence[Mapping[str, Any]]) -> bool:
        personal = self._personal
        return personal is not None and any(nobodys(personal, one) for one in instances)

    def _colons(self, raw: bytes, instances: Sequence[Mapping[str, Any]]) -> int:
        """How many stand in the texts of a body."""
        if raw.count(b":") == 1 + sum(map(len, instances)):
            return 0
        texts = [one.get(name) for one in instances for name in (*self._texts, *_ENVELOPE)]
        return sum(text.count(":") for text in texts if isinstance(text, str))


def _text(most: int) -> Any:
    return Annotated[str, msgspec.Meta(max_length=most)]
