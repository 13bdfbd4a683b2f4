"""States as bytes and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streams.packing import pack, unpack

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Leaf:
    number: float
    name: str | bytes = ""


@dataclass(slots=True)
class Branch(Generic[T]):
    leaves: dict[tuple[str, int], Leaf] = field(default_factory=dict)
    payload: dict[str | bytes, tuple[int, T]] = field(default_factory=dict)
    pair: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    known: set[int] = field(default_factory=set)
    fixed: tuple[str, ...] = ()
    maybe: Leaf | None = None
    free: Mapping[str, Any] = field(default_factory=dict)
    below: list[Branch[T]] = field(default_factory=list)


@dataclass
class Root:
    branch: Branch[tuple[str, float]]
    keyed: dict[int, Branch[Leaf]] = field(default_factory=dict)


names = st.text(max_size=4) | st.binary(max_size=4)
leaves = st.builds(Leaf, st.floats(allow_nan=False) | st.integers(-(2**60), 2**60), names)
numbers = st.integers(-(2**63), 2**64 - 1)


def branches(payload: st.SearchStrategy[Any], depth: int = 1) -> st.SearchStrategy[Branch[Any]]:
    return st.builds(
        Branch,
        st.dictionaries(st.tuples(st.text(max_size=3), numbers), leaves, max_size=3),
        st.dictionaries(names, st.tuples(numbers, payload), max_size=3),
        st.tuples(st.lists(numbers, max_size=3), st.lists(numbers, max_size=3)),
        st.sets(numbers, max_size=3),
        st.lists(st.text(max_size=3), max_size=3).map(tuple),
        st.none() | leaves,
        st.dictionaries(st.text(max_size=3), st.none() | numbers | st.text(max_size=3), max_size=3),
        st.lists(branches(payload, depth - 1), max_size=2) if depth else st.just([]),
    )


roots = st.builds(
    Root,
    branches(st.tuples(st.text(max_size=3), st.floats(allow_nan=False))),
    st.dictionaries(numbers, branches(leaves), max_size=2),
)


@given(roots)
def test_what_is_packed_comes_back_with_its_types(root: Root) -> None:
    assert unpack(pack(root), Root) == root


@dataclass
class Arrays:
    counts: NDArray[np.int64]
    ids: NDArray[np.uint64] | None = None


def test_arrays_come_back_with_type_and_shape_and_can_be_written_to() -> None:
    arrays = Arrays(np.arange(6).reshape(2, 3), np.array([2**64 - 1], np.uint64))
    again = unpack(pack(arrays), Arrays)
    assert again.counts.dtype == np.int64 and again.counts.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert again.ids is not None and again.ids.tolist() == [2**64 - 1]
    again.counts += 1


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        pack({"x": object()})
    with pytest.raises((ValueError, OverflowError)):
        pack(1 << 70)
    with pytest.raises(TypeError, match="no way to tell"):
        unpack(pack(1), Leaf | Arrays)
    with pytest.raises(TypeError, match="no way to read"):
        unpack(pack(1), complex)


@pytest.mark.parametrize("content", [b"", b"\xc1", pack(7), pack({"number": 1.0}), pack([1])])
def test_other_bytes_are_a_value_error(content: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        unpack(content, Leaf)
