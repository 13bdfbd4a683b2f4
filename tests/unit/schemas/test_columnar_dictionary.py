from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columnar.columns import UNKNOWN_CODE
from schemas.columnar.dictionary import (
    FULL,
    MAX_TEXT_BYTES,
    NOT_UTF8,
    Dictionary,
    intern,
    keep,
    undo,
)

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=60)


def interned(dictionary: Dictionary, text: bytes) -> int:
    memory = np.frombuffer(text + b"\0", np.uint8)
    return int(intern(dictionary.address, memory.ctypes.data, len(text), False))


@settings(deadline=None)
@given(texts)
def test_codes_count_texts_in_their_order(words: list[str]) -> None:
    dictionary = Dictionary()
    distinct = list(dict.fromkeys(words))
    assert dictionary.codes(words).tolist() == [distinct.index(word) for word in words]
    assert dictionary.values == distinct
    assert len(dictionary) == len(distinct)


@settings(deadline=None)
@given(texts, texts)
def test_undo_forgets_what_was_not_kept(kept: list[str], dropped: list[str]) -> None:
    dictionary, plain = Dictionary(), Dictionary()
    dictionary.codes(kept)
    plain.codes(kept)
    new = [word for word in dropped if interned(dictionary, word.encode()) == FULL]
    assert not new or len(dictionary) >= 32
    undo(dictionary.address)
    assert dictionary.values == list(dict.fromkeys(kept))
    assert dictionary.codes([*dropped, *kept]).tolist() == plain.codes([*dropped, *kept]).tolist()
    assert dictionary.values == plain.values


def test_thousands_of_texts_keep_their_codes() -> None:
    dictionary = Dictionary()
    words = [f"word {number}" * (number % 5) + str(number) for number in range(20_000)]
    assert dictionary.codes(words).tolist() == list(range(20_000))
    assert dictionary.codes(reversed(words)).tolist() == list(reversed(range(20_000)))


def test_a_compiled_loop_is_told_when_there_is_no_room() -> None:
    dictionary = Dictionary()
    codes = [interned(dictionary, f"{number}".encode()) for number in range(100)]
    assert codes[:32] == list(range(32))
    assert codes[32:] == [FULL] * 68
    dictionary.grow()
    assert interned(dictionary, b"99") == 32
    assert interned(dictionary, b"x" * 900) == 33
    assert interned(dictionary, b"y" * 1_000) == 34
    assert interned(dictionary, b"z" * 1_000) == FULL


def test_limits_hold_for_data_and_not_for_what_is_known() -> None:
    dictionary = Dictionary(capacity=2)
    long = "a" * (MAX_TEXT_BYTES + 1)
    assert interned(dictionary, long.encode()) == UNKNOWN_CODE
    assert [interned(dictionary, text) for text in (b"a", b"b", b"c", b"a")] == [0, 1, -2, 0]
    keep(dictionary.address)
    assert dictionary.code("c") == 2
    assert dictionary.code(long) == 3
    assert interned(dictionary, long.encode()) == 3
    assert interned(dictionary, b"c") == 2
    assert interned(dictionary, b"d") == UNKNOWN_CODE
    assert dictionary.values == ["a", "b", "c", long]


def test_what_is_no_text_is_not_interned() -> None:
    dictionary = Dictionary(capacity=0)
    assert interned(dictionary, b"\xff") == NOT_UTF8
    assert interned(dictionary, b"\xff" * 5_000) == NOT_UTF8
    assert len(dictionary) == 0


def test_texts_of_one_hash_slot_are_told_apart() -> None:
    """Open addressing: more texts than slots near by, prefixes and zero bytes among them."""
    dictionary = Dictionary()
    words = ["", "\0", "\0\0", "a", "a\0", "aa", *(f"{n:032b}" for n in range(300))]
    assert dictionary.codes(words).tolist() == list(range(len(words)))
    assert dictionary.values == words
