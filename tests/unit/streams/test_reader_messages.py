"""From message pointers to arrays: every message is given back once, nothing after an error is taken."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columnar.records import Records
from streams.librdkafka import address_of
from streams.messages import PARTITION_EOF, discard, error_code, take

TIMESTAMP = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
DESTROY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
BAD_MSG = -199


class Message(ctypes.Structure):
    """rd_kafka_message_t as librdkafka's public header declares it."""

    _fields_ = (
        ("err", ctypes.c_int),
        ("rkt", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("payload", ctypes.c_void_p),
        ("len", ctypes.c_size_t),
        ("key", ctypes.c_void_p),
        ("key_len", ctypes.c_size_t),
        ("offset", ctypes.c_int64),
        ("_private", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Item:
    """A record, or a report with its code."""

    code: int = 0
    payload: bytes | None = None
    gap: int = 0
    """Offsets without a record before it."""
    stamp: int = 0


@dataclass
class Library:
    """Messages in memory, and the two functions of librdkafka that take them."""

    items: Sequence[Item]
    destroyed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.messages, self.buffers, self.offsets = [], [], []
        offset = 100
        for item in self.items:
            offset += item.gap
            buffer = None if item.payload is None else ctypes.create_string_buffer(item.payload)
            address = None if buffer is None else ctypes.addressof(buffer)
            size = len(item.payload or b"")
            self.messages.append(Message(item.code, None, 3, address, size, None, 0, offset, None))
            self.buffers.append(buffer)
            self.offsets.append(offset)
            offset += item.code == 0
        self.pointers = np.array([ctypes.addressof(m) for m in self.messages], np.int64)
        stamps = dict(zip(self.pointers.tolist(), (item.stamp for item in self.items), strict=True))
        self.timestamp = TIMESTAMP(lambda message, _: stamps[message])
        self.destroy = DESTROY(self._destroy)

    def _destroy(self, message: int) -> None:
        index = self.pointers.tolist().index(message)
        buffer = self.buffers[index]
        if buffer is not None:  # what is given back is written over
            ctypes.memset(buffer, 0xFF, len(buffer))
        self.destroyed.append(index)


payloads = st.none() | st.binary(max_size=300)
stamps = st.sampled_from([-1, 0, 1, 1_700_000_000_000])
records = st.builds(Item, st.just(0), payloads, st.integers(0, 3), stamps)
ends = st.builds(Item, st.just(PARTITION_EOF), st.none(), st.integers(0, 3))
failures = st.builds(Item, st.sampled_from([BAD_MSG, -140, 3]), st.just(b"why"))
batches = st.lists(st.one_of(records, records, records, ends, failures), max_size=30)


@settings(deadline=None, max_examples=200)
@given(batches)
def test_records_up_to_the_first_error(items: list[Item]) -> None:
    library = Library(items)
    address, length, offset, recorded, owner, position, at_end, done = take(
        library.pointers,
        len(items),
        7,
        address_of(library.timestamp),
        address_of(library.destroy),
    )
    good = next(
        (i for i, item in enumerate(items) if item.code not in (0, PARTITION_EOF)), len(items)
    )
    assert done == good and library.destroyed == list(range(good))
    taken = [i for i in range(good) if items[i].code == 0]
    found = Records("topic", 3, address, length, offset, recorded, owner)
    assert [found.payload(k) for k in range(len(found))] == [items[i].payload for i in taken]
    assert length.tolist() == [len(items[i].payload or b"") for i in taken]
    assert offset.tolist() == [library.offsets[i] for i in taken]
    assert recorded.tolist() == [max(0, items[i].stamp) for i in taken]
    if good == 0:
        assert (position, at_end) == (7, -1)
    else:
        last = items[good - 1]
        assert position == library.offsets[good - 1] + (last.code == 0)
        assert at_end == (last.code == PARTITION_EOF)
    if good < len(items):
        assert error_code(int(library.pointers[good])) == items[good].code


def test_discarded_messages_are_given_back_unread() -> None:
    library = Library([Item(payload=b"x"), Item(PARTITION_EOF), Item(BAD_MSG)])
    discard(library.pointers, 2, address_of(library.destroy))
    assert library.destroyed == [0, 1]
