"""A compressed model answers nearly as its original does, or is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from models import network, recipes
from models.compression import variants
from models.compression.gate import CompressionPolicy, gates, verdict
from models.compression.low_rank import factorise
from models.compression.pruning import hidden_widths, prune
from models.compression.variants import Original, table, variant
from models.network import Conv, Dense, Network, Relu
from models.onnx_graph import CURVES, THRESHOLD, note, with_note
from models.recipes import CannotTrain
from models.scorer import Scorer
from tests.unit.models.model_parts import WEAR, rows
from tests.unit.models.test_networks import IMAGES, built, images

EASY = CompressionPolicy(max_loss_ratio=10.0, max_difference=1.0)


def scores(data: bytes, matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return Scorer.from_bytes(data).score_matrix(matrix)


@pytest.fixture(scope="module", params=[False, True], ids=["dense", "image"])
def made(request: pytest.FixtureRequest) -> tuple[Network, Original]:
    """A network with random weights that are small for half of the first layer's units."""
    network_, encoder = built(np.random.default_rng(8), request.param)
    first = network_.layers[0]
    assert isinstance(first, Dense | Conv)
    first.weight[: len(first.weight) // 2] *= 0.001
    first.bias[: len(first.weight) // 2] = 0
    data = with_note(network.write(network_, encoder, {CURVES: "{}"}), THRESHOLD, "0.25")
    task: Any = WEAR
    return network_, Original(task, data, "mlp", {}, 7, images(200), images(300, seed=2))


def test_pruning_leaves_out_the_weakest_units_first(made: tuple[Network, Original]) -> None:
    network_, original = made
    smaller = prune(network_, 0.35)
    before, after = hidden_widths(network_.layers), hidden_widths(smaller.layers)
    assert [int(width * 0.35) for width in before] == [
        b - a for b, a in zip(before, after, strict=True)
    ]
    assert smaller.parameters < network_.parameters
    encoder = Scorer.from_bytes(original.data).encoder
    matrix = encoder.encode_columns(original.unseen.columns, 300)
    assert hidden_widths(prune(network_, 0.0).layers) == before
    assert network.write(prune(network_, 0.0), encoder) == network.write(network_, encoder)
    assert scores(network.write(smaller, encoder), matrix).shape == (300,)


def test_units_that_say_nothing_are_pruned_without_a_trace() -> None:
    """Half of the hidden units have no weights at all: without them every score is the same."""
    chance = np.random.default_rng(2)
    weight = chance.normal(size=(8, 32)).astype(np.float32)
    bias = chance.normal(size=8).astype(np.float32)
    weight[::2], bias[::2] = 0, 0
    last = Dense(chance.normal(size=(1, 8)).astype(np.float32), np.zeros(1, np.float32))
    whole, encoder = built(chance, False)
    whole = Network(whole.center, whole.scale, (Dense(weight, bias), Relu(), last), flags=True)
    half = prune(whole, 0.5)
    assert hidden_widths(half.layers) == [4]
    matrix = encoder.encode_columns(images(100).columns, 100)
    apart = scores(network.write(whole, encoder), matrix) - scores(
        network.write(half, encoder), matrix
    )
    assert np.abs(apart).max() < 1e-6


def test_a_layer_of_low_rank_is_written_as_two_thin_ones_and_scores_alike() -> None:
    chance = np.random.default_rng(2)
    thin = [chance.normal(size=shape).astype(np.float32) for shape in ((24, 2), (2, 32))]
    whole, encoder = built(chance, False)
    last = Dense(chance.normal(size=(1, 24)).astype(np.float32), np.zeros(1, np.float32))
    layers = (Dense(thin[0] @ thin[1] / 8, np.zeros(24, np.float32)), Relu(), last)
    whole = Network(whole.center, whole.scale, layers, flags=True)
    less = factorise(whole, 0.9999)
    assert [la.weight.shape for la in less.layers if isinstance(la, Dense)] == [
        *((2, 32), (24, 2), (1, 24))
    ]
    assert less.parameters < whole.parameters / 4
    matrix = encoder.encode_columns(images(100).columns, 100)
    apart = scores(network.write(whole, encoder), matrix) - scores(
        network.write(less, encoder), matrix
    )
    assert np.abs(apart).max() < 1e-3
    full_rank = built(chance, False)[0]
    assert len(factorise(full_rank, 1.0).layers) == len(full_rank.layers), "nothing to be won"


def test_int8_keeps_scores_close_and_alike_in_every_batch(made: tuple[Network, Original]) -> None:
    original = made[1]
    data = variant(original, "int8")
    used = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= used
    scorer = Scorer.from_bytes(data)
    matrix = scorer.encoder.encode_columns(original.unseen.columns, 300)
    whole = scorer.score_matrix(matrix)
    assert np.abs(whole - scores(original.data, matrix)).mean() < 0.02
    for size in (1, 3, 16, 50):
        parts = [scorer.score_matrix(matrix[at : at + size]) for at in range(0, 100, size)]
        found = np.concatenate(parts)
        assert found.tobytes() == whole[: len(found)].tobytes(), size
    assert variant(original, "int8") == data


def test_a_pruned_network_learns_again_what_the_whole_one_said() -> None:
    pytest.importorskip("torch")
    learned = images(400)
    data = recipes.fit(IMAGES, learned, "mlp", {"hidden": (32,), "epochs": 20}, 7)
    original = Original(IMAGES, data, "mlp", {}, 7, learned, images(300, seed=2))
    scorer = Scorer.from_bytes(data)
    matrix = scorer.encoder.encode_columns(original.unseen.columns, 300)
    before = scorer.score_matrix(matrix)
    raw = scores(network.write(prune(network.read(data), 0.5), scorer.encoder), matrix)
    pruned = variant(original, "prune", 0.5)
    assert hidden_widths(network.read(pruned).layers) == [16]
    assert np.abs(scores(pruned, matrix) - before).mean() < 0.7 * np.abs(raw - before).mean()
    assert variant(original, "prune", 0.5) == pruned


@pytest.mark.parametrize("method", ["int8", "prune", "low_rank"])
def test_a_variant_keeps_what_its_file_says(made: tuple[Network, Original], method: str) -> None:
    if method == "prune":
        pytest.importorskip("torch")
    data = variant(made[1], method)
    assert note(data, THRESHOLD) == "0.25"
    assert note(data, CURVES) == "{}"


def test_fewer_trees_learn_what_many_say() -> None:
    given = {"iterations": 60, "min_leaf": 20}
    learned = rows(1_000)
    data = recipes.fit(WEAR, learned, "gradient_boosting", given, 7)
    original = Original(WEAR, data, "gradient_boosting", given, 7, learned, rows(400, seed=3))
    [before, student] = table(original, ["distil"], EASY, 0.25)
    assert student.bytes < before.bytes / 2
    assert student.difference < 0.15
    assert student.auc > 0.75
    node = onnx.load_model_from_string(student.data).graph.node[0]
    trees = next(a for a in node.attribute if a.name == "nodes_treeids").ints
    assert len(set(trees)) == 15


def test_a_method_that_does_not_fit_is_a_line_with_its_reason() -> None:
    learned = rows(300)
    data = recipes.fit(WEAR, learned, "logistic_regression", {}, 7)
    original = Original(WEAR, data, "logistic_regression", {}, 7, learned, rows(100, seed=3))
    found = table(original, variants.METHODS, EASY)
    assert [line.method for line in found] == ["original", *variants.METHODS]
    for line in found[1:]:
        assert line.data is None
        assert "networks" in line.reason or "no smaller student" in line.reason
    with pytest.raises(CannotTrain, match="no smaller student"):
        variant(original, "distil")


def test_the_gate_refuses_lost_quality_and_other_answers() -> None:
    policy = CompressionPolicy(max_loss_ratio=1.1, max_difference=0.05, min_rows=50)
    assert verdict(policy, gates(policy, 0.43, 0.40, 0.01, 100)) == ""
    worse = gates(policy, 0.45, 0.40, 0.01, 100)
    assert verdict(policy, worse) == "compressed log loss 0.4500 > 0.4400"
    assert [gate["passed"] for gate in worse] == [False, True]
    other = verdict(policy, gates(policy, 0.40, 0.40, 0.2, 100))
    assert other == "score difference 0.2000 > 0.0500"
    assert "49 rows to judge by, 50" in verdict(policy, gates(policy, 0.4, 0.4, 0.0, 49))


def test_a_variant_that_ruins_the_scores_is_refused(made: tuple[Network, Original]) -> None:
    pytest.importorskip("torch")
    strict = CompressionPolicy(max_loss_ratio=1.0001, max_difference=1e-6)
    found = table(made[1], ["prune"], strict, 0.9)
    assert found[1].reason.startswith(("compressed log loss", "score difference"))
