"""The store says what a dict would say, through seals, merges, reopenings and crashes at every step."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.store import MemoryStore, StoreCorrupt, StoreError, StoreInUse, Tree, bloom, files
from streams.store.hashing import key_hash
from tests.unit.streams.store_model import (
    VALUE,
    Model,
    contents,
    keys_of,
    open_tree,
    step,
    values_of,
)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_store_in_memory_is_a_dict(seed: int) -> None:
    rng = random.Random(seed)
    store, model = MemoryStore(VALUE, "time"), Model()
    for _ in range(60):
        step(store, model, rng)
        assert contents(store) == model


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_tree_is_a_dict(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    tree, model = open_tree(tmp_path_factory.mktemp("tree")), Model()
    committed = Model()
    for _ in range(120):
        what = rng.random()
        if what < 0.6:
            step(tree, model, rng)
        elif what < 0.9:
            tree.commit()
            committed = dict(model)
        elif what < 0.95:
            tree.flush()
            committed = dict(model)
        else:
            tree.close()
            tree, model = open_tree(tree.folder), dict(committed)
        assert len(tree) == len(model)
    assert contents(tree) == model
    tree.close()


def test_runs_are_merged_and_gone_rows_leave_the_disk(tmp_path: Path) -> None:
    tree, most = open_tree(tmp_path), 0
    for number in range(0, 40_000, 80):
        numbers = list(range(number, number + 80))
        tree.put(keys_of(numbers), values_of([(number, n) for n in numbers]))
        tree.commit()
        most = max(most, tree.run_count)
    assert len(tree) == 40_000
    assert most < 40
    assert tree.get(keys_of([0, 39_999, 40_000])).found.tolist() == [True, True, False]
    full = tree.disk_bytes
    assert tree.expire(30_000) == 30_000
    tree.commit()
    assert tree.disk_bytes < full / 2  # whole runs went without being read
    tree.delete(keys_of(list(range(30_000, 40_000))))
    tree.flush()
    assert (len(tree), tree.run_count) == (0, 0)
    assert tree.disk_bytes < 1_000
    tree.close()


class Crash(BaseException):
    """The process dies here."""


class Disk:
    """Counts what is done to the file system and dies at step `last`; of a write, half is left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
        self.steps = 0
        self._last = last
        for name in ("append", "sync", "sync_folder", "rename", "remove", "cut"):
            monkeypatch.setattr(files, name, self._counted(name, getattr(files, name)))

    def _counted(self, name, call):
        def counted(*arguments):
            self.steps += 1
            if self.steps == self._last:
                if name == "append":
                    descriptor, data = arguments
                    call(descriptor, data.reshape(-1).view(np.uint8)[: data.nbytes // 2])
                raise Crash
            if self.steps > self._last:
                raise Crash
            return call(*arguments)

        return counted


def work(folder: Path, seed: int, commits: int) -> tuple[Tree, list[Model]]:
    """A tree at work until it is done or dies; the models after each commit that was begun."""
    rng = random.Random(seed)
    models = [Model()]
    tree = None
    try:
        tree, model = open_tree(folder), Model()
        for _ in range(commits):
            for _ in range(rng.randint(1, 4)):
                step(tree, model, rng)
            models.append(dict(model))
            tree.commit()
    except Crash:
        pass
    return tree, models


def test_a_crash_at_any_step_leaves_the_last_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No power fails here, only the process: waiting for the disk would but cost time.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    last, died = 0, True
    while died:
        last += 1
        folder = tmp_path / str(last)
        with monkeypatch.context() as patch:
            disk = Disk(patch, last)
            tree, models = work(folder, 7, 24)
            died = disk.steps >= last
        if tree is not None:
            tree.close()
        again = open_tree(folder)
        found = contents(again)
        # The commit that was under way may have got through; all before it did.
        assert again.sequence >= len(models) - 2
        assert found == models[again.sequence]
        again.put(keys_of([1]), values_of([(1, 1)]))
        again.flush()
        assert contents(again) == {**found, 1: (1, 1)}
        again.close()
    assert last > 150  # there were many steps to die at


def test_a_full_disk_ends_the_work_and_loses_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = open_tree(tmp_path)
    tree.put(keys_of([1]), values_of([(1, 1)]))
    tree.commit()
    whole = files.append

    def full(descriptor: int, data: np.ndarray) -> None:
        whole(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "no space left on device")

    tree.put(keys_of([2]), values_of([(2, 2)]))
    with monkeypatch.context() as patch:
        patch.setattr(files, "append", full)
        with pytest.raises(OSError, match="no space"):
            tree.commit()
    with pytest.raises(StoreError, match="open it again"):
        tree.commit()
    tree.close()
    again = open_tree(tmp_path)
    assert contents(again) == {1: (1, 1)}
    again.close()


def test_a_store_opens_as_of_an_earlier_commit(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    for number in range(3):
        tree.put(keys_of([number]), values_of([(number, number)]))
        tree.log_commit()
    tree.close()
    earlier = open_tree(tmp_path, upto=2)
    assert (earlier.sequence, len(earlier)) == (2, 2)
    earlier.close()


def test_damage_is_named_and_never_served(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    numbers = list(range(200))
    tree.put(keys_of(numbers), values_of([(n, n) for n in numbers]))
    tree.flush()
    tree.delete(keys_of([3]))
    tree.flush()
    for number in range(3):
        tree.put(keys_of([number]), values_of([(number, 1)]))
        tree.commit()
    tree.close()
    whole = {path: path.read_bytes() for path in tmp_path.iterdir() if path.stat().st_size}
    assert {path.suffix for path in whole} == {"", ".rows", ".index", ".alive"}
    rng = random.Random(5)
    for path, data in whole.items():
        # The last frame of the log is what a crash may break: it is cut off without a word.
        end = 32 if len(data) < 1_000 and path.suffix == ".rows" else len(data)
        for _ in range(8):
            at = rng.randrange(end)
            path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
            with pytest.raises(StoreCorrupt, match=path.name + ".*delete"):
                open_tree(tmp_path)
        path.write_bytes(data)
    for path, data in whole.items():
        path.unlink()
        if path.name != "MANIFEST":
            with pytest.raises(StoreCorrupt, match=path.name):
                open_tree(tmp_path)
        path.write_bytes(data)
    open_tree(tmp_path).close()


def test_a_folder_has_one_owner_and_one_kind_of_value(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    with pytest.raises(StoreInUse, match="in use"):
        open_tree(tmp_path)
    tree.close()
    with pytest.raises(StoreError, match="delete"):
        Tree(tmp_path, np.dtype([("other", "<f8")]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        MemoryStore(np.dtype([("short", "<i4")]))
    with pytest.raises(ValueError, match="int64"):
        MemoryStore(np.dtype([("time", "<f8")]), "time")
    store = MemoryStore(VALUE, "time")
    with pytest.raises(ValueError, match="uint64"):
        store.put(np.zeros((1, 2), np.int64), values_of([(1, 1)]))
    with pytest.raises(ValueError, match="1 of"):
        store.put(keys_of([1]), values_of([(1, 1), (2, 2)]))


def test_the_filter_lets_few_strangers_pass_and_every_member() -> None:
    rng = np.random.default_rng(1)
    keys = rng.integers(0, 2**64, (4_000, 2), np.uint64)
    hashes = [np.uint64(key_hash(*pair)) for pair in keys]
    members, strangers = hashes[:2_000], hashes[2_000:]
    filter_ = np.zeros(bloom.blocks_for(len(members)) * bloom.BLOCK_WORDS, np.uint64)
    for mixed in members:
        bloom.add(filter_, mixed)
    assert all(bloom.may_hold(filter_, mixed) for mixed in members)
    assert sum(bloom.may_hold(filter_, mixed) for mixed in strangers) < 80
