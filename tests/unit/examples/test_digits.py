"""The digits: real images, a stream whose drift is where the docstring says."""

from __future__ import annotations

from itertools import islice
from statistics import mean

import pytest

from driftlog import Ask, Truth
from driftlog.simulate.history import read_history
from examples.digits import (
    A_DAY,
    BRIGHTEST,
    DAY_MS,
    DAYS,
    PIXELS,
    START_MS,
    TURNED_DAY,
    moments,
    task,
)
from models.gates import auc, log_loss
from models.recipes import fit
from models.scorer import Scorer
from tests.unit.examples.stream import check_stream


@pytest.fixture(scope="module")
def stream() -> list[Ask | Truth]:
    return list(moments())


def test_moments_come_in_time_order_and_each_label_after_its_question(
    stream: list[Ask | Truth],
) -> None:
    check_stream(stream)


def test_a_question_is_an_image(stream: list[Ask | Truth]) -> None:
    asks = [moment for moment in stream if isinstance(moment, Ask)]
    assert len(asks) == DAYS * A_DAY
    for ask in asks[::500]:
        assert tuple(ask.instance) == task.given == PIXELS
        values = [float(value) for value in ask.instance.values()]
        assert 0 <= min(values) <= max(values) <= BRIGHTEST


def test_every_call_repeats_the_same_moments(stream: list[Ask | Truth]) -> None:
    assert list(islice(moments(), 500)) == stream[:500]


def test_half_of_the_digits_are_odd_and_nearly_all_are_typed_in(stream: list[Ask | Truth]) -> None:
    asked = {m.id: m.time for m in stream if isinstance(m, Ask)}
    truths = [m for m in stream if isinstance(m, Truth)]
    assert mean(truth.label for truth in truths) == pytest.approx(0.5, abs=0.03)
    assert len(truths) / len(asked) == pytest.approx(39 / 40, abs=0.005)
    waits = [truth.time - asked[truth.prediction_id] for truth in truths]
    assert mean(wait <= task.label_delay_ms for wait in waits) > 0.998


def test_the_cnn_reads_digits_until_the_camera_is_turned() -> None:
    pytest.importorskip("torch")
    year = read_history(task, days=TURNED_DAY + 10)
    rows = year.known(START_MS, START_MS + 20 * DAY_MS)
    recipe = task.recipe
    scorer = Scorer.from_bytes(fit(task, rows, recipe.name, {**recipe.parameters, "epochs": 6}, 7))

    def judged(since: int, until: int) -> tuple[float, float]:
        days, labels = (year.data.times - START_MS) / DAY_MS, year.data.labels
        later = year.data.where((days >= since) & (days < until) & (labels >= 0))
        scores = scorer.score_columns(later.columns, len(later))
        return log_loss(later.labels, scores), auc(later.labels, scores)

    loss, area = judged(22, TURNED_DAY)
    assert loss < 0.45
    assert area > 0.9
    assert judged(TURNED_DAY, TURNED_DAY + 10)[0] > 2 * loss
