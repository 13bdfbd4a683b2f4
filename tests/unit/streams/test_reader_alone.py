"""The record reader without a broker: what it says and what it refuses."""

from __future__ import annotations

import pytest

from streams.membership import METADATA_BYTES, Fenced, Membership
from streams.reader import RecordReader

NOBODY = "127.0.0.1:1"


def test_without_a_broker_nothing_comes_and_closing_ends_it() -> None:
    with RecordReader(NOBODY) as reader:
        reader.assign("topic", 0, 5)
        assert reader.poll("topic", 0, timeout_s=0.05) is None
        assert (reader.position("topic", 0), reader.at_end("topic", 0)) == (5, False)
        assert (reader.high("topic", 0), reader.queued("topic", 0)) == (-1, 0)
        reader.assign("topic", 0, 9)
        assert reader.position("topic", 0) == 9 and reader.assigned() == [("topic", 0)]
        with pytest.raises(ValueError, match="offset -1: use 0 or more"):
            reader.assign("topic", 1, -1)
        with pytest.raises(KeyError, match="not assigned"):
            reader.revoke("topic", 1)


def test_who_owns_nothing_commits_nothing() -> None:
    with Membership(NOBODY, "group", ["topic"]) as member:
        member.poll()
        assert member.owned() == set() and member.committed([]) == {}
        with pytest.raises(Fenced, match="does not own"):
            member.commit({("topic", 0): (1, "")})
        with pytest.raises(ValueError, match=f"brokers keep {METADATA_BYTES}"):
            member.commit({("topic", 0): (1, "x" * (METADATA_BYTES + 1))})
        member.commit({})
