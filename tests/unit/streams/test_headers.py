from __future__ import annotations

from typing import Any

import pytest

from schemas.event import Event
from streams.log import record_headers

ID = "0af76519-16cd-43dd-8448-eb211c80319c"
CAUSE = "b7ad6b71-6920-3331-8448-eb211c80319c"


def headers(event_id: str, **more: Any) -> dict[str, bytes]:
    data = {"event_id": event_id, "event_time": 1_700_000_000_007, **more}
    return dict(record_headers(Event("demo.labels", "LabelObserved", data), "driftlog-test"))


def test_attributes_of_cloudevents_in_their_order() -> None:
    assert list(headers(ID, caused_by=CAUSE).items()) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", ID.encode()),
        ("ce_source", b"/driftlog-test/demo.labels"),
        ("ce_type", b"LabelObserved"),
        ("ce_time", b"2023-11-14T22:13:20.007Z"),
        ("content-type", b"application/avro"),
        ("ce_causationid", CAUSE.encode()),
        ("traceparent", b"00-b7ad6b71692033318448eb211c80319c-8448eb211c80319c-01"),
    ]


@pytest.mark.parametrize("time", [-1, 0, 999, 1_000, 253_402_300_799_999])
def test_times_at_the_edges(time: int) -> None:
    wanted = {
        -1: b"1969-12-31T23:59:59.999Z",
        0: b"1970-01-01T00:00:00.000Z",
        999: b"1970-01-01T00:00:00.999Z",
        1_000: b"1970-01-01T00:00:01.000Z",
        253_402_300_799_999: b"9999-12-31T23:59:59.999Z",
    }
    assert headers(ID, event_time=time)["ce_time"] == wanted[time]


@pytest.mark.parametrize("cause", [None, ""])
def test_a_first_cause_begins_the_trace(cause: str | None) -> None:
    found = headers(ID, caused_by=cause)
    assert found["traceparent"] == b"00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-01"
    assert "ce_causationid" not in found


@pytest.mark.parametrize(
    ("event_id", "parent"),
    [
        ("ab" * 8, b"00-abababababababab0000000000000000-abababababababab-01"),
        ("12" * 20, b"00-12121212121212121212121212121212-1212121212121212-01"),
        ("abc", None),  # no 16 digits
        ("0" * 32, None),
        ("1" * 16 + "0" * 16, None),  # the span would be zero
        ("AB" * 16, None),
        ("ab" * 16 + "\n", None),
        ("question-number-seventeen-of-them", None),
    ],
)
def test_only_hexadecimal_ids_make_a_traceparent(event_id: str, parent: bytes | None) -> None:
    assert headers(event_id).get("traceparent") == parent
