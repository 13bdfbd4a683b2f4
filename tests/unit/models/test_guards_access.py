"""Keys: what the log says about them, in whatever order it is folded."""

from __future__ import annotations

import json
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.serving.guards.access import (
    EARLY,
    EXPIRED,
    REVOKED,
    UNKNOWN,
    AccessKeys,
    hash_of,
)
from models.serving.guards.issuing import issued, key_from, revoked
from models.serving.guards.scopes import allows, parse_scopes
from schemas.event import Event, Position
from streams.canonical import fingerprint
from streams.fold import Projector
from tests.unit.models.guard_parts import folded, issue, key
from tests.unit.models.serving_parts import NOW_MS, codec


def test_a_key_counts_from_its_begin_to_its_end() -> None:
    access = folded(issue(1, "flights:predict", expires=NOW_MS + 10))
    found = hash_of(key(1))
    assert access.problem(found, NOW_MS - 1) == EARLY
    assert access.problem(found, NOW_MS) is None
    assert access.problem(found, NOW_MS + 9) is None
    assert access.problem(found, NOW_MS + 10) == EXPIRED
    assert access.problem(hash_of(key(2)), NOW_MS) == UNKNOWN


def test_a_revoked_key_counts_until_then_and_the_earliest_word_counts() -> None:
    made = issue(1, "flights:predict")
    access = folded(made)
    (known,) = access.of("caller-1", NOW_MS)
    later = revoked(known, NOW_MS, "tester", "rotated", NOW_MS + 100)
    now = revoked(known, NOW_MS + 5, "tester", "leaked")
    assert folded(made, later).problem(known.hash, NOW_MS + 99) is None
    for events in ((made, later, now), (now, made, later)):
        assert folded(*events).problem(known.hash, NOW_MS + 5) == REVOKED
    assert folded(made, now).of("caller-1", NOW_MS + 5) == []


def test_the_log_holds_no_key_and_its_events_pass_the_schema() -> None:
    secret = key_from(secrets.token_bytes(32))
    event = issued(secret, "shop", ("*:read",), NOW_MS, "ann", "why", NOW_MS + 1, 2.5, None)
    encoded = codec().encode(event)
    assert secret.encode() not in encoded and secret[3:].encode() not in encoded
    assert secret not in json.dumps(event.data)
    again = codec()
    read = again.decode(Position(event.topic, 0, 0), again.encode(event))
    assert read.data == event.data
    (known,) = folded(event).of("shop", NOW_MS)
    end = revoked(known, NOW_MS + 1, "ann", "over")
    assert again.decode(Position(end.topic, 0, 1), again.encode(end)).data == end.data


HISTORY = st.lists(
    st.tuples(st.integers(1, 4), st.booleans(), st.integers(0, 50)), min_size=1, max_size=30
)


def events_of(history: list[tuple[int, bool, int]]) -> list[Event]:
    found = []
    for number, issues, after in history:
        made = issue(number, "flights:predict", now_ms=NOW_MS + number)
        if issues:
            found.append(made)
        else:
            (known,) = folded(made).issued.values()
            found.append(revoked(known, NOW_MS, "tester", "why", NOW_MS + after))
    return found


@given(HISTORY, st.randoms(use_true_random=False), st.integers(1, 5))
def test_batches_order_and_repeats_make_no_difference(history, random, size) -> None:  # type: ignore[no-untyped-def]
    events = events_of(history)
    wanted = fingerprint(folded(*events))
    shuffled = [*events, *events[:3]]
    random.shuffle(shuffled)
    projector = Projector([AccessKeys()])
    for begin in range(0, len(shuffled), size):
        projector.feed(shuffled[begin : begin + size])
    assert projector.fingerprint("access") == wanted


def test_scopes_are_read_or_refused_with_the_reason() -> None:
    assert parse_scopes(" flights:predict, *:read,flights:predict") == ("*:read", "flights:predict")
    for bad in ("", "flights", "flights:write", "fl ights:read", ":read"):
        with pytest.raises(ValueError, match=r"scope|TASK:ACTION"):
            parse_scopes(bad)


def test_a_scope_covers_its_task_and_its_action_alone() -> None:
    assert allows(("flights:predict",), "flights", "predict")
    assert not allows(("flights:predict",), "flights", "label")
    assert not allows(("flights:predict",), "loans", "predict")
    assert allows(("*:predict",), "loans", "predict")
    assert allows(("flights:*",), "flights", "label")
    assert allows(("flights:read",), None, "read")
    assert not allows(("flights:predict",), None, "read")


def test_a_key_has_256_bits() -> None:
    assert len(key(1)) == len("dl_") + 64
    with pytest.raises(ValueError, match="256 bits"):
        key_from(b"short")
