"""A version that the trainer made, made again from its lineage: equal to the byte; and what if not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driftlog import reproduce
from driftlog.cli import models_graph, models_text
from driftlog.cli.errors import CliError
from driftlog.lineage_graph import lineage_graph, mermaid
from driftlog.reproduce import NotReproducible
from models import training
from models.registry import RegistryState, Version
from streams.task import Numeric, Recipe
from tests.simulation.trainer_world import ROWS, TASK, RowsHistory, World

GIVEN = "the champion, the golden set and the snapshot"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two requests answered: the second version was judged against the first, on a golden set."""
    with monkeypatch.context() as patch:
        made = World(tmp_path, patch)
        made.work()
        for name in ("first", "second"):
            made.ask(name)
            made.work()
        yield made


def again(world: World, name: str, **changes: Any) -> reproduce.Reproduced:
    state = world.log.state()
    task = dataclasses.replace(
        TASK, recipe=Recipe("constant", training_days=30)
    )  # the task moved on
    return reproduce.reproduce(task, state, state.versions[name], world.store, **changes)


@pytest.mark.parametrize("name", ["wear-0", "wear-1", "wear-2"])
def test_equal_to_the_byte_whatever_the_task_says_now(world: World, name: str) -> None:
    found = again(world, name)
    assert found.identical
    assert found.within
    assert (found.metrics, found.differences) == ({}, {})
    assert found.verdict == found.decided, f"{GIVEN} of that time lead to the same verdict"
    assert found.rows == (0 if name == "wear-0" else len(ROWS))


def test_another_seed_is_another_model_and_the_scores_say_by_how_much(world: World) -> None:
    state = world.log.state()
    version = state.versions["wear-1"]
    other = dataclasses.replace(version, recipe="gradient_boosting", parameters='{"iterations": 4}')
    found = reproduce.reproduce(TASK, state, other, world.store)
    assert not found.identical
    assert found.largest_difference > 0.01
    assert not found.within
    assert "log_loss" in found.metrics
    loose = reproduce.reproduce(TASK, state, other, world.store, tolerance=1.0)
    assert loose.within
    assert not loose.identical


def test_another_environment_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here = training.environment() | {"numpy": "0.1"}
    del here["onnx"]
    monkeypatch.setattr(reproduce._environment, "__defaults__", (lambda: here,))
    found = again(world, "wear-1")
    assert found.differences["numpy"][1] == "0.1"
    assert found.differences["onnx"][1] is None
    assert set(found.differences) == {"numpy", "onnx"}


def test_a_snapshot_that_is_gone_is_cut_again(world: World) -> None:
    state = world.log.state()
    taken = state.requests[state.versions["wear-1"].request_id].step(
        "SnapshotTaken", purpose="training"
    )
    assert taken is not None
    (world.folder / taken["path"]).unlink()
    with pytest.raises(NotReproducible, match="not what the log says"):
        again(world, "wear-1")
    history = RowsHistory(world.fuse, ROWS)
    found = again(world, "wear-1", history=history)
    assert found.recut
    assert found.identical
    fewer = RowsHistory(world.fuse, ROWS.where(ROWS.times > ROWS.times[0]))
    with pytest.raises(NotReproducible, match="its query gives"):
        again(world, "wear-1", history=fewer)


def test_what_cannot_be_made_again_says_why(world: World) -> None:
    state = world.log.state()
    narrow = dataclasses.replace(TASK, features=(Numeric("size"),))
    with pytest.raises(NotReproducible, match="'speed', which the task has lost"):
        reproduce.reproduce(narrow, state, with_features(state, "wear-1"), world.store)
    (world.folder / state.versions["wear-1"].path).unlink()
    with pytest.raises(NotReproducible, match="the file of its champion wear-1"):
        again(world, "wear-2")


def with_features(state: RegistryState, name: str) -> Version:
    return dataclasses.replace(state.versions[name], features=("speed",))


def test_the_graph_of_a_version_leads_from_the_log_to_the_decision(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = world.log.state()
    shown = models_text.lineage(state, state.versions["wear-2"])
    assert {step["type"] for step in shown["steps"]} == {
        "SnapshotTaken",
        "QualityChecked",
        "TrainingStarted",
        "TrainingFinished",
        "ModelRegistered",
        *(decision["type"] for decision in shown["decisions"]),
    }
    shown["steps"].append({"type": "TrialFinished", "event_id": "t1", "event_time": 0})
    graph = lineage_graph(shown)
    layers = graph.layers()
    path = ["wear.predictions", "snapshot", "training", "version", "decision 0"]
    assert [layers[name] for name in path] == sorted({layers[name] for name in path})
    assert "t1" in graph.nodes, "a new type of step needs no change here"
    assert ("golden", "decision 0", "judged on") in graph.edges
    assert ("parent", "decision 0", "compared with") in graph.edges
    text = mermaid(graph)
    assert text.count("-->") == len(graph.edges)
    for suffix in ("svg", "png", "mmd", "dot"):
        models_graph.show(shown, str(tmp_path / f"graph.{suffix}"))
        assert (tmp_path / f"graph.{suffix}").stat().st_size > 500
    svg = (tmp_path / "graph.svg").read_text("utf-8")
    assert svg.count("<path") > len(graph.nodes)
    capsys.readouterr()
    models_graph.show(shown, "-")
    drawn = capsys.readouterr().out
    for word in ("wear-2", "snapshot", "wear.labels", "RetrainRequested", "judged on: golden"):
        assert word in drawn
    with pytest.raises(CliError, match="a graph is a"):
        models_graph.show(shown, "graph.txt")
