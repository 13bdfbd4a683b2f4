"""Features watched together: what no single column shows, without false alarms, the same bits everywhere."""

from __future__ import annotations

from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom

from kernels import bin_index
from schemas.catalogue import load_schema
from streams import derived
from streams.canonical import fingerprint
from streams.derived import Derived
from streams.drift import score_drift
from streams.reference import build_reference, input_columns
from streams.task import Category, DriftPolicy, Numeric, Task, TaskError

Floats = NDArray[np.float64]
NAMES = ("a", "b", "c", "d", "e", "f")
KINDS: dict[str, Any] = dict.fromkeys(NAMES, "double")
POLICY = DriftPolicy(multivariate=True, min_rows=50, min_psi=0.0)
EMBEDDED = DriftPolicy(embeddings={"text": NAMES}, min_rows=50, min_psi=0.0)


def correlated(rng: np.random.Generator, rows: int, rho: float) -> dict[str, Floats]:
    """Six standard normal features, the first two with correlation rho."""
    x = rng.normal(size=(6, rows))
    x[1] = rho * x[0] + np.sqrt(1 - rho * rho) * x[1]
    return dict(zip(NAMES, x, strict=True))


def embedding(rng: np.random.Generator, rows: int, towards: int = 0) -> dict[str, Floats]:
    """Vectors around one direction, mostly in a plane."""
    x = rng.normal(size=(6, rows)) * np.array([1, 1, 0.1, 0.1, 0.1, 0.1])[:, None]
    x[towards] += 3
    return dict(zip(NAMES, x, strict=True))


