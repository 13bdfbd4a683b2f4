"""Outcome windows on disk: a cache of the log, used where it fits and derived again where it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streams import outcome_store
from streams.outcome_store import open_outcomes
from streams.store import StoreInUse
from tests.unit.streams.outcome_lives import FOLD, absorb, steps, summary

ROOT = Path(__file__).parents[3]
LIVES = 20


def test_a_worker_killed_twenty_times_ends_like_the_undisturbed_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.streams.outcome_lives", str(tmp_path), str(LIVES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ended"] == found["calm"]
    assert found["calm"]["matched"] > 20_000
    begun = [life for life in found["begun"] if life]
    assert len([life for life in begun if life[0] > 0]) > LIVES / 2  # the files were of use
    assert all(begin <= committed for begin, committed, _ in begun)
    assert max(committed for _, committed, _ in begun) > 200  # it came far before it was killed


@pytest.fixture
def left(tmp_path: Path) -> tuple[Path, dict[tuple[str, int], int], dict[str, object]]:
    """A folder that was left after some steps, the offsets it stands at, and the state."""
    offsets = {}
    store = open_outcomes(tmp_path / "state", FOLD, {}, memory_bytes=0)
    for columns in steps()[:40]:
        absorb(store.state, columns)
        offsets[columns.topic, columns.partition] = int(columns.offset[-1]) + 1
    store.commit(offsets)
    said = summary(store.state)
    store.close()
    return tmp_path / "state", offsets, said


def test_it_opens_where_it_stood(left) -> None:
    folder, offsets, said = left
    further = {key: offset + 5 for key, offset in offsets.items()}
    for asked in (offsets, further):
        store = open_outcomes(folder, FOLD, asked)
        assert store.discarded is None
        assert (store.offsets, summary(store.state)) == (offsets, said)
        with pytest.raises(StoreInUse):
            open_outcomes(folder, FOLD, asked)
        store.close()


def test_what_was_not_committed_is_forgotten(left) -> None:
    folder, offsets, said = left
    store = open_outcomes(folder, FOLD, offsets)
    absorb(store.state, steps()[40])
    store.close()
    again = open_outcomes(folder, FOLD, offsets)
    assert summary(again.state) == said
    again.close()


def test_what_does_not_fit_is_derived_again(left, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, offsets, _ = left
    key = next(iter(offsets))

    def opened(asked: dict[tuple[str, int], int]) -> str:
        store = open_outcomes(folder, FOLD, asked)
        why, at = store.discarded, store.offsets
        if why:
            assert at == {}
            assert len(store.state.join.waiting_predictions) == 0
        store.commit(offsets)
        store.close()
        return why or ""

    assert "ahead" in opened({**offsets, key: offsets[key] - 1})
    assert opened(offsets) == ""
    point = folder / "POINT"
    point.write_bytes(point.read_bytes().replace(b"note", b"n0te"))
    assert "checksum" in opened(offsets)
    (folder / "labels" / "MANIFEST").unlink()
    assert "commit 0" in opened(offsets)
    monkeypatch.setattr(outcome_store, "CODE", 99)
    assert "code 99" in opened(offsets)
    assert opened(offsets) == ""


def test_a_folder_without_a_row_has_the_fingerprint_of_the_empty_state(tmp_path: Path) -> None:
    store = open_outcomes(tmp_path / "state", FOLD, {})
    empty = FOLD.initial()
    assert FOLD.fingerprint(store.state) == FOLD.fingerprint(empty)
    store.close()
