"""A file whose rows are scored otherwise than where it was made is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest

from models import recipes
from models.artifacts import ArtifactRefused
from models.dataset import Dataset
from models.onnx_graph import with_note
from models.parity import MAX_ROWS, PARITY, picked
from models.scorer import Scorer, with_sample
from tests.unit.models.model_parts import WEAR, rows


@pytest.fixture(scope="module")
def data() -> Dataset:
    return rows(600)


@pytest.fixture(scope="module")
def sampled(data: Dataset) -> bytes:
    plain = recipes.fit(WEAR, data, "gradient_boosting", {"iterations": 30, "min_leaf": 10}, 7)
    return with_sample(plain, data.columns, len(data))


def told(data: bytes) -> dict[str, Any]:
    model = onnx.load_model_from_string(data)
    found: dict[str, Any] = json.loads(
        next(item.value for item in model.metadata_props if item.key == PARITY)
    )
    return found


def test_a_file_that_scores_its_sample_as_told_is_served(data: Dataset, sampled: bytes) -> None:
    assert told(sampled)["rows"] == MAX_ROWS
    assert len(Scorer.from_bytes(sampled).score_columns(data.columns, len(data))) == len(data)
    assert with_sample(sampled, data.columns, len(data)) == sampled


def test_a_file_that_scores_it_otherwise_is_refused(sampled: bytes) -> None:
    model = onnx.load_model_from_string(sampled)
    node = next(n for n in model.graph.node if n.op_type == "TreeEnsembleClassifier")
    weights = next(a for a in node.attribute if a.name == "class_weights")
    weights.floats[:] = [value + 0.01 for value in weights.floats]
    with pytest.raises(ArtifactRefused, match="parity sample is scored differently here, by 0"):
        Scorer.from_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "note",
    ["", "[]", "{}", '{"rows": 2, "features": 3, "matrix": "!", "scores": ""}'],
)
def test_what_is_no_sample_is_refused(sampled: bytes, note: str) -> None:
    with pytest.raises(ArtifactRefused, match="parity sample does not run"):
        Scorer.from_bytes(with_note(sampled, PARITY, note))


def test_scores_that_are_missing_are_a_difference(sampled: bytes) -> None:
    sample = told(sampled) | {"scores": ""}
    with pytest.raises(ArtifactRefused, match="16 scores of a parity sample of 0"):
        Scorer.from_bytes(with_note(sampled, PARITY, json.dumps(sample)))


def test_the_rows_of_the_sample_are_nobodys() -> None:
    columns = {"a": np.arange(600), "b": np.arange(600)}
    chosen = picked(columns, 600)
    assert len(set(chosen["a"])) == MAX_ROWS
    assert not set(zip(chosen["a"], chosen["b"], strict=True)) & {(i, i) for i in range(600)}


def test_a_wide_model_brings_fewer_rows() -> None:
    wide = picked({f"pixel{i}": np.zeros(100) for i in range(1024)}, 100)
    assert len(wide["pixel0"]) == 4