def reference(columns: dict[str, Floats], policy: DriftPolicy) -> list[dict[str, Any]]:
    rows = len(columns["a"])
    return build_reference(columns, KINDS, np.zeros(rows), np.arange(rows) // 400, policy)


def judged(
    built: list[dict[str, Any]], columns: dict[str, Floats], policy: DriftPolicy
) -> dict[str, bool]:
    """Whether each column of the reference, but the score, drifted in a window of these rows."""
    made = derived.from_reference(built)
    assert made is not None
    values = {**columns, **made.columns(columns)}
    answers = {}
    for column in built[:-1]:
        index = bin_index(values[column["name"]], column["edges"])
        counts = np.bincount(index[index >= 0], minlength=len(column["counts"])).tolist()
        window = {"counts": counts, "missing": int((index < 0).sum())}
        known = {**column, "swing": 0.0, "swing_windows": 0}
        answers[column["name"]] = score_drift(known, window, len(built), policy).drifted
    return answers


def test_a_correlation_that_changes_shows_in_no_single_feature_but_in_their_error() -> None:
    rng = np.random.default_rng(1)
    built = reference(correlated(rng, 20_000, 0.8), POLICY)
    found = [judged(built, correlated(rng, 1000, 0.0), POLICY) for _ in range(50)]
    assert sum(window.pop("multivariate.error") for window in found) == 50
    assert sum(any(window.values()) for window in found) <= 3


@pytest.mark.parametrize(("rows", "references"), [(2000, 20), (20_000, 5)])
@pytest.mark.parametrize(("policy", "draw"), [(POLICY, correlated), (EMBEDDED, embedding)])
def test_without_drift_all_columns_together_raise_an_alarm_no_more_often_than_alpha(
    policy: DriftPolicy, draw: Any, rows: int, references: int
) -> None:
    rng = np.random.default_rng(rows)
    about = (0.8,) if draw is correlated else ()
    alarms = 0
    for _ in range(references):  # they differ by chance, too
        built = reference(draw(rng, rows, *about), policy)
        windows = (draw(rng, 400, *about) for _ in range(300 // references))
        alarms += sum(any(judged(built, window, policy).values()) for window in windows)
    assert alarms <= binom.ppf(0.999, 300, policy.alpha)


def test_an_embedding_is_watched_by_its_direction_and_its_plane_alone() -> None:
    rng = np.random.default_rng(2)
    built = reference(embedding(rng, 10_000), EMBEDDED)
    assert [column["name"] for column in built] == ["text.distance", "text.error", "score"]
    turned = judged(built, embedding(rng, 500, towards=1), EMBEDDED)
    assert turned["text.distance"]
    tilted = embedding(rng, 500)  # as far from the centroid as ever, but in another plane
    tilted["b"], tilted["f"] = tilted["f"], tilted["b"]
    assert judged(built, tilted, EMBEDDED) == {"text.distance": False, "text.error": True}


def columns_of(seed: int, rows: int) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    values = {name: rng.lognormal(size=rows) * 10.0 ** rng.integers(-3, 4) for name in NAMES}
    for x in values.values():
        x[rng.random(rows) < 0.05] = np.nan
        x[rng.random(rows) < 0.02] = rng.choice([np.inf, -np.inf, 1e308, 0.0])
    return values


@pytest.fixture(scope="module")
def both() -> Derived:
    policy = DriftPolicy(groups={"pair": ("a", "b", "c")}, embeddings={"text": ("d", "e", "f")})
    made = derived.from_reference(reference(columns_of(0, 4000), policy))
    assert made is not None
    return made


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 200))
def test_a_row_s_bits_depend_on_the_row_alone(
    both: Derived, seed: int, rows: int, step: int
) -> None:
    values = columns_of(seed, rows)
    whole = both.columns(values)
    parts = [
        both.columns({name: x[at : at + step] for name, x in values.items()})
        for at in range(0, rows, step)
    ]
    alone = [both.row({name: x[row] for name, x in values.items()}) for row in range(rows)]
    for name in both.names:
        assert np.concatenate([part[name] for part in parts]).tobytes() == whole[name].tobytes()
        assert np.array([row[name] for row in alone]).tobytes() == whole[name].tobytes()


def test_the_error_and_the_distance_are_what_they_are_called(both: Derived) -> None:
    rng = np.random.default_rng(4)
    values = {name: rng.normal(size=100) for name in NAMES}
    found = both.columns(values)
    for transform in both.transforms:
        x = np.array([values[name] for name in transform.inputs])
        if transform.kind == derived.COSINE_DISTANCE:
            want = 1 - transform.center @ x / np.linalg.norm(x, axis=0)
        else:
            z = (x - transform.center[:, None]) / transform.scale[:, None]
            want = np.linalg.norm(z - transform.components.T @ (transform.components @ z), axis=0)
        assert found[transform.name] == pytest.approx(want, rel=1e-9, abs=1e-9)


def test_a_missing_feature_is_average_but_a_missing_coordinate_is_no_embedding(
    both: Derived,
) -> None:
    rows = dict.fromkeys(NAMES, 1.0)
    average = both.transforms[0].center[0]
    missing = both.row({**rows, "a": None, "d": None})
    assert missing["pair.error"] == both.row({**rows, "a": float(average)})["pair.error"]
    assert np.isnan(missing["text.error"]) and np.isnan(missing["text.distance"])
    assert np.isnan(both.row({**rows, "d": 0, "e": 0, "f": 0})["text.distance"])
    assert np.isfinite(both.row({**rows, "a": float("inf")})["pair.error"])


def test_it_needs_each_input_once(both: Derived) -> None:
    assert both.names == ("pair.error", "text.distance", "text.error")
    assert both.inputs == NAMES


def test_constant_and_absent_features_do_no_harm() -> None:
    rng = np.random.default_rng(5)
    columns = correlated(rng, 2000, 0.5)
    columns["c"], columns["d"] = np.full(2000, 7.0), np.full(2000, np.nan)
    built = reference(columns, POLICY)
    assert not judged(built, {n: x[:400] for n, x in columns.items()}, POLICY)["multivariate.error"]
    columns["c"] = np.full(2000, 107.0)
    assert judged(built, columns, POLICY)["multivariate.error"]


def test_the_order_of_the_rows_does_not_matter() -> None:
    rng = np.random.default_rng(6)
    columns, windows = correlated(rng, 1200, 0.7), np.repeat(np.arange(6), 200)
    order = rng.permutation(1200)
    one, other = (
        build_reference(
            {n: x[o] for n, x in columns.items()}, KINDS, np.zeros(1200), windows[o], POLICY
        )
        for o in (np.arange(1200), order)
    )
    assert fingerprint(one) == fingerprint(other)


def test_what_is_frozen_travels_in_the_event() -> None:
    built = reference(correlated(np.random.default_rng(7), 1000, 0.5), POLICY)
    schema = load_schema("ModelRegistered")
    field = next(field for field in schema["fields"] if field["name"] == "reference")
    for column in built:
        assert fastavro.validate(column, field["type"]["items"], strict=True)


def test_a_transform_of_a_newer_version_is_named() -> None:
    column = {"name": "x", "transform": "umap", "inputs": ["a"]}
    with pytest.raises(ValueError, match="column x: transform 'umap' is none of pca_error"):
        derived.from_reference([column])


def test_a_reference_without_derived_columns_needs_nothing() -> None:
    plain = build_reference({"a": [1.0]}, KINDS, [0.5], [0], DriftPolicy(), labels=[1])
    assert derived.from_reference(plain) is None
    assert [column["name"] for column in input_columns(plain)] == ["a", "score"]


@pytest.mark.parametrize(
    ("drift", "message"),
    [
        ({"groups": {"g": ("a", "x")}}, "drift.groups: 'g': 'x' is no numeric feature"),
        ({"groups": {"g": ("a", "k")}}, "'k' is no numeric feature"),
        ({"groups": {"g": ("a", "a")}}, "needs two or more features, each once"),
        ({"groups": {"g": "ab"}}, "'ab' is text, not a tuple"),
        ({"groups": {"G": ("a", "b")}}, "use a-z, 0-9 and _"),
        ({"groups": [("a", "b")]}, "is no mapping"),
        ({"groups": {"g": ("a", "b")}, "embeddings": {"g": ("a", "b")}}, "names two groups"),
        ({"multivariate": True, "groups": {"multivariate": ("a", "b")}}, "names two groups"),
        ({"multivariate": True, "embeddings": {"e": ("a", "b")}}, "needs two or more numeric"),
    ],
)
def test_groups_that_cannot_be_watched_are_refused(drift: dict[str, Any], message: str) -> None:
    features = Numeric("a"), Numeric("b"), Category("k")
    with pytest.raises(TaskError, match=message):
        Task("toy", features, "late", drift=DriftPolicy(**drift))


def test_label_is_a_reserved_name() -> None:
    with pytest.raises(TaskError, match="'label' is reserved"):
        Task("toy", (Numeric("label"),), "late")
