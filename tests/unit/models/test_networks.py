"""Networks: what a file holds is what was trained, interrupted or not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import network, onnx_graph, plots, recipes
from models.dataset import Dataset
from models.encoder import Encoder, FeatureCode
from models.network import Conv, Dense, Flat, Network, NotANetwork, Pool, Relu
from models.recipes import CannotTrain, checkpoints, losses
from models.scorer import Scorer
from streams.task import Numeric, Task
from tests.unit.models.model_parts import WEAR, rows

IMAGES = Task("images", tuple(Numeric(f"p{n:02}") for n in range(16)), label="upper half is bright")
CNN = {"channels": (4,), "hidden": 8, "epochs": 3}


def images(count: int = 400, seed: int = 1) -> Dataset:
    """Images of 4 x 4 pixels, some unknown; the label says whether the upper half is the brighter one."""
    chance = np.random.default_rng(seed)
    pixels = chance.random((count, 16))
    labels = (pixels[:, :8].sum(axis=1) > pixels[:, 8:].sum(axis=1)).astype(np.int8)
    pixels[chance.random(pixels.shape) < 0.02] = np.nan
    times = np.arange(count, dtype=np.int64) * 60_000
    ids = np.array([f"{seed}-{n}" for n in range(count)], dtype=object)
    columns = {f"p{n:02}": pixels[:, n] for n in range(16)}
    return Dataset(ids, times, labels, times + 1, columns)


def built(chance: np.random.Generator, image: bool) -> tuple[Network, Encoder]:
    """A network with random weights."""

    def some(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return chance.normal(0, 0.5, shape).astype(np.float32)

    body: tuple[network.Layer, ...] = (Dense(some(8, 32), some(8)), Relu())
    if image:
        convolution = (Conv(some(3, 1, 3, 3), some(3)), Relu(), Pool(), Flat(12))
        body = (*convolution, Dense(some(8, 12), some(8)), Relu())
    made = Network(
        *(some(16), np.abs(some(16)), (*body, Dense(some(1, 8), some(1)))),
        image=(1, 4, 4) if image else None,
        flags=not image,
    )
    encoder = Encoder("images", tuple(FeatureCode(f"p{n:02}") for n in range(16)))
    return made, encoder


@pytest.mark.parametrize("image", [False, True])
def test_a_network_is_read_as_it_was_written_and_scores_alike_in_every_batch(image: bool) -> None:
    made, encoder = built(np.random.default_rng(3), image)
    data = network.write(made, encoder, {"note": "kept"})
    again = network.read(data)
    assert network.write(again, encoder, {"note": "kept"}) == data
    assert onnx_graph.note(data, "note") == "kept"
    scorer = Scorer.from_bytes(data)
    rows_ = images(300)
    whole = scorer.score_columns(rows_.columns, 300)
    matrix = encoder.encode_columns(rows_.columns, 300)
    for size in (1, 2, 5, 16, 33):
        parts = [scorer.score_matrix(matrix[at : at + size]) for at in range(0, 99, size)]
        found = np.concatenate(parts)
        assert found.tobytes() == whole[: len(found)].tobytes(), size


def test_an_input_beyond_all_bounds_has_a_score() -> None:
    made, encoder = built(np.random.default_rng(3), False)
    scorer = Scorer.from_bytes(network.write(made, encoder))
    scores = scorer.score([{"p00": 1e300, "p01": -1e300}, {"p00": 3e38}])
    assert np.all((scores >= 0) & (scores <= 1))


def test_a_file_of_another_recipe_is_no_network() -> None:
    with pytest.raises(NotANetwork, match="mlp or cnn"):
        network.read(recipes.constant(WEAR, None, 0))


def test_weights_of_classes_are_taken_off_the_margin_again() -> None:
    labels = np.array([1, 0, 0, 0])
    assert losses.class_weights(None, labels) == (1.0, 1.0)
    assert losses.class_weights("balanced", labels) == pytest.approx((2 / 3, 2.0))
    assert losses.margin_shift((1.0, 4.0)) == pytest.approx(np.log(4))
    for wrong in ("even", (1,), (0, 1)):
        with pytest.raises(CannotTrain, match="class_weight="):
            losses.class_weights(wrong, labels)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cnn(deep: None) -> bytes:
    return recipes.fit(IMAGES, images(), "cnn", {**CNN, "epochs": 10}, 7)


@pytest.fixture(scope="module")
def deep() -> None:
    pytest.importorskip("torch", reason="PyTorch is in the extra 'deep'")


@pytest.mark.usefixtures("deep")
class TestTrained:
    """With PyTorch."""

    def test_a_cnn_learns_from_pixels_and_leaves_its_curves(self, cnn: bytes) -> None:
        later = images(500, seed=2)
        scores = Scorer.from_bytes(cnn).score_columns(later.columns, len(later))
        assert ((scores > 0.5) == later.labels).mean() > 0.8
        curves = plots.curves(cnn)
        assert len(curves["training"]) == len(curves["validation"]) == 10
        assert curves["training"][-1] < curves["training"][0]

    @pytest.mark.parametrize(
        ("recipe", "more"), [("cnn", CNN), ("mlp", {"hidden": (8,), "epochs": 3})]
    )
    def test_a_training_that_was_killed_goes_on_to_the_same_bytes(
        self, recipe: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed after each epoch in turn: the next try begins there, not at the start."""
        data = images(200)
        more = {**more, "dropout": 0.2}
        whole = recipes.fit(IMAGES, data, recipe, more, 7)
        saved: list[int] = []
        save = checkpoints.save

        def then_die(path: Path, standing: checkpoints.Standing) -> None:
            save(path, standing)
            saved.append(standing.epochs)
            raise KeyboardInterrupt

        monkeypatch.setattr(checkpoints, "save", then_die)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                recipes.fit(IMAGES, data, recipe, more, 7, tmp_path)
        assert saved == [1, 2, 3]
        monkeypatch.setattr(checkpoints, "save", save)
        assert recipes.fit(IMAGES, data, recipe, more, 7, tmp_path) == whole
        [left] = tmp_path.iterdir()
        assert left.suffix == ".safetensors"

    def test_another_seed_or_other_rows_do_not_go_on_from_a_checkpoint(
        self, tmp_path: Path
    ) -> None:
        once = {"hidden": (4,), "epochs": 1}
        for seed, count in ((1, 100), (2, 100), (1, 120)):
            recipes.fit(IMAGES, images(count), "mlp", once, seed, tmp_path)
        assert len(list(tmp_path.iterdir())) == 3

    def test_a_broken_checkpoint_counts_as_none(self, tmp_path: Path) -> None:
        once = {"hidden": (4,), "epochs": 1}
        whole = recipes.fit(IMAGES, images(100), "mlp", once, 7, tmp_path)
        [left] = tmp_path.iterdir()
        left.write_bytes(left.read_bytes()[:100])
        assert recipes.fit(IMAGES, images(100), "mlp", once, 7, tmp_path) == whole

    def test_a_score_stays_a_probability_under_class_weights(self) -> None:
        """A label that the features do not tell: the score is its share, however the classes weigh."""
        data = rows(1_200, noise=0.0)
        rare = (np.random.default_rng(0).random(len(data)) < 0.1).astype(np.int8)
        data = replace(data, labels=rare)
        more = {"hidden": (2,), "epochs": 6, "class_weight": "balanced", "learning_rate": 0.01}
        scores = Scorer.from_bytes(recipes.fit(WEAR, data, "mlp", more, 7)).score_columns(
            data.columns, len(data)
        )
        assert scores.mean() == pytest.approx(0.1, abs=0.04)

    def test_the_focal_loss_without_focus_is_the_log_loss(self) -> None:
        import torch

        margins, labels = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
        plain = float(losses.focal_loss(margins, labels, (1.0, 1.0), 0.0))
        assert plain == pytest.approx(
            losses.log_loss_of(margins.double().numpy(), labels.numpy()), abs=1e-6
        )
        p = 1 / (1 + np.exp(-np.array([0.3, 2.0, -1.0])))
        by_hand = float((-((1 - p) ** 2) * np.log(p)).mean())
        assert float(losses.focal_loss(margins, labels, (1.0, 1.0), 2.0)) == pytest.approx(by_hand)

    @pytest.mark.parametrize(
        ("task", "recipe", "more", "why"),
        [
            (WEAR, "cnn", {}, "'colour' is no number"),
            (IMAGES, "cnn", {"shape": (3, 5)}, "16 features are no image of 3 x 5 pixels"),
            (IMAGES, "cnn", {"channels": (4, 4, 4)}, "cannot be halved 3 times"),
            (IMAGES, "mlp", {"hidden": ()}, "say the width of each hidden layer"),
            (IMAGES, "mlp", {"class_weight": "even"}, "class_weight='even'"),
        ],
    )
    def test_what_cannot_be_trained_is_said(
        self, task: Task, recipe: str, more: dict[str, Any], why: str
    ) -> None:
        data = rows(200) if task is WEAR else images(200)
        if task is WEAR:
            task = replace(WEAR, features=(*WEAR.features, Numeric("more")))
            data = replace(data, columns={**data.columns, "more": data.columns["size"]})
        with pytest.raises(CannotTrain, match=why):
            recipes.fit(task, data, recipe, more, 7)

    def test_pictures_show_losses_and_what_each_convolution_sees(self, cnn: bytes) -> None:
        pytest.importorskip("matplotlib")
        matrix = Scorer.from_bytes(cnn).encoder.encode_columns(images(5).columns, 5)
        [seen] = plots.activations(cnn, matrix)
        assert seen.shape == (5, 4, 4, 4)
        assert seen.min() >= 0
        assert seen.max() > 0
        for picture in (plots.loss_picture(cnn, "x"), plots.activation_picture(cnn, matrix, "x")):
            assert picture.startswith(b"\x89PNG")
        with pytest.raises(plots.NoPicture, match="trains in one step"):
            plots.loss_picture(recipes.constant(WEAR, None, 0), "x")
        mlp = recipes.fit(IMAGES, images(100), "mlp", {"hidden": (4,), "epochs": 1}, 7)
        with pytest.raises(plots.NoPicture, match="no convolutions"):
            plots.activations(mlp, matrix)


def test_without_pytorch_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(CannotTrain, match="install driftlog with its extra 'deep'"):
        recipes.fit(WEAR, rows(100), "mlp", {}, 7)


def test_the_curve_of_an_online_learner_is_told_before_each_label_is_learned() -> None:
    data = rows(600)
    data = replace(data, labels=(data.columns["size"] > 0.5).astype(np.int8))
    file = recipes.fit(WEAR, data, "online", {}, 7)
    curve = json.loads(onnx_graph.note(file, onnx_graph.CURVES) or "")["prequential"]
    assert len(curve) == 20
    assert np.mean(curve[-5:]) < 0.8 * curve[0]
    late = replace(data, label_times=data.label_times[::-1].copy())
    assert recipes.fit(WEAR, late, "online", {}, 7) != file, "the order of the labels counts"
