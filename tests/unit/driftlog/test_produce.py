"""From a line of JSON to an event: what is filled in, and what is refused in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from driftlog.cli.produce import _batches, to_event
from schemas.catalogue import DEPLOYMENTS, system_topics, task_topics

LABELS = task_topics("toy", {"speed": "double"}, [])[1]
(DECISIONS,) = (topic for topic in system_topics() if topic.name == DEPLOYMENTS)


def made(**fields: Any) -> Any:
    return to_event(LABELS, json.dumps(fields))


def test_the_envelope_is_filled_in() -> None:
    event = made(prediction_id="p", label=1)
    assert event.type == "LabelObserved"
    assert event.id
    assert event.time > 1_700_000_000_000
    assert made(prediction_id="p", label=1).id != event.id


def test_given_ids_and_times_are_kept() -> None:
    event = made(prediction_id="p", label=1, event_id="mine", event_time="2013-01-01T00:00:01Z")
    assert (event.id, event.time) == ("mine", 1_356_998_401_000)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"type": "Nonsense"}', "must be one of LabelObserved"),
        ('{"event_time": "soon"}', "event_time"),
        ('{"weight": NaN}', "finite"),
    ],
)
def test_what_is_wrong_is_said(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_event(LABELS, line)


def test_a_topic_of_several_types_wants_the_type() -> None:
    with pytest.raises(ValueError, match="ModelPromoted, PromotionRejected"):
        to_event(DECISIONS, "{}")
    assert to_event(DECISIONS, '{"type": "PromotionRejected"}').type == "PromotionRejected"


def test_lines_are_numbered_and_none_is_left_behind() -> None:
    lines = [f"{n}\n" if n % 3 else "\n" for n in range(1, 2_000)]
    numbered = [item for batch in _batches(lines) for item in batch]
    assert numbered == [(n, f"{n}\n") for n in range(1, 2_000) if n % 3]
