"""Networks that start from the weights of others: what is copied, what stays as it is, what is told of it."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.digits import seen
from models import network, onnx_graph, recipes
from models.artifacts import ArtifactStore
from models.compression.distillation import distil
from models.dataset import Dataset
from models.gates import log_loss
from models.network import Conv, Dense
from models.recipes import CannotTrain, checkpoints
from models.recipes.transfer import start
from models.scorer import Scorer
from models.starts import located, told
from streams.task import Numeric, Recipe, Task
from tests.unit.models.memory_trainer import MemoryLog, run_trainer
from tests.unit.models.model_parts import START_MS, UNTIL_MS, asked
from tests.unit.models.test_networks import CNN, IMAGES, images

torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'deep'")
DIGITS = Task("digits", tuple(Numeric(f"p{n:02}") for n in range(64)), label="x")
LARGE = {"channels": (8, 16), "hidden": 32}


def digits(least: int, part: slice, seed: int) -> Dataset:
    """Real digits of 8 x 8 pixels as a camera sees them: is it `least` or more? `part`: of all, shuffled."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    chosen = np.random.default_rng(0).permutation(len(bunch.target))[part]
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    pixels = np.array([seen(bunch.images[n], rng, noise).ravel() for n in chosen])
    times = START_MS + np.arange(len(chosen), dtype=np.int64) * 60_000
    columns = {f"p{n:02}": pixels[:, n] for n in range(64)}
    labels = (bunch.target[chosen] >= least).astype(np.int8)
    return Dataset(np.array([str(n) for n in chosen], object), times, labels, times + 1, columns)


def convolutions(data: bytes) -> list[Conv]:
    return [layer for layer in network.read(data).layers if isinstance(layer, Conv)]


@pytest.fixture(scope="module")
def base() -> bytes:
    return recipes.fit(IMAGES, images(200), "cnn", CNN, 3)


