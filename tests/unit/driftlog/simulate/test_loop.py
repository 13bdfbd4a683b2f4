"""Policies lived through on a stream with a planted change: real folds, real training, virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from driftlog.cli.main import app
from driftlog.policy import PolicyError
from driftlog.simulate.arms import arm, run_arms
from driftlog.simulate.history import History, read_history
from driftlog.simulate.loop import Loop, Retrain, Run
from driftlog.simulate.measures import measure
from driftlog.simulate.streams import NAMES, START_MS, stream
from driftlog.simulate.table import csv_source
from streams.task import (
    DAY_MS,
    Ask,
    GatePolicy,
    Numeric,
    Recipe,
    RetrainPolicy,
    Task,
    TaskError,
    Truth,
)

DAYS, A_DAY, CHANGE = 16, 150, 8


def write_csv(path: Path) -> Path:
    """x tells the label; from day CHANGE on it tells the opposite."""
    rng = np.random.default_rng(1)
    lines = ["time,x,noise,label"]
    for row in range(DAYS * A_DAY):
        x, noise = rng.normal(size=2)
        label = int((x > 0) != (row >= CHANGE * A_DAY))
        lines.append(f"{START_MS + row * DAY_MS // A_DAY},{x:.4f},{noise:.4f},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


TASK = Task(
    "turned",
    (Numeric("x"), Numeric("noise")),
    "x was positive",
    label_delay_hours=2,
    recipe=Recipe("logistic_regression", training_days=4),
    retrain=RetrainPolicy(first_labels=500, new_labels=300, cooldown_hours=48, retry_labels=100),
    gate=GatePolicy(recent_days=1, max_golden_ratio=None, min_rows=50),
)
TASK_FILE = f"""
from driftlog import GatePolicy, Numeric, Recipe, RetrainPolicy, Task
task = Task("turned", (Numeric("x"), Numeric("noise")), "x was positive", label_delay_hours=2,
    recipe={TASK.recipe!r}, retrain={TASK.retrain!r}, gate={TASK.gate!r})
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("history") / "turned.csv")


@pytest.fixture(scope="module")
def history(table: Path) -> History:
    from dataclasses import replace

    return read_history(replace(TASK, source=csv_source(TASK, table)))


@pytest.fixture(scope="module")
def runs(history: History) -> dict[str, Run]:
    changes = [START_MS + CHANGE * DAY_MS]
    names = ("task", "never", "daily", "adwin", "oracle")
    made = run_arms(history, [arm(TASK, name, changes) for name in names])
    return dict(zip(names, made, strict=True))


def test_a_simulation_repeats_itself_to_the_bit(history: History, runs: dict[str, Run]) -> None:
    again = Loop(TASK, history, name="task").run()
    assert again.retrains == runs["task"].retrains
    assert np.array_equal(again.scores, runs["task"].scores, equal_nan=True)


def test_all_policies_begin_with_the_same_model(runs: dict[str, Run]) -> None:
    assert len({run.retrains[0] for run in runs.values()}) == 1
    first = {int(np.flatnonzero(~np.isnan(run.scores))[0]) for run in runs.values()}
    assert len(first) == 1
    assert [len(runs["never"].retrains), runs["never"].retrains[0].trigger] == [1, "first_labels"]


def test_the_policy_sees_the_change_and_gains_by_it(history: History, runs: dict[str, Run]) -> None:
    changes = [START_MS + CHANGE * DAY_MS]
    found = {m.policy: m for m in measure(TASK, history, list(runs.values()), changes)}
    own = found["task"]
    assert own.found == own.changes == 1 and own.false_alarms is not None
    assert own.delay_days is not None and own.delay_days < 4
    assert own.log_loss < 0.7 * found["never"].log_loss
    assert own.retrains < found["daily"].retrains and own.log_loss < found["daily"].log_loss
    promoted = [retrain.verdict for retrain in runs["task"].retrains if retrain.promoted]
    assert any("learned from the newest" in verdict for verdict in promoted)
    assert found["never"].found == 0 and found["never"].delay_days is None
    assert min(m.regret for m in found.values()) == 0.0


def test_alarms_count_as_false_unless_a_change_began_in_the_training_time(history: History) -> None:
    times = [CHANGE - 2, CHANGE + 1, CHANGE + 6]
    retrains = [Retrain(START_MS + d * DAY_MS, "drift", "", 1, True, "") for d in times]
    calendar = Retrain(START_MS + DAY_MS, "schedule", "", 1, True, "")
    scores = np.full(len(history.data), 0.5)
    run = Run("x", scores, [calendar, *retrains], np.zeros(len(scores), np.bool_))
    (found,) = measure(TASK, history, [run], [START_MS + CHANGE * DAY_MS])
    assert found.false_alarms == 2 and found.delay_days == 1.0


def test_a_history_without_known_changes_has_no_delays_and_no_false_alarms(
    history: History, runs: dict[str, Run]
) -> None:
    for found in measure(TASK, history, list(runs.values())):
        assert (found.changes, found.found) == (0, 0)
        assert (found.delay_days, found.false_alarms) == (None, None)
        assert found.log_loss > 0


def test_words_that_are_no_policy_are_refused_by_name() -> None:
    with pytest.raises(PolicyError, match="write task, never, daily"):
        arm(TASK, "sometimes")
    with pytest.raises(PolicyError, match="known changes"):
        arm(TASK, "oracle")
    assert arm(TASK, "retrain.votes=1,gate.recent_days=2").task.gate.recent_days == 2


def test_the_command_compares_draws_and_says_it_to_scripts(table: Path, tmp_path: Path) -> None:
    (tmp_path / "turned.py").write_text(TASK_FILE)
    asked = ["simulate", "--task", str(tmp_path / "turned.py"), "--stream", str(table)]
    asked += ["--policy", "task", "--policy", "never", "--change", str(CHANGE)]
    asked += ["--plot", str(tmp_path / "loss.png"), "--json"]
    result = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert result.exit_code == 0
    own, never = map(json.loads, result.stdout.splitlines())
    assert own["policy"] == "task" and own["found"] == 1 and never["regret"] > own["regret"]
    assert own["retrained"][0]["trigger"] == "first_labels"
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("time,x,label\n", "no column 'noise'"),
        ("time,x,noise,label\n5,1,1,1\n4,1,1,0\n", "line 3: its time is before"),
        ("time,x,noise,label\n5,one,1,1\n", "line 2: x: 'one' is no number"),
        ("time,x,noise,label\n5,1,1,yes\n", "label 'yes' is neither 0 nor 1"),
        ("time,x,noise,label\nsoon,1,1,1\n", "'soon' is no time"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_words(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(TaskError, match=says):
        list(csv_source(TASK, path)())


def test_labels_of_a_table_come_when_it_says(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("time,x,noise,label,label_time\n1000,1,,1,9000\n2000-01-01,1,1,,\n")
    asked, label, *_ = list(csv_source(TASK, path)())
    assert isinstance(asked, Ask) and asked.instance == {"x": 1.0, "noise": None}
    assert isinstance(label, Truth) and (label.time, label.label) == (9000, 1)


@pytest.mark.parametrize("name", NAMES)
def test_streams_repeat_themselves_in_order_of_time(name: str) -> None:
    from itertools import islice

    made = stream(name)
    assert made.task.source is not None and made.changes
    first, again = (list(islice(made.task.source(), 300)) for _ in range(2))
    assert first == again
    assert [m.time for m in first] == sorted(m.time for m in first)
    asked = [m for m in first if isinstance(m, Ask)]
    assert set(asked[0].instance) == set(made.task.given)
