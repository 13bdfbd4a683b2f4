"""From a registered version to its pictures and its compressed variants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from driftlog.model_files import compression_rows, draw, original, register_compressed
from models.artifacts import ArtifactRefused, ArtifactStore
from models.compression.gate import CompressionPolicy
from models.compression.variants import table
from models.registry import versions
from models.scorer import Scorer
from schemas.event import Event
from streams.task import Recipe
from tests.unit.models.memory_trainer import MemoryLog, run_trainer
from tests.unit.models.model_parts import UNTIL_MS, WEAR, asked, rows

TASK = replace(WEAR, recipe=Recipe("gradient_boosting", {"iterations": 40, "min_leaf": 20}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryLog, ArtifactStore]:
    """A log with wear-0 and wear-1."""
    folder, log = tmp_path_factory.mktemp("artifacts"), MemoryLog()
    run_trainer(TASK, rows(700), log, folder)
    log.say(asked("r1", UNTIL_MS))
    return log, run_trainer(TASK, rows(700), log, folder)


def test_the_rows_that_judge_a_variant_trained_nobody(
    trained: tuple[MemoryLog, ArtifactStore],
) -> None:
    log, store = trained
    found = original(store, log.state, TASK, log.state.versions["wear-1"])
    assert len(found.learned) == log.state.versions["wear-1"].reference_count
    assert len(found.learned) + len(found.unseen) == 700
    assert not set(found.learned.ids) & set(found.unseen.ids)
    with pytest.raises(ArtifactRefused, match="wear-0 was not trained from a snapshot"):
        original(store, log.state, TASK, log.state.versions["wear-0"])


def test_a_registered_variant_has_its_original_as_parent_and_its_own_file(
    trained: tuple[MemoryLog, ArtifactStore],
) -> None:
    log, store = trained
    parent = next(
        e for e in log.events if e.data.get("model_version") == "wear-1" and "path" in e.data
    )
    found = original(store, log.state, TASK, log.state.versions["wear-1"])
    policy = CompressionPolicy(max_loss_ratio=2.0, max_difference=0.2)
    _, made = table(found, ["distil"], policy)
    assert made.reason == ""
    event = register_compressed(store, TASK, parent, made, None, UNTIL_MS + 5)
    assert event.id == register_compressed(store, TASK, parent, made, None, UNTIL_MS + 9).id
    after = MemoryLog([*log.events, Event(event.topic, event.type, event.data)]).state
    version = after.versions["wear-1-distil"]
    assert (version.parent, version.snapshot) == ("wear-1", log.state.versions["wear-1"].snapshot)
    assert version.bytes < log.state.versions["wear-1"].bytes
    assert Scorer.load(store.path(version.path), version.artifact).task == "wear"
    assert [v.version for v in versions(after)] == ["wear-0", "wear-1", "wear-1-distil"]
    assert event.data["reference"] == parent.data["reference"]


def test_the_table_names_what_passes_and_why_the_rest_does_not(
    trained: tuple[MemoryLog, ArtifactStore],
) -> None:
    log, store = trained
    found = original(store, log.state, TASK, log.state.versions["wear-1"])
    lines = compression_rows(table(found, ["int8", "distil"], CompressionPolicy(1.0, 0.0)))
    assert [line["variant"] for line in lines] == ["original", "int8", "distil"]
    assert lines[0]["verdict"] == ""
    assert "for networks" in str(lines[1]["verdict"])
    assert "score difference" in str(lines[2]["verdict"])


def test_what_cannot_be_drawn_says_why(
    trained: tuple[MemoryLog, ArtifactStore], tmp_path: Path
) -> None:
    log, store = trained
    written, missing = draw(
        store, log.state, TASK, log.state.versions["wear-1"], tmp_path / "plots"
    )
    assert written == []
    assert [reason.partition(":")[0] for reason in missing] == ["loss", "activations"]
    assert not (tmp_path / "plots").exists()
