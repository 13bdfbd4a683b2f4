"""`driftlog task`: a new file runs as it is; a bad one is told in one clear line and status 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from driftlog.cli.errors import CliError
from driftlog.cli.task import task_app
from driftlog.task_check import check_moments
from streams.task_file import load_task

NOW_MS = 1_800_000_000_000

TASK = """\
from driftlog import *

def source():
    t = 1_704_067_200_000
    yield Observation(t, "shop", "north", {"rain": 0.5})
    yield Ask(t, "a", {"price": 1.5, "shop": "north"})
    yield Ask(t + 1, "b", {"price": 2, "shop": None})
    yield Truth(t + 2, "a", 1)
    yield Truth(t + 3, "b", 0)

task = Task(
    name="orders",
    label="comes back",
    features=(Numeric("price"), Category("shop"), Rate("rate", by=("shop",)),
              Observed("rain", by="shop", value="rain")),
    source=source,
)
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if "task_file_" in name:
            del sys.modules[name]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(task_app, list(arguments))


def refusal(*arguments: str) -> str:
    """The one line that the command line prints for a failed command before it exits with 1."""
    result = run(*arguments)
    assert isinstance(result.exception, CliError), result.output
    assert result.exit_code == 1
    message = str(result.exception)
    assert "\n" not in message
    return message


def problems(text: str, *more: str) -> list[str]:
    """What `check` finds wrong with a task file of this text."""
    Path("orders.py").write_text(text, "utf-8")
    result = run("check", "orders.py", *more)
    assert isinstance(result.exception, CliError), result.output
    found = [
        line.removeprefix("problem").strip()
        for line in result.output.splitlines()
        if line.startswith("problem")
    ]
    assert str(result.exception).startswith(f"orders.py: {len(found)} problem")
    return found


def test_a_new_file_passes_its_check_and_gives_every_kind_of_moment() -> None:
    assert "wrote churn.py" in run("new", "churn").output
    result = run("check", "churn.py", "--json", "--moments", "5000")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["ok"]
    assert found["task"] == "churn"
    assert min(found["asks"], found["truths"], found["observations"]) > 500
    assert found["notes"] == []


def test_a_new_file_is_commented_and_says_what_to_change() -> None:
    run("new", "churn")
    text = Path("churn.py").read_text("utf-8")
    assert text.count("hange this") >= 5
    assert "my_task" not in text
    assert 'name="churn"' in text


def test_a_new_file_trains() -> None:
    from driftlog.simulate.history import read_history
    from models.training import train

    run("new", "churn")
    task = load_task(Path("churn.py"))
    year = read_history(task, days=15)
    until = int(year.data.times[-1])
    rows = year.known(0, until)
    assert len(rows) >= task.retrain.first_labels
    assert train(task, rows, until, None, None, "churn-1").verdict.passed


def test_new_writes_where_it_is_told() -> None:
    Path("tasks").mkdir()
    result = run("new", "churn", "--path", "tasks/mine.py", "--json")
    assert json.loads(result.output) == {"task": "churn", "file": "tasks/mine.py"}
    assert load_task(Path("tasks/mine.py")).name == "churn"


def test_new_replaces_a_file_only_with_force() -> None:
    Path("churn.py").write_text("precious", "utf-8")
    assert "churn.py exists" in refusal("new", "churn")
    assert Path("churn.py").read_text("utf-8") == "precious"
    assert run("new", "churn", "--force").exit_code == 0
    assert load_task(Path("churn.py")).name == "churn"


@pytest.mark.parametrize(
    "name", ["Churn", "1churn", "my-task", "../churn", "driftlog", "", "x" * 42]
)
def test_new_refuses_a_name_that_no_task_may_have(name: str) -> None:
    assert "cannot name a task" in refusal("new", "--", name)
    assert list(Path().iterdir()) == []


def test_new_refuses_a_path_that_is_no_python_file() -> None:
    Path("tasks").mkdir()
    assert "ends in .py, e.g. tasks/churn.py" in refusal("new", "churn", "--path", "tasks")
    assert "there is no folder" in refusal("new", "churn", "--path", "none/churn.py")


def test_check_shows_features_topics_and_policies() -> None:
    Path("orders.py").write_text(TASK, "utf-8")
    result = run("check", "orders.py")
    assert result.exit_code == 0, result.output
    for word in (
        "orders.labels",
        "price",
        "number",
        "category",
        "labels of 24 h by shop",
        "window_hours",
    ):
        assert word in result.output
    assert "5 moments checked: 2 questions, 2 labels (50.0% are 1), 1 observations" in result.output


