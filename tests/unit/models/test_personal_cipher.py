"""Sealed texts: they come back, are equal for a retry, tell nothing else, and open nowhere else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.personal.cipher import (
    BLOCK,
    MARK,
    SIV_BYTES,
    MasterKey,
    PersonKey,
    Place,
    is_sealed,
)
from models.personal.errors import NotSealed

KEY, OTHER = PersonKey(bytes(range(32))), PersonKey(bytes(32))
PLACE = Place("orders", "email", "e-1")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def raw(sealed: str) -> bytes:
    body = sealed.removeprefix(MARK)
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


@given(TEXTS, st.binary(min_size=32, max_size=32), st.text("abc-", min_size=1))
def test_a_text_comes_back_and_a_retry_makes_the_equal_event(
    text: str, secret: bytes, event_id: str
) -> None:
    place = Place("orders", "email", event_id)
    sealed = PersonKey(secret).seal(text, place)
    assert PersonKey(secret).unseal(sealed, place) == text
    assert PersonKey(secret).seal(text, place) == sealed
    assert is_sealed(sealed)
    assert (len(raw(sealed)) - SIV_BYTES) % BLOCK == 0


@given(TEXTS)
def test_equal_texts_differ_between_events_fields_tasks_and_persons(text: str) -> None:
    places = [
        PLACE,
        Place("orders", "email", "e-2"),
        Place("orders", "phone", "e-1"),
        Place("other", "email", "e-1"),
    ]
    sealed = [KEY.seal(text, place) for place in places] + [OTHER.seal(text, PLACE)]
    assert len({one[3:40] for one in sealed}) == len(sealed)
    for one in sealed[1:]:
        with pytest.raises(NotSealed, match="email of event e-1 does not open"):
            KEY.unseal(one, PLACE)


@given(TEXTS, st.data())
def test_whatever_was_changed_does_not_open(text: str, data: st.DataObject) -> None:
    found = bytearray(raw(KEY.seal(text, PLACE)))
    at = data.draw(st.integers(0, len(found) - 1))
    found[at] ^= data.draw(st.integers(1, 255))
    changed = MARK + base64.urlsafe_b64encode(found).rstrip(b"=").decode()
    with pytest.raises(NotSealed) as caught:
        KEY.unseal(changed, PLACE)
    assert len(text) < 3 or text not in str(caught.value)


@pytest.mark.parametrize("value", ["", "a@b.c", MARK, "s1.short", "s2." + "A" * 64, None, 7])
def test_plain_values_are_told_from_sealed_ones(value: object) -> None:
    assert not is_sealed(value)


def test_what_is_no_sealed_text_does_not_open() -> None:
    with pytest.raises(NotSealed):
        KEY.unseal("someone@example.org", PLACE)


def test_texts_of_like_length_are_of_equal_length_in_the_log() -> None:
    lengths = {len(KEY.seal("x" * n, PLACE)) for n in range(BLOCK)}
    assert len(lengths) == 1
    assert len(KEY.seal("x" * BLOCK, PLACE)) > lengths.pop()


def test_the_pseudonym_follows_from_the_key_alone() -> None:
    assert KEY.person == PersonKey(bytes(range(32))).person != OTHER.person
    assert len(bytes.fromhex(KEY.person)) == 16
    assert KEY.secret.hex()[:8] not in KEY.person


def test_a_key_is_wrapped_for_one_person_by_one_master() -> None:
    one, two = MasterKey(b"1" * 32), MasterKey(b"2" * 32)
    at = one.lookup("orders", "4711")
    assert at not in (one.lookup("orders", "4712"), one.lookup("loans", "4711"))
    assert at != two.lookup("orders", "4711") and one.check != two.check
    assert one.fingerprint(b"body") != two.fingerprint(b"body")
    wrapped = one.wrap(KEY, at)
    assert KEY.secret not in wrapped
    assert one.unwrap(wrapped, at) == KEY
    for master, place in ((two, at), (one, one.lookup("orders", "4712"))):
        with pytest.raises(NotSealed):
            master.unwrap(wrapped, place)
