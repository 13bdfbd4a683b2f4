from __future__ import annotations

import random
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columnar.hashing import xxh64
from schemas.columnar.identity import hashed, uuid_bits
from schemas.columnar.text import equal, valid_utf8
from tests.unit.schemas.columnar import identity

MASK = 2**64 - 1
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def held(text: bytes) -> np.ndarray:
    return np.frombuffer(text + b"\0", np.uint8)


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_utf8(text: bytes) -> None:
    memory = held(text)
    assert valid_utf8(memory.ctypes.data, len(text)) == is_utf8(text), text


def test_utf8_of_every_two_bytes_and_many_more() -> None:
    """All boundaries of the table: every lead byte with every second one, alone and in company."""
    for first in range(0x80, 0x100):
        for second in (*range(0x7E, 0xC2), 0x00, 0xFF):
            for tail in (b"", b"\x80", b"\xbf\x80", b"\x80\x80a", b"\x7f\x80", b"\x80\xc0"):
                check_utf8(bytes([first, second]) + tail)
    check_utf8(b"eight bytes, then \xc3")
    check_utf8(b"1234567\xc3\xa9 and 12345678")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=3), st.integers(0, 40))
def test_utf8_is_what_python_decodes(text: str, noise: bytes, place: int) -> None:
    whole = text.encode()
    check_utf8(whole)
    check_utf8(whole[:place] + noise + whole[place:])


@given(st.binary(max_size=40), st.integers(0, 39), st.integers(0, 7))
def test_texts_are_equal_if_every_bit_is(text: bytes, place: int, bit: int) -> None:
    left, right = held(text), held(text).copy()
    assert equal(left.ctypes.data, right.ctypes.data, len(text))
    if place < len(text):
        right[place] ^= 1 << bit
        assert not equal(left.ctypes.data, right.ctypes.data, len(text))


@pytest.mark.parametrize(
    ("text", "seed", "wanted"),
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"abc", 0, 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
    ],
)
def test_published_hashes(text: bytes, seed: int, wanted: int) -> None:
    memory = held(text)
    assert int(xxh64(memory.ctypes.data, len(text), np.uint64(seed))) == wanted
    assert xxh64_in_python(text, seed) == wanted


@given(st.binary(max_size=100), st.integers(0, MASK))
def test_hashes_are_those_of_the_specification(text: bytes, seed: int) -> None:
    memory = held(text)
    found = int(xxh64(memory.ctypes.data, len(text), np.uint64(seed)))
    assert found == xxh64_in_python(text, seed)


def test_every_other_character_in_a_uuid_is_noticed() -> None:
    text = str(uuid.UUID(int=0x0123_4567_89AB_CDEF_FEDC_BA98_7654_3210)).encode()
    for place in range(36):
        for other in range(256):
            changed = text[:place] + bytes([other]) + text[place + 1 :]
            memory = held(changed)
            canonical, high, low = uuid_bits(memory.ctypes.data)
            written = changed.decode("latin-1")
            assert canonical == _canonical(written), changed
            if canonical:
                assert int(high) << 64 | int(low) == uuid.UUID(written).int


def test_random_uuids() -> None:
    rng = random.Random(0)
    for _ in range(1_000):
        one = uuid.UUID(int=rng.getrandbits(128))
        memory = held(str(one).encode())
        canonical, high, low = uuid_bits(memory.ctypes.data)
        assert canonical
        assert int(high) << 64 | int(low) == one.int


def test_ids_have_the_same_bits_in_every_process() -> None:
    """They may be kept in a state: a changed seed or hash would make every id a new one."""
    assert identity("order-1") == 0x14E5AE4D4E0788C4_8E08B5F04217DEDB
    memory = held(b"order-1")
    assert hashed(memory.ctypes.data, 7) != hashed(memory.ctypes.data, 6)


def _canonical(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def xxh64_in_python(text: bytes, seed: int) -> int:
    """The specification, word for word."""

    def rotated(word: int, bits: int) -> int:
        return (word << bits | word >> (64 - bits)) & MASK

    def stirred(lane: int, word: int) -> int:
        return rotated((lane + word * P2) & MASK, 31) * P1 & MASK

    at, mixed = 0, (seed + P5) & MASK
    if len(text) >= 32:
        lanes = [(seed + P1 + P2) & MASK, (seed + P2) & MASK, seed, (seed - P1) & MASK]
        while at + 32 <= len(text):
            for lane in range(4):
                word = int.from_bytes(text[at + 8 * lane : at + 8 * lane + 8], "little")
                lanes[lane] = stirred(lanes[lane], word)
            at += 32
        turns = zip(lanes, (1, 7, 12, 18), strict=True)
        mixed = sum(rotated(lane, bits) for lane, bits in turns) & MASK
        for lane in lanes:
            mixed = ((mixed ^ stirred(0, lane)) * P1 + P4) & MASK
    mixed = (mixed + len(text)) & MASK
    while at + 8 <= len(text):
        word = int.from_bytes(text[at : at + 8], "little")
        mixed = (rotated(mixed ^ stirred(0, word), 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= len(text):
        word = int.from_bytes(text[at : at + 4], "little")
        mixed = (rotated(mixed ^ (word * P1 & MASK), 23) * P2 + P3) & MASK
        at += 4
    for byte in text[at:]:
        mixed = rotated(mixed ^ (byte * P5 & MASK), 11) * P1 & MASK
    mixed = (mixed ^ mixed >> 33) * P2 & MASK
    mixed = (mixed ^ mixed >> 29) * P3 & MASK
    return mixed ^ mixed >> 32
