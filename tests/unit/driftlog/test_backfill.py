"""The verb without Spark: what it refuses, how it compares, what it shows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftlog.backfill import Outcome, compare, prepare
from driftlog.cli import backfill as verb
from driftlog.cli.errors import CliError
from driftlog.cli.main import app
from infra.errors import InfraError
from infra.settings import Settings
from schemas.event import Event, Position
from streams.backfill import Counts, Gathered, Unreadable
from streams.raw_files import Context
from streams.task import TaskError
from tests.unit.streams.build import DAY, TASK


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLOG_HOME", str(tmp_path))
    return tmp_path


def call(*words: str) -> Any:
    return CliRunner().invoke(app, ["backfill", *words])


def scored(start: int, feature: str, psi: float, **more: Any) -> Event:
    data = {
        "event_id": f"{start}-{feature}",
        "event_time": start + DAY,
        "caused_by": None,
        "window_start": start,
        "model_version": "toy-1",
        "feature": feature,
        "revision": 0,
        "count": 500,
        "psi": psi,
        "drifted": psi > 0.1,
    }
    return Event("driftlog.drift_scores", "DriftScored", {**data, **more})


def test_without_pyspark_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyspark" else find(name)
    )
    failed = call("toy").exception
    assert isinstance(failed, InfraError)
    assert "pip install 'driftlog[spark]'" in str(failed)


def test_it_asks_for_a_task_that_is_known() -> None:
    failed = call("nothing").exception
    assert isinstance(failed, CliError)
    assert "none is" in str(failed)


def test_a_part_of_the_log_is_not_compared_with_all_of_it() -> None:
    failed = call("toy", "--compare", "--to-offset", "5").exception
    assert isinstance(failed, CliError)
    assert "--to-offset" in str(failed)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    task = tmp_path / "some_task.py"
    task.write_text(
        "from driftlog import Numeric, Task\n"
        "task = Task(name='toy', label='late', features=(Numeric('x'),))\n"
    )
    failed = call(str(task), "--from", str(tmp_path / "gone")).exception
    assert isinstance(failed, CliError)
    assert "--export" in str(failed)


def test_files_of_another_task_are_refused(tmp_path: Path) -> None:
    Context("other.predictions", 1, {}, []).write(tmp_path)
    with pytest.raises(TaskError, match=r"other\.predictions"):
        prepare(Settings(home=tmp_path), TASK, str(tmp_path))


def test_only_what_is_the_case_is_compared() -> None:
    mine = [scored(0, "x", 0.1), scored(0, "score", 0.2), scored(DAY, "x", 0.3)]
    again = [scored(0, "x", 0.1, revision=4, event_id="other", caused_by="somebody")]
    assert compare(mine, [*mine[1:], *again]) == []
    other = [scored(0, "x", 0.11), scored(0, "score", 0.2), scored(2 * DAY, "x", 0.5)]
    changed, missing, more = compare(mine, other)
    assert (changed.feature, changed.fields) == ("x", ["psi", "drifted"])
    assert missing.log is None and missing.window_start == DAY
    assert more.backfill is None and more.window_start == 2 * DAY


def test_windows_are_shown_with_their_worst_column(capsys: pytest.CaptureFixture[str]) -> None:
    gathered = Gathered(
        unreadable=[Unreadable(Position("toy.predictions", 2, 17), "too short")],
        partitions={0: Counts(10, 9, 1, 2), 2: Counts(5, 5, 0, 0)},
        unknown_versions=["toy-9"],
    )
    outcome = Outcome(gathered, [scored(0, "x", 0.31), scored(0, "score", 0.05)])
    verb._show(outcome, 2.0, as_json=False)
    shown = capsys.readouterr().out
    assert "1970-01-01 00:00" in shown
    assert "0.310 x" in shown
    assert "15 records of 2 partitions" in shown
    assert "2 events came too late" in shown
    assert "toy.predictions[2]@17  too short" in shown
    assert "not registered, so not scored: toy-9" in shown
    verb._show(outcome, 2.0, as_json=True)
    *scores, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["feature"] for line in scores] == ["x", "score"]
    assert summary["summary"]["unreadable"] == [
        {"at": "toy.predictions[2]@17", "error": "too short"}
    ]


def test_differences_are_told_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    mine = [scored(n * DAY, "x", 0.1) for n in range(15)]
    theirs = [scored(n * DAY, "x", 0.2) for n in range(14)]
    verb._show_differences(compare(mine, theirs), len(mine), as_json=False)
    shown = capsys.readouterr().out
    assert "psi 0.1 (log: 0.2)" in shown
    assert "15 differences in all" in shown
    verb._show_differences([], 15, as_json=False)
    assert "equal: all 15 scores" in capsys.readouterr().out