@pytest.fixture
def file(base: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "base.onnx"
    path.write_bytes(base)
    return path


def fitted(path: Path, rows: Dataset | None = None, **more: Any) -> bytes:
    given = {**CNN, "pretrained": str(path), **more}
    return recipes.fit(IMAGES, rows or images(120, seed=5), "cnn", given, 7)


def test_few_labels_are_enough_where_a_like_question_was_learned(tmp_path: Path) -> None:
    """Learned from 1,200 images: 5 or more? Asked, with the labels of 40 others: 4 or more?"""
    before = digits(5, slice(1_200), 1)
    file = tmp_path / "five.onnx"
    file.write_bytes(recipes.fit(DIGITS, before, "cnn", {**LARGE, "epochs": 12}, 7))
    few, rest = digits(4, slice(1_200, 1_240), 2), digits(4, slice(1_240, None), 3)

    def loss(**more: Any) -> float:
        given = {**LARGE, "epochs": 15, "batch": 16, "validation_share": 0.0, **more}
        scorer = Scorer.from_bytes(recipes.fit(DIGITS, few, "cnn", given, 7))
        return log_loss(rest.labels, scorer.score_columns(rest.columns, len(rest)))

    scratch, freeze = loss(), {"pretrained": str(file), "freeze": 6}
    assert loss(**freeze) < 0.85 * scratch
    assert loss(**freeze, reuse="body") < 0.75 * scratch


def test_frozen_convolutions_stay_to_the_last_bit(base: bytes, file: Path) -> None:
    for before, after in zip(
        convolutions(base), convolutions(fitted(file, freeze="always")), strict=True
    ):
        assert before.weight.tobytes() == after.weight.tobytes()
        assert before.bias.tobytes() == after.bias.tobytes()
    tuned = convolutions(fitted(file, freeze=1, validation_share=0.0))
    assert tuned[0].weight.tobytes() != convolutions(base)[0].weight.tobytes()


def test_what_is_reused_is_where_the_training_starts(base: bytes, file: Path) -> None:
    """No step is large enough to change a weight much: what comes out is what went in."""
    still = {"learning_rate": 1e-9, "weight_decay": 0.0, "epochs": 1}
    scorer = Scorer.from_bytes(base)
    matrix = scorer.encoder.encode_columns(images(50, seed=8).columns, 50)
    before = scorer.score_matrix(matrix)
    apart = {
        reuse: np.abs(
            Scorer.from_bytes(fitted(file, reuse=reuse, **still)).score_matrix(matrix) - before
        ).max()
        for reuse in ("all", "body", "convolutions")
    }
    assert apart["all"] < 1e-5
    # The head is chance's, or the last layer alone.
    assert min(apart["convolutions"], apart["body"]) > 0.01


def test_the_same_start_gives_the_same_bytes_and_the_file_tells_it(file: Path) -> None:
    made = fitted(file, freeze=1)
    assert fitted(file, freeze=1) == made
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert onnx_graph.note(made, onnx_graph.WEIGHTS) == f"base.onnx {digest}"
    assert fitted(file, freeze=1, pretrained_sha256=digest) == made
    with pytest.raises(CannotTrain, match=f"its SHA-256 is {digest}, pretrained_sha256 says 00"):
        fitted(file, pretrained_sha256="00")


def test_a_training_that_was_killed_goes_on_frozen_or_not(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**CNN, "pretrained": str(file), "freeze": 2, "epochs": 4}
    whole = recipes.fit(IMAGES, images(120), "cnn", given, 7)
    save = checkpoints.save

    def then_die(path: Path, standing: checkpoints.Standing) -> None:
        save(path, standing)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", then_die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            recipes.fit(IMAGES, images(120), "cnn", given, 7, tmp_path / "checkpoints")
    monkeypatch.setattr(checkpoints, "save", save)
    assert recipes.fit(IMAGES, images(120), "cnn", given, 7, tmp_path / "checkpoints") == whole
    other = {**given, "pretrained": "", "freeze": 0}
    recipes.fit(IMAGES, images(120), "cnn", other, 7, tmp_path / "checkpoints")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2, "another start, another place"


def test_safetensors_of_a_network_of_another_make_are_a_start_too(
    base: bytes, tmp_path: Path
) -> None:
    """Names in their natural order, as a torch module's; what is no layer is left."""
    from safetensors.numpy import save_file

    chance = np.random.default_rng(1)
    first = chance.normal(0, 0.3, (3, 1, 3, 3)).astype(np.float32)
    second = chance.normal(0, 0.3, (5, 3, 3, 3)).astype(np.float32)
    tensors = {
        "features.10.weight": second,
        "features.10.bias": np.ones(5, np.float32),
        "features.3.weight": first,
        "norm.weight": np.ones(3, np.float32),
    }
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    once = {"channels": (3, 5), "freeze": "always", "epochs": 1}
    one, two = convolutions(fitted(path, **once))
    assert one.weight.tobytes() == first.tobytes()
    assert one.bias.tolist() == [0, 0, 0]
    assert two.weight.tobytes() == second.tobytes()
    assert two.bias.tolist() == [1] * 5
    [alone] = convolutions(fitted(path, **{**once, "channels": (3,)}))  # the first ones of more
    assert alone.weight.tobytes() == first.tobytes()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"channels": (6,)}, r"its channels are \[4\], here channels=\[6\]"),
        ({"channels": (4, 4)}, r"4x1x3x3, those of this network 4x1x3x3 \+ 4x4x3x3"),
        ({"reuse": "all", "hidden": 9}, r"8x16 \+ 1x8, those of this network .* 9x16 \+ 1x9"),
        ({"reuse": "body", "hidden": 9}, "8x16, those of this network .* 9x16:"),
        ({"reuse": "head"}, "one of 'convolutions', 'body', 'all'"),
        ({"freeze": -1}, "a number of epochs, or 'always'"),
        ({"freeze": True}, "a number of epochs, or 'always'"),
        ({"freeze": 1, "pretrained": ""}, "say pretrained="),
        ({"pretrained": "nowhere.onnx"}, "No such file"),
        ({"pretrained": "package:no_such_package/x.onnx"}, "no package 'no_such_package'"),
        ({"pretrained": "champion"}, "only a trainer knows versions"),
        ({"pretrained": "version:digits-1"}, "only a trainer knows versions"),
    ],
)
def test_what_is_no_start_says_why(file: Path, more: dict[str, Any], why: str) -> None:
    with pytest.raises(CannotTrain, match=why):
        fitted(file, **more)


def test_files_of_other_kinds_are_refused(file: Path, tmp_path: Path) -> None:
    mlp = recipes.fit(IMAGES, images(100), "mlp", {"hidden": (4,), "epochs": 1}, 7)
    for name, content, why in (
        ("mlp.onnx", mlp, "it has no convolutions"),
        ("prior.onnx", recipes.constant(IMAGES, None, 0), "no neural network of recipe mlp or cnn"),
        ("noise.onnx", b"\x00\xff noise", r"ends in \.safetensors"),
        ("cut.safetensors", b"\x10\x00", "pretrained="),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CannotTrain, match=why):
            start(str(tmp_path / name), "")


