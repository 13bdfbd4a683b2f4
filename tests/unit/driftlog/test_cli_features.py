"""`driftlog features`: what it says without a system, and what it refuses."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import driftlog.instance
from driftlog.cli.main import app
from streams.task import Category, Numeric, Observed, Rate, Task

TASK = Task(
    "rides",
    (
        Numeric("far", "Kilometres."),
        Category("town"),
        Rate("late", by=("town",), hours=6),
        Observed("rain", by="town", value="mm", max_age_hours=2),
    ),
    "late",
)


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driftlog.instance, "tasks", lambda _: [TASK])


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["features", *words])
    return done.exit_code, done.output, str(done.exception or "")


def test_every_feature_is_told_with_its_definition() -> None:
    code, out, _ = run("list", "--json")
    told = {line["feature"]: line["definition"] for line in map(json.loads, out.splitlines())}
    assert code == 0
    assert told == {
        "far": "given with the request (number)",
        "town": "given with the request (text)",
        "late": "share of positive labels in the last 6 h by town",
        "rain": "newest mm of the town, at most 2 h old",
    }
    assert "Kilometres." in run("list")[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("get", "city=Ulm"), "'city=Ulm': write NAME=VALUE with one of far, town"),
        (("get", "late=0.5"), "write NAME=VALUE"),
        (("get", "far"), "'far': write NAME=VALUE"),
        (("get", "far=long"), "far is a number, not 'long'"),
        (("check", "--task", "trips"), "name one of the tasks that are up with --task: rides"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(words: tuple[str, ...], says: str) -> None:
    code, _, error = run(*words)
    assert code == 1
    assert says in error
