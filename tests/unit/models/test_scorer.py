"""Scores are the same bits in every batch, and nothing but the expected file is ever run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models import recipes
from models.artifacts import ArtifactRefused
from models.dataset import Dataset
from models.onnx_graph import METADATA, PAD
from models.scorer import Scorer
from tests.unit.models.model_parts import WEAR, rows, vectors

PARAMETERS: dict[str, dict[str, Any]] = {
    "constant": {"score": 0.3},
    "extra_trees": {"trees": 15},
    "gradient_boosting": {"iterations": 30, "min_leaf": 10},
    "logistic_regression": {},
    "mlp": {"epochs": 3, "hidden": (8,)},
    "online": {},
    "random_forest": {"trees": 15},
    "sklearn": {"estimator": "tests.unit.models.estimators:pipeline"},
}
"""The CNN wants images: tests/unit/models/test_networks.py."""
RECIPES = sorted(PARAMETERS) if find_spec("torch") else sorted(set(PARAMETERS) - {"mlp"})


@pytest.fixture(scope="module")
def data() -> Dataset:
    return rows(600)


@pytest.fixture(scope="module")
def files(data: Dataset) -> dict[str, bytes]:
    return {name: recipes.fit(WEAR, data, name, PARAMETERS[name], 7) for name in RECIPES}


def changed(data: bytes, change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = onnx.load_model_from_string(data)
    change(model)
    out: bytes = model.SerializeToString()
    return out


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_score_is_the_same_to_the_last_bit_in_every_batch(
    files: dict[str, bytes], data: Dataset, recipe: str
) -> None:
    scorer = Scorer.from_bytes(files[recipe])
    whole = scorer.score_columns(data.columns, len(data))
    given = vectors(data)
    for size in (1, 2, 3, 7, 16, 17, 64, 255):
        starts = range(0, len(given), size) if size > 3 else range(0, 90, size)
        parts = np.concatenate([scorer.score(given[start : start + size]) for start in starts])
        assert parts.tobytes() == whole[: len(parts)].tobytes(), size
    assert len(set(whole.tolist())) > (0 if recipe == "constant" else 50)
    assert np.all((whole > 0) & (whole < 1))


def test_a_batch_is_filled_up_where_the_file_asks_for_it(
    files: dict[str, bytes], data: Dataset
) -> None:
    """Some processors compute the rows beyond a full register to another last bit."""
    scorer = Scorer.from_bytes(files["logistic_regression"])
    session, shapes = scorer._session, list[int]()

    class Spy:
        def run(self, names: list[str], inputs: dict[str, Any]) -> Any:
            shapes.append(len(inputs["features"]))
            return session.run(names, inputs)

    scorer._session = Spy()
    for count in (1, 15, 16, 17):
        assert len(scorer.score(vectors(data)[:count])) == count
    assert shapes == [16, 16, 16, 32]


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_again_gives_the_same_bytes(
    files: dict[str, bytes], data: Dataset, recipe: str
) -> None:
    assert recipes.fit(WEAR, data, recipe, PARAMETERS[recipe], 7) == files[recipe]


def test_no_rows_have_no_scores_and_an_empty_vector_has_one(files: dict[str, bytes]) -> None:
    scorer = Scorer.from_bytes(files["gradient_boosting"])
    assert scorer.score([]).shape == (0,)
    assert scorer.score([{}]).shape == (1,)
    assert scorer.task == "wear"


def test_a_file_is_loaded_by_its_hash_alone(files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(files["constant"])
    sha256 = hashlib.sha256(files["constant"]).hexdigest()
    assert Scorer.load(path, sha256).score([{}]).tolist() == pytest.approx([0.3])
    with pytest.raises(ArtifactRefused, match="SHA-256"):
        Scorer.load(path, "0" * 64)


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    data = pickle.dumps(Trap(mark))
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ArtifactRefused):
        Scorer.load(path, hashlib.sha256(data).hexdigest())
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists(), "the trap itself works"


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"not a model at all", b"\x08\x09"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactRefused):
        Scorer.from_bytes(data)


def metadata(key: str, value: str) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        properties = {item.key: item.value for item in model.metadata_props} | {key: value}
        helper.set_model_props(model, properties)

    return change


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Loop"


def foreign_domain(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "com.example"


def external_values(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../secret"


def infinite(model: onnx.ModelProto) -> None:
    tensor = onnx.numpy_helper.from_array(np.array([np.inf], dtype=np.float32), "constant")
    model.graph.initializer[0].CopyFrom(tensor)


def beyond_one(model: onnx.ModelProto) -> None:
    tensor = onnx.numpy_helper.from_array(np.array([1.5], dtype=np.float32), "constant")
    model.graph.initializer[0].CopyFrom(tensor)


def wrong_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 9


def wrong_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "scores"


def embedded_graph(model: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "inner", [], [])
    model.graph.node[-1].attribute.append(helper.make_attribute("body", graph))


CHANGES = {
    "no code book": (metadata(METADATA, "{}"), "metadata"),
    "no JSON": (metadata(METADATA, "[" * 100_000), "metadata"),
    "huge batches": (metadata(PAD, "1000000"), "multiples"),
    "an operator": (foreign_operator, "operator ai.onnx.Loop"),
    "a domain": (foreign_domain, "operator com.example"),
    "values outside": (external_values, "outside the file"),
    "infinity": (infinite, "not all finite"),
    "no probability": (beyond_one, "no probabilities"),
    "another input": (wrong_input, "input"),
    "another output": (wrong_output, "output"),
    "a graph inside": (embedded_graph, "not all finite"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_asks_for_more_is_refused(files: dict[str, bytes], name: str) -> None:
    change, why = CHANGES[name]
    with pytest.raises(ArtifactRefused, match=why):
        Scorer.from_bytes(changed(files["constant"], change))
