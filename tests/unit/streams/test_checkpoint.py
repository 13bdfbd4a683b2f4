"""Checkpoints: a state that comes back is the state, and whatever is wrong with a file, the log decides."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.registry import Registry
from schemas.event import Event
from streams import checkpoint
from streams.checkpoint import CheckpointRefused, CountingProjector, newest, save
from streams.code_version import code_version
from streams.features import FeatureFold
from streams.fold import Fold, Projector
from streams.folds import control_folds
from streams.ledger import Ledger
from streams.merge import Merger
from streams.outcomes import OutcomeWindows
from streams.packing import pack
from streams.simulation import Faults
from tests.simulation.histories import PARTITIONS, TASK, TOPICS, live_through

FOLDS: list[Fold] = [
    FeatureFold(TASK, PARTITIONS),
    OutcomeWindows(TASK, PARTITIONS),
    *control_folds([TASK], PARTITIONS),
    Ledger(TOPICS),
    Registry(),
]
anywhere = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@cache
def history() -> list[Event]:
    """A whole log with repeats in it, in the order of a replay."""
    _, _, log = live_through(3, Faults(repeat=0.1, hold_back=20, max_poll=7), 3)
    merger = Merger()
    for records in log.records.values():
        for event in records:
            if event.topic != "driftlog.model_versions" or "artifact" in event.data:
                merger.push(event)
            else:
                merger.push(replace(event, data={**_REGISTERED, **event.data}))
    return list(merger.pop())


_REGISTERED = {
    "request_id": "r",
    "artifact": "a",
    "path": "p",
    "bytes": 1,
    "recipe": "constant",
    "parameters": "{}",
    "seed": 1,
    "features": ["x"],
}


def folded(events: Sequence[Event], folds: Sequence[Fold] = FOLDS) -> CountingProjector:
    projector = CountingProjector(folds)
    projector.feed(events)
    return projector


def prints(projector: Projector) -> dict[str, str]:
    return {fold.name: projector.fingerprint(fold.name) for fold in projector.folds}


def restored(folder: Path, folds: Sequence[Fold] = FOLDS, **options: object) -> CountingProjector:
    said: list[str] = []
    found = newest(folds, folder, say=said.append, **options)  # type: ignore[arg-type]
    assert found is not None and said == []
    return found


@anywhere
@given(data=st.data())
def test_a_checkpoint_anywhere_and_the_rest_make_the_same_state(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    events = history()
    cut = data.draw(st.integers(0, len(events)))
    back = data.draw(st.integers(0, cut))
    folder = tmp_path_factory.mktemp("checkpoints")
    save(folded(events[:cut]), folder)
    again = restored(folder)
    again.feed(events[back:])  # what was applied before is passed over
    whole = folded(events)
    assert prints(again) == prints(whole)
    assert (again.offsets, again.events, again.counts) == (
        whole.offsets, whole.events, whole.counts,
    )  # fmt: skip
    assert {t: s.young for t, s in again._seen.items()} == {
        t: s.young for t, s in whole._seen.items()
    }


@anywhere
@given(data=st.data())
def test_reactors_go_on_from_a_checkpoint_as_if_nothing_had_been(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    events = history()
    cut = data.draw(st.integers(0, len(events)))
    folder = tmp_path_factory.mktemp("checkpoints")
    straight = folded([])
    for event in events[:cut]:
        straight.react(event)
    save(straight, folder)
    again = restored(folder)
    assert [again.react(e) for e in events[cut:]] == [straight.react(e) for e in events[cut:]]


@anywhere
@given(data=st.data())
def test_one_fold_of_the_file_comes_back_alone(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    events = history()
    cut = data.draw(st.integers(0, len(events)))
    fold = data.draw(st.sampled_from(FOLDS))
    folder = tmp_path_factory.mktemp("checkpoints")
    save(folded(events[:cut]), folder)
    again = restored(folder, [fold])
    mine = [event for event in events if event.topic in fold.topics]
    again.feed(mine)
    alone = folded(mine, [fold])
    assert (prints(again), again.events) == (prints(alone), alone.events)


@settings(anywhere, max_examples=200)
@given(data=st.data())
def test_a_damaged_file_is_ignored_and_said(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    path = save(folded(history()[:200]), folder)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    said: list[str] = []
    assert newest(FOLDS, folder, say=said.append) is None
    # A flipped bit in the names of the folds makes it a file about others.
    assert len(said) <= 1 and all("ignored" in line and "\n" not in line for line in said)


@dataclass
class Tally:
    total: int = 0
    names: dict[tuple[str, int], float] = field(default_factory=dict)


class Adder:
    """Counts, and remembers a number by a pair."""

    name = "adder"
    topics = ("t",)

    def __init__(self, step: int = 1) -> None:
        self.step = step

    def initial(self) -> Tally:
        return Tally()

    def apply(self, state: Tally, batch: Sequence[Event]) -> Tally:
        for event in batch:
            state.total += self.step
            state.names[event.id, self.step] = event.data["number"]
        return state


def counted(offset: int, number: Any = 0.5, partition: int = 0) -> Event:
    from schemas.event import Position

    data = {"event_id": f"{partition}-{offset}", "event_time": offset, "number": number}
    return Event("t", "Counted", data, Position("t", partition, offset))


def lines_about(folder: Path, fold: Fold, **options: object) -> list[str]:
    said: list[str] = []
    assert newest([fold], folder, say=said.append, **options) is None  # type: ignore[arg-type]
    return said


def test_another_setting_of_the_fold_is_another_fold(tmp_path: Path) -> None:
    save(folded([counted(0)], [Adder(1)]), tmp_path)
    assert "other code or another task" in lines_about(tmp_path, Adder(2))[0]
    assert code_version(Adder(1)) == code_version(Adder(1)) != code_version(Adder(2))


def test_other_code_is_another_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folded([counted(0)], [Adder()]), tmp_path)
    monkeypatch.setattr(checkpoint, "code_version", lambda fold: "after an upgrade")
    assert "other code" in lines_about(tmp_path, Adder())[0]


def test_the_code_of_a_fold_is_what_it_imports_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streams import code_version as versions

    package = tmp_path / "pretended"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("STEP = 1\n")
    (package / "fold.py").write_text("from pretended.helper import STEP\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(versions, "PACKAGES", frozenset(["pretended"]))
    before = versions.module_version("pretended.fold")
    versions.module_version.cache_clear()
    assert versions.module_version("pretended.fold") == before
    (package / "helper.py").write_text("STEP = 2\n")
    versions.module_version.cache_clear()
    assert versions.module_version("pretended.fold") != before
    versions.module_version.cache_clear()


def test_a_checkpoint_beyond_the_wanted_offsets_is_left_for_later(tmp_path: Path) -> None:
    save(folded([counted(0), counted(1)], [Adder()]), tmp_path)
    newer = folded([counted(0), counted(1), counted(2)], [Adder()])
    save(newer, tmp_path)
    assert restored(tmp_path, [Adder()]).events == 3
    assert restored(tmp_path, [Adder()], upto={("t", 0): 2}).events == 2
    assert lines_about(tmp_path, Adder(), upto={("t", 0): 1}) == []
    assert lines_about(tmp_path, Adder(), upto={("t", 1): 9}) == []


def test_a_checkpoint_of_another_log_is_ignored(tmp_path: Path) -> None:
    save(folded([counted(0), counted(1)], [Adder()]), tmp_path, {"t": "first"})
    assert "beyond the log's end" in lines_about(tmp_path, Adder(), ends={("t", 0): 1})[0]
    assert "made anew" in lines_about(tmp_path, Adder(), log_ids={"t": "second"})[0]
    assert restored(tmp_path, [Adder()], ends={("t", 0): 2}, log_ids={"t": "first"}).events == 2


def test_a_wrong_fingerprint_is_found_even_in_a_file_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "packed", lambda state, fold: ("0" * 64, pack(state)))
        save(folded([counted(0)], [Adder()]), tmp_path)
    assert "fingerprint" in lines_about(tmp_path, Adder())[0]


def test_a_state_that_would_come_back_different_is_not_saved(tmp_path: Path) -> None:
    hidden = Tally()  # a number is declared: nothing says that this is to be a Tally again
    with pytest.raises(CheckpointRefused, match="does not come back the same"):
        save(folded([counted(0, number=hidden)], [Adder()]), tmp_path)
    with pytest.raises(CheckpointRefused, match="cannot be saved"):
        save(folded([counted(0, number=1 << 70)], [Adder()]), tmp_path)
    with pytest.raises(CheckpointRefused, match="counts by topic"):
        save(Projector([Adder()]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_old_files_of_the_same_folds_go_and_others_stay(tmp_path: Path) -> None:
    other = save(folded([counted(0)], [Adder(), Ledger(["t"])]), tmp_path)
    written = []
    for count in range(1, 6):
        path = save(folded([counted(n) for n in range(count)], [Adder()]), tmp_path)
        os.utime(path, ns=(count, count))
        written.append(path)
    assert {*tmp_path.iterdir()} == {other, *written[-checkpoint.KEPT :]}


def test_the_same_state_has_the_same_file(tmp_path: Path) -> None:
    once = save(folded(history()), tmp_path)
    assert save(folded(history()), tmp_path) == once
    assert len([*tmp_path.iterdir()]) == 1
