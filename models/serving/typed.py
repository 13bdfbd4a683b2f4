"""The quick way from bytes to asks: one typed decode for a body without any mistake.

It accepts less than `bodies.parse_json` and `instances.InstanceParser` do, and what it accepts, it reads as they do;
for everything else it gives None, and they say what is wrong. So there is one place that words errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from models.serving.instances import MAX_ID, MAX_INSTANCES, MAX_NUMBER, MAX_TEXT, event_time
from streams.task import Ask, Category, Task

_Number = Annotated[float, msgspec.Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]


class TypedParser:
    """Decodes the predict bodies of one task."""

    def __init__(self, task: Task) -> None:
        given = {f.name: isinstance(f, Category) for f in task.features if f.name in task.given}
        kinds: dict[str, Any] = {
            name: (_Text if is_text else _Number) | None for name, is_text in given.items()
        }
        kinds |= {"event_id": NotRequired[_Id], "event_time": NotRequired[int | str]}
        # A functional TypedDict takes any mapping at run time; its members are the task's.
        instance = TypedDict("instance", kinds)  # type: ignore[misc]  # noqa: UP013
        items = Annotated[list[instance], msgspec.Meta(min_length=1, max_length=MAX_INSTANCES)]  # type: ignore[valid-type]
        body = TypedDict("body", {"instances": items})  # type: ignore[misc]  # noqa: UP013
        self._decode = msgspec.json.Decoder(body).decode
        self._fields = len(given)
        self._texts = (*(name for name, is_text in given.items() if is_text), "event_id", "event_time")

    def parse(self, raw: bytes, now_ms: int, new_id: Callable[[], str]) -> list[Ask] | None:
        """What is asked; None if the body is anything but plain and right. Makes ids only for right ones."""
        if b"\\" in raw:
            return None
        try:
            found: Any = self._decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        instances: list[dict[str, Any]] = found["instances"]
        # Each colon outside of texts stands after a name: one too many is a name that is unknown or there twice.
        colons = raw.count(b":") - 1
        times: list[int] = []
        ids: list[str | None] = []
        for one in instances:
            colons -= len(one)
            time, event_id = now_ms, None
            if len(one) != self._fields:
                if "event_time" in one:
                    time, problem = event_time(one["event_time"], now_ms)
                    if problem:
                        return None
                event_id = one.get("event_id")
            times.append(time)
            ids.append(event_id)
        if colons:
            for one in instances:
                for name in self._texts:
                    text = one.get(name)
                    if type(text) is str:
                        colons -= text.count(":")
            if colons:
                return None
        given = [event_id for event_id in ids if event_id is not None]
        if len(set(given)) != len(given):
            return None
        asks: list[Ask] = []
        for one, time, event_id in zip(instances, times, ids, strict=True):
            if len(one) != self._fields:
                one.pop("event_id", None)
                one.pop("event_time", None)
            asks.append(Ask(time, event_id or new_id(), one))
        return asks
