"""What every source must hold, whatever its task."""

from __future__ import annotations

from collections.abc import Iterable

from driftlog import Ask, Observation, Truth


def check_stream(moments: Iterable[Ask | Truth | Observation]) -> None:
    """Time order; each question has its own id; each label comes once, after its question."""
    newest = 0
    asked: dict[str, int] = {}
    labelled: set[str] = set()
    for moment in moments:
        assert type(moment.time) is int
        assert moment.time >= newest, moment
        newest = moment.time
        if isinstance(moment, Ask):
            assert moment.id not in asked
            asked[moment.id] = moment.time
        elif isinstance(moment, Truth):
            assert moment.prediction_id not in labelled
            assert moment.time > asked[moment.prediction_id]
            assert moment.label in (0, 1)
            labelled.add(moment.prediction_id)
    assert labelled