def test_check_without_a_source_says_where_moments_come_from() -> None:
    Path("orders.py").write_text(TASK.replace("source=source,", ""), "utf-8")
    assert "source   none" in run("check", "orders.py").output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "there is no file orders.py"),
        ("task = ", "orders.py:1: syntax error"),
        ("1 / 0", "orders.py:1: ZeroDivisionError"),
        ("x = 1", "orders.py defines no Task"),
        (TASK.replace('"price"', '"Price"'), "feature name 'Price'"),
        (
            TASK.replace("    t = ", "    1 / 0\n    t = "),
            "source failed: orders.py:4: ZeroDivision",
        ),
        (TASK.replace("yield", "return", 1).replace("yield", "lambda:"), "must return an iterator"),
    ],
)
def test_check_of_a_bad_file_says_one_line(text: str | None, expected: str) -> None:
    if text is not None:
        Path("orders.py").write_text(text, "utf-8")
    assert expected in refusal("check", "orders.py")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('{"price": 2, ', "{", "moment 3: Ask.instance.price: is missing: give None"),
        ('"price": 2', '"price": "2"', "moment 3: Ask.instance.price: must be a number, not text"),
        ('"price": 2', '"price": float("nan")', "moment 3: Ask.instance.price: is NaN: write None"),
        ('"price": 2', '"price": float("inf")', "moment 3: Ask.instance.price: is infinite"),
        ('"price": 2', '"price": {1}', "moment 3: Ask.instance.price: is {1} (set)"),
        ('"price": 2', '"price": 2, "prise": 2', "moment 3: Ask.instance.prise: is no feature"),
        ('"price": 2', '"price": 2, "rate": 0.5', "moment 3: Ask.instance.rate: is computed by"),
        ('"shop": None', '"shop": 7', "moment 3: Ask.instance.shop: must be text"),
        ('{"price": 2, "shop": None}', "7", "moment 3: Ask.instance: is 7 (int): give a dict"),
        ('"b", {', '"a", {', "moment 3: Ask.id: 'a' was asked before"),
        ('"b", {', "7, {", "moment 3: Ask.id: is 7 (int): give text"),
        ('"b", {', '"", {', "moment 3: Ask.id: must have 1 to 100 characters"),
        ("Ask(t + 1", "Ask(t - 5", "moment 3: Ask.time: 1704067199995 is before the moment ahead"),
        ("Ask(t + 1", "Ask(t + 0.5", "moment 3: Ask.time: is 1704067200000.5 (float); write"),
        ("Ask(t + 1", "Ask(t // 1000", "moment 3: Ask.time: 1704067200 looks like seconds"),
        ("Truth(t + 3", "Truth(t * 3", "moment 5: Truth.time: lies more than a day in the future"),
        ('"b", 0', '"c", 0', "moment 5: Truth.prediction_id: no Ask with id 'c' came before"),
        ('"b", 0', '"a", 0', "moment 5: Truth.prediction_id: 'a' has a label already"),
        ('"b", 0', '"b", 2', "moment 5: Truth.label: must be 0 or 1"),
        ('"b", 0', '"b", 0.5', "moment 5: Truth.label: is 0.5 (float): write 0 or 1"),
        ('"b", 0', '"b", True', "moment 5: Truth.label: is True (bool)"),
        ('t, "shop"', 't, "shpo"', "moment 1: Observation.entity: 'shpo' is looked up by no"),
        ('"north", {"rain', '7, {"rain', "moment 1: Observation.key: is 7 (int): give text"),
        ('{"rain": 0.5}', '{"rian": 0.5}', "moment 1: Observation.values.rian: is used by no"),
        ('{"rain": 0.5}', '{"rain": "wet"}', "moment 1: Observation: does not fit the schema of"),
        ('Truth(t + 3, "b", 0)', "t", "moment 5: source: is a int, not Ask, Truth or Observation"),
        ("Ask(t", 'Truth(t, "x", 0); (t', "source: it asks for no prediction"),
    ],
)
def test_check_names_moment_field_and_what_to_do(old: str, new: str, expected: str) -> None:
    assert old in TASK
    found = problems(TASK.replace(old, new))
    assert any(expected in each for each in found), found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('label="comes back"', 'label=" "', "label: say in words"),
        ("source=source", "source=source()", "source: must be a function"),
        ("source=source", "label_delay_hours=1.5", "label_delay_hours: must be a whole number"),
        ("source=source", "decision_threshold=7", "decision_threshold: must be a number between"),
        (
            "source=source",
            "prior_score=0",
            "prior_score: must be a number between 0 and 1, without",
        ),
        ('by=("shop",)', 'by=("price",)', "features.rate.by: price is a Numeric"),
        ("source=source", 'recipe=Recipe("magic")', "recipe.name: no recipe 'magic'; there are"),
        (
            *("source=source", 'recipe=Recipe(parameters={"trees": 9})'),
            "recipe.parameters.trees: gradient_boosting has no such parameter; it has iterations",
        ),
        ("source=source", "drift=DriftPolicy(alpha=5)", "drift.alpha: must be a number between"),
        ("source=source", "drift=DriftPolicy(bins=1)", "drift.bins: must be a whole number"),
        ("source=source", "drift=GatePolicy()", "drift: must be a DriftPolicy(...)"),
        (
            "source=source",
            "retrain=RetrainPolicy(votes=4)",
            "retrain.votes: must be a whole number",
        ),
        (
            "source=source",
            "gate=GatePolicy(golden_share=0.9)",
            "gate.golden_share: must be a number",
        ),
        (
            *('Numeric("price"', 'Numeric("price", expect=Expect(max_missing=2)'),
            "features.price.expect.max_missing: must be a number between 0 and 1",
        ),
        (
            *('Numeric("price"', 'Numeric("price", expect=Expect(minimum=3, maximum=1)'),
            "features.price.expect: minimum 3 is above maximum 1",
        ),
        (
            *('Numeric("price"', 'Numeric("price", expect=Expect(max_unseen=0.1)'),
            "features.price.expect.max_unseen: only a Category has categories",
        ),
        (
            *('Numeric("price"', 'Numeric("price", expect=Expect(severity="loud")'),
            "features.price.expect.severity: must be 'alert' or 'quarantine', not 'loud'",
        ),
        (
            *("source=source", 'quality=QualityPolicy(quarantine=("colour",))'),
            "quality.quarantine: no check 'colour'; there are schema, volume",
        ),
        (
            *("source=source", 'quality=QualityPolicy(stop="balance")'),
            "quality.stop: must be a tuple of names of checks, not 'balance'",
        ),
        ("source=source", "quality=GatePolicy()", "quality: must be a QualityPolicy(...)"),
        (
            *("source=source", 'recipe=Recipe(max_rows=500, sampling="some")'),
            "recipe.sampling: no sampling 'some'; there are reservoir, stratified, weighted",
        ),
        ("source=source", "recipe=Recipe(max_rows=5)", "recipe.max_rows: must be a whole number"),
    ],
)
def test_check_names_the_setting_that_cannot_work(old: str, new: str, expected: str) -> None:
    assert old in TASK
    [found] = problems(TASK.replace(old, new))
    assert found.startswith(expected)


