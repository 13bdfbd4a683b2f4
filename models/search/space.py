"""The space of a search: what `Recipe.search` may say (pure)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class SpaceError(ValueError):
    """A range that says nothing; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True, slots=True)
class Real:
    """Numbers between `low` and `high`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choices:
    """One of these, told by its place in the list."""

    values: tuple[Any, ...]


Range = Whole | Real | Choices


def parse_space(given: Mapping[str, Any]) -> dict[str, Range]:
    """Parameter -> its range, sorted by name; raises SpaceError.

    A tuple (low, high) or (low, high, "log") is a range, of whole numbers if both ends are; a list holds
    choices.
    """
    return {name: _parse(name, given[name]) for name in sorted(given)}


def _parse(name: str, given: Any) -> Range:
    if isinstance(given, list):
        if len(given) < 2:
            raise SpaceError(f"{name}: {given!r}: a choice needs two values or more")
        try:
            json.dumps(given)
        except (TypeError, ValueError):
            raise SpaceError(f"{name}: {given!r}: choices must be plain data") from None
        return Choices(tuple(given))
    advice = 'say (low, high), (low, high, "log") or a list of choices'
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        raise SpaceError(f"{name}: {given!r}: {advice}")
    low, high = given[:2]
    if any(type(end) not in (int, float) for end in (low, high)) or given[2:] not in ((), ("log",)):
        raise SpaceError(f"{name}: {given!r}: {advice}")
    log = len(given) == 3
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpaceError(f"{name}: {given!r}: the first number must be the lesser")
    if log and low <= 0:
        raise SpaceError(f"{name}: {given!r}: a logarithmic range begins above 0")
    if type(low) is int and type(high) is int:
        return Whole(low, high, log)
    return Real(float(low), float(high), log)
