"""A kept score is what the model would say: equal events with and without, and nothing kept for nobody."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import recipes
from models.artifacts import ArtifactStore
from models.encoder import Encoder
from models.scorer import Scorer
from models.serving import deployments
from models.serving.cache import PROBES, WORTH_S, CachedScorer, row_seconds
from models.serving.core import Champion, Request, VectorScorer, predict_all
from streams.task import Ask, RolloutPolicy, Task
from tests.unit.models.model_parts import WEAR, rows, vectors
from tests.unit.models.serving_parts import NOW_MS, flight
from tests.unit.models.test_serving_deployments import Stage, promoted, registered
from tests.unit.models.text_parts import MAIL, mails


class Counting:
    """The model, and every row that it was asked for; how many looks found what."""

    def __init__(self, scorer: Scorer) -> None:
        self.encoder: Encoder = scorer.encoder
        self.asked: list[bytes] = []
        self.hits = self.misses = 0
        self._scorer = scorer

    def score_matrix(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        self.asked += [row.tobytes() for row in matrix]
        return self._scorer.score_matrix(matrix)

    def count(self, hits: int, misses: int) -> None:
        self.hits += hits
        self.misses += misses


@cache
def model(task: str) -> tuple[Task, Scorer, list[dict[str, Any]]]:
    """A task, a model of it, and a few different rows."""
    if task == "wear":
        data = recipes.fit(WEAR, rows(400), "gradient_boosting", WEAR.recipe.parameters, 7)
        return WEAR, Scorer.from_bytes(data), vectors(rows(12, seed=3))
    data = recipes.fit(MAIL, mails(200), "text_linear", {"length": 16}, 7)
    bodies = ("late again", "late  again", "thank you", "", None, "gate 5")
    asked = [{"body": body, "hour": hour, "desk": "a"} for body in bodies for hour in (None, 0.5)]
    return MAIL, Scorer.from_bytes(data), asked


def answers(task: Task, scorer: VectorScorer, batches: Sequence[Sequence[Sequence[int]]]) -> Any:
    """What each request of each batch is answered; its rows are numbers of `model`'s."""
    who, known = Champion("v1", scorer, 0, ""), model(task.name)[2]
    found = []
    for at, batch in enumerate(batches):
        requests = [
            Request(who, [Ask(at, f"{at}.{n}.{m}", known[row]) for m, row in enumerate(one)])
            for n, one in enumerate(batch)
        ]
        for one in predict_all(task, requests, lambda _: None):
            assert isinstance(one, list)
            found.append([event.data for event in one])
    return found


BATCHES = st.lists(
    st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=5), min_size=1, max_size=4),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(
    batches=BATCHES, entries=st.sampled_from([1, 2, 5, 100]), name=st.sampled_from(["wear", "mail"])
)
def test_events_are_the_same_with_and_without(
    batches: list[list[list[int]]], entries: int, name: str
) -> None:
    task, scorer, _ = model(name)
    counting = Counting(scorer)
    cached = CachedScorer(counting, entries, counting.count)
    assert answers(task, cached, batches) == answers(task, scorer, batches)
    rows_asked = [row for batch in batches for one in batch for row in one]
    assert counting.hits + counting.misses == len(rows_asked)
    assert counting.misses == len(counting.asked)
    if entries == 100:
        assert len(set(counting.asked)) == len(counting.asked), "each row is scored once"


def test_the_rows_asked_for_last_are_kept() -> None:
    _, scorer, (a, b, c, *_) = model("wear")
    counting = Counting(scorer)
    cached = CachedScorer(counting, 2, counting.count)
    for row in (a, b, a, c):  # c takes the place of b
        cached.score([row])
    before = counting.misses
    cached.score([a, c])
    assert counting.misses == before
    cached.score([b])
    assert counting.misses == before + 1


def test_what_the_model_refuses_is_refused() -> None:
    task, scorer, known = model("wear")
    cached = CachedScorer(scorer, 10, lambda *_: None)
    who, bare = Champion("v1", cached, 0, ""), Champion("v1", scorer, 0, "")
    asks = [Ask(0, "a", known[0]), Ask(0, "b", {"size": "large"})]
    for one in (who, bare):
        fine, bad = predict_all(
            task, [Request(one, [asks[0]]), Request(one, [asks[1]])], lambda _: None
        )
        assert isinstance(fine, list) and isinstance(bad, ValueError)


def test_threads_do_not_disturb_one_another() -> None:
    _, scorer, known = model("wear")
    cached = CachedScorer(scorer, 3, lambda *_: None)
    expected = scorer.score(known).tolist()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: cached.score(known).tolist(), range(200)):
            assert found == expected


def test_a_row_takes_the_quickest_of_a_few_tries() -> None:
    _, scorer, _ = model("wear")
    times = iter([0.0, 9.0, 10.0, 12.0, 20.0, 26.0, 30.0, 34.0])
    assert row_seconds(scorer, lambda: next(times)) == 2.0 / PROBES


@pytest.mark.parametrize(
    ("entries", "takes", "kept"),
    [(10, 2 * WORTH_S, True), (10, WORTH_S / 2, False), (0, 2 * WORTH_S, False)],
)
async def test_only_a_slow_model_is_worth_a_look(
    entries: int, takes: float, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployments, "row_seconds", lambda _: takes)
    stage = Stage(ArtifactStore(tmp_path))
    stage.swapper.cache = entries
    await stage.after(registered(stage.store, "flights-1", 0.25), promoted("flights-1"))
    for _ in range(2):
        answer = await stage.service.predict("flights", {"instances": [flight(), flight()]})
        assert [one["score"] for one in answer["predictions"]] == pytest.approx([0.25, 0.25])
    assert len({event.id for event in stage.log.events}) == 4, "each answer is an event of its own"
    metrics = stage.service.metrics.text().decode()
    found = dict(
        re.findall(r'serving_cache_(hits|misses)_total{task="flights"} ([0-9.]+)', metrics)
    )
    assert found == ({"hits": "3.0", "misses": "1.0"} if kept else {})


async def test_a_version_that_was_swapped_out_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployments, "row_seconds", lambda _: 1.0)
    stage = Stage(ArtifactStore(tmp_path))
    stage.swapper.cache = 10
    stage.desk.task = replace(stage.desk.task, rollout=RolloutPolicy("blue_green"))
    await stage.after(registered(stage.store, "flights-1", 0.25), promoted("flights-1"))
    await stage.service.predict("flights", {"instances": [flight()]})
    (old,) = [stage.desk.champion]
    assert old is not None
    await stage.after(registered(stage.store, "flights-2", 0.75), promoted("flights-2", NOW_MS + 1))
    assert stage.desk.warm["flights-1"].scorer is old.scorer, "it stays loaded"
    answer = await stage.service.predict("flights", {"instances": [flight()]})
    assert answer["predictions"][0]["score"] == pytest.approx(0.75)
    back = promoted("flights-1", NOW_MS + 2, "ModelRolledBack")
    await stage.after(back)
    answer = await stage.service.predict("flights", {"instances": [flight()]})
    assert answer["predictions"][0]["score"] == pytest.approx(0.25)
    metrics = stage.service.metrics.text().decode()
    assert 'serving_cache_misses_total{task="flights"} 3.0' in metrics