def test_a_source_that_does_not_repeat_itself_is_found() -> None:
    text = TASK.replace("def source", "import uuid\ndef source").replace(
        '"b"', "str(uuid.uuid4())", 1
    )
    assert any("gives another moment 3 when it is called again" in each for each in problems(text))


def test_the_same_problem_is_told_once_with_its_count() -> None:
    many = "".join(f'    yield Ask(t, "m{i}", {{"price": "x", "shop": "s"}})\n' for i in range(50))
    text = TASK.replace('    yield Ask(t, "a"', many + '    yield Ask(t, "a"')
    assert problems(text) == [
        "moment 2: Ask.instance.price: must be a number, not text (and 49 more)"
    ]


def test_a_question_without_a_usable_time_is_one_problem_not_two() -> None:
    [found] = problems(TASK.replace("Ask(t + 1", "Ask(t // 1000"))
    assert "looks like seconds" in found


def test_only_as_many_moments_as_asked_are_taken() -> None:
    text = TASK.replace("    yield Truth(t + 2", "    1 / 0\n    yield Truth(t + 2")
    Path("orders.py").write_text(text, "utf-8")
    assert "source failed" in refusal("check", "orders.py")
    result = run("check", "orders.py", "--moments", "3", "--json")
    assert json.loads(result.stdout)["asks"] == 2


def test_json_carries_the_problems() -> None:
    Path("orders.py").write_text(TASK.replace('"b", 0', '"b", 2'), "utf-8")
    result = run("check", "orders.py", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert not found["ok"]
    [problem] = found["problems"]
    assert (problem["moment"], problem["field"]) == (5, "Truth.label")


def test_numpy_floats_are_numbers_and_numpy_integers_are_told() -> None:
    text = "import numpy as np\n" + TASK.replace("1.5", "np.float64(1.5)")
    Path("orders.py").write_text(text, "utf-8")
    assert run("check", "orders.py").exit_code == 0
    [found] = problems(text.replace('"price": 2', '"price": np.int64(2)'))
    assert "(numpy.int64): give a plain number" in found


def test_late_labels_and_missing_ones_are_notes() -> None:
    Path("orders.py").write_text(TASK.replace("t + 3", "t + 25 * 3_600_000"), "utf-8")
    checked = check_moments(load_task(Path("orders.py")), 100, NOW_MS)
    assert (checked.problems, checked.late) == ([], 1)
    assert checked.notes == [
        "1 of 2 labels came later than label_delay_hours (24 h) and do not count"
    ]
    few = check_moments(load_task(Path("orders.py")), 3, NOW_MS)
    assert few.notes == ["no label came yet: check more moments with --moments"]
