"""`driftlog similar` as people and programs see it; only the broker is not there."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import driftlog.instance
from consumers.retrieval.predictions import PredictionFold, SimilarPredictions
from driftlog.cli import similar as verb
from driftlog.cli.main import app
from infra.settings import Settings
from schemas.event import Event
from streams.fold import Projector
from streams.replay import Until
from streams.task import Category, DriftPolicy, Numeric, Task

TASK = Task(
    "rides",
    (Numeric("far"), Numeric("fast"), Category("town")),
    "late",
    drift=DriftPolicy(embeddings={"where": ("far", "fast")}),
)


def events() -> list[Event]:
    fold = PredictionFold(TASK)
    made = []
    for i in range(30):
        features = {"far": float(i), "fast": float(i % 7), "town": "Ulm" if i % 2 else "Bonn"}
        data = {"event_id": f"p{i}", "event_time": 1000 * i, "model_version": "rides-2"}
        data |= {"score": i / 100, "features": features}
        made.append(Event(fold.topics[0], "PredictionMade", data))
    label = {"event_id": "l", "event_time": 9, "prediction_id": "p9", "label": 1}
    return [*made, Event(fold.topics[1], "LabelObserved", label)]


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(
        settings: Settings, task: Task, until: Until, by: str | None, as_json: bool
    ) -> SimilarPredictions:
        fold = PredictionFold(task)
        projector = Projector([fold])
        projector.feed(filter(until, events()))
        return SimilarPredictions(task, projector.states[fold.name], by)

    monkeypatch.setattr(driftlog.instance, "tasks", lambda _: [TASK])
    monkeypatch.setattr(verb, "_read", read)


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["similar", *words])
    return done.exit_code, done.output, str(done.exception or "")


def test_a_program_gets_a_line_a_neighbour_and_nothing_else() -> None:
    code, out, _ = run("rides", "p2", "-k", "3", "--json", "--device", "cpu")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 3 and all(line["device"] == "cpu" for line in lines)
    cosines = [line["cosine"] for line in lines]
    assert cosines == sorted(cosines, reverse=True) and lines[0]["prediction_id"] != "p2"
    found = json.loads(
        run("rides", "p2", "-k", "29", "--json", "--device", "cpu")[1].splitlines()[0]
    )
    assert set(found) == {
        "prediction_id", "event_time", "cosine", "score", "label", "model_version", "device",
    }  # fmt: skip


def test_the_emulator_answers_the_same() -> None:
    one = run("rides", "p2", "--json", "--device", "cpu")[1]
    other = run("rides", "p2", "--json", "--device", "emulator")[1]
    strip = [{**json.loads(line), "device": ""} for line in one.splitlines()]
    assert strip == [{**json.loads(line), "device": ""} for line in other.splitlines()]
    assert "emulator" in other and "emulator" not in one


def test_people_get_a_table_with_outcomes() -> None:
    code, out, _ = run("rides", "p2", "-k", "29")
    assert code == 0 and "p9" in out and "1 of 1 known labels are 1" in out
    assert "30 predictions of 4 dimensions" in out


def test_an_embedding_and_a_moment() -> None:
    assert "of 2 dimensions" in run("rides", "p2", "--by", "where")[1]
    assert "4 predictions" in run("rides", "p2", "--to", "1970-01-01T00:00:03")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("flights", "p2"), "name one of the tasks that are up: rides"),
        (("rides", "p99"), "no prediction p99"),
        (("rides", "p2", "--by", "what"), "it has where"),
        (("rides", "p2", "--device", "tpu"), "--device tpu: one of auto, cpu"),
    ],
)
def test_what_cannot_be_answered_is_told(words: tuple[str, ...], said: str) -> None:
    code, _, error = run(*words)
    assert code == 1 and said in error