def test_a_student_of_a_transferred_network_starts_by_chance(file: Path) -> None:
    made = fitted(file)
    given = {**CNN, "pretrained": "version:images-2", "pretrained_sha256": "00", "freeze": 1}
    student = distil(IMAGES, images(120), Scorer.from_bytes(made), "cnn", given, 7, 0.5)
    assert len(convolutions(student)[0].bias) == 2
    assert isinstance(network.read(student).layers[-1], Dense)


TASK = replace(
    IMAGES,
    gate=replace(IMAGES.gate, min_rows=20),
    quality=replace(IMAGES.quality, leakage=False),
    recipe=Recipe("cnn", {**CNN, "pretrained": "champion", "freeze": 1, "epochs": 2}),
)


def pixels(shift: int = 0, seed: int = 1) -> Dataset:
    """Images over 20 days, their labels known within minutes."""
    found = images(400, seed)
    times = START_MS + shift + np.arange(400, dtype=np.int64) * ((UNTIL_MS - START_MS) // 400)
    return replace(found, times=times, label_times=times + 60_000)


def parameters(log: MemoryLog, version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(log.state.versions[version].parameters)
    return found


def test_the_log_tells_which_version_a_training_started_from(tmp_path: Path) -> None:
    """The first network starts by chance, the second from the first; a version to come is refused."""
    log = MemoryLog(task=TASK)
    run_trainer(TASK, pixels(), log, tmp_path)  # the cold start
    log.say(asked("r1", UNTIL_MS, "images"))
    run_trainer(TASK, pixels(), log, tmp_path)
    first = parameters(log, "images-1")
    assert (first["pretrained"], first["freeze"]) == ("", 0)
    log.say(asked("r2", UNTIL_MS, "images"))
    store = run_trainer(TASK, pixels(seed=2), log, tmp_path)
    second, champion = parameters(log, "images-2"), log.state.versions["images-1"]
    assert second["pretrained"] == "version:images-1"
    assert second["pretrained_sha256"] == champion.artifact
    assert second["freeze"] == 1
    made = store.read(log.state.versions["images-2"].path, log.state.versions["images-2"].artifact)
    assert (
        onnx_graph.note(made, onnx_graph.WEIGHTS) == f"{champion.artifact}.onnx {champion.artifact}"
    )
    assert str(tmp_path) not in log.state.versions["images-2"].parameters


def test_an_earlier_try_stands_even_if_another_version_answers_by_now(tmp_path: Path) -> None:
    log = MemoryLog(task=TASK)
    run_trainer(TASK, pixels(), log, tmp_path)
    log.say(asked("r1", UNTIL_MS, "images"))
    run_trainer(TASK, pixels(), log, tmp_path)
    started = {"pretrained": "version:images-1", "pretrained_sha256": "ab", "freeze": 1}
    again = told(TASK, log.state, None, started)
    assert again.recipe.parameters["pretrained"] == "version:images-1"
    assert again.recipe.parameters["pretrained_sha256"] == "ab"
    file = located(again, log.state, ArtifactStore(tmp_path)).recipe.parameters["pretrained"]
    assert file.startswith(str(tmp_path))


def named(name: str, **more: Any) -> Task:
    given = {**TASK.recipe.parameters, "pretrained": name, **more}
    return replace(TASK, recipe=replace(TASK.recipe, parameters=given))


def test_a_start_that_has_seen_what_judges_is_refused(tmp_path: Path) -> None:
    log = MemoryLog(task=TASK)
    run_trainer(TASK, pixels(), log, tmp_path)
    log.say(asked("r1", UNTIL_MS, "images"))
    run_trainer(TASK, pixels(), log, tmp_path)
    with pytest.raises(CannotTrain, match="has learned from rows that would judge the result"):
        told(named("version:images-1"), log.state, "images-0")
    assert told(named("version:images-1"), log.state, "images-1") != TASK
    elsewhere = replace(named("version:images-1"), name="photographs")
    assert told(elsewhere, log.state, None).recipe.parameters["pretrained_sha256"]
    with pytest.raises(CannotTrain, match="the log knows no such version"):
        told(named("version:images-9"), log.state, "images-1")
    with pytest.raises(CannotTrain, match="pretrained_sha256 says 00"):
        told(named("version:images-1", pretrained_sha256="00"), log.state, "images-1")


def test_a_file_is_told_by_its_hash(file: Path) -> None:
    task = told(named(str(file)), MemoryLog().state, None)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert task.recipe.parameters["pretrained_sha256"] == digest
    assert told(IMAGES, MemoryLog().state, None) is IMAGES
