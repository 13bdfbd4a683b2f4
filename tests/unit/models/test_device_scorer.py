"""A file's scores do not say which device computed them."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest

import kernels
from kernels.gpu.emulator import Emulator
from kernels.gpu.runtime import DeviceFailed
from models import device_scorer, recipes
from models.device_scorer import DeviceScorer
from models.scorer import Scorer
from tests.unit.models.model_parts import WEAR, rows

KERNELS = {"gradient_boosting": "trees", "logistic_regression": "linear"}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    data = rows(800)
    return {name: recipes.fit(WEAR, data, name, {}, 7) for name in (*KERNELS, "constant")}


@pytest.fixture
def emulator_in_use() -> kernels.Device:
    device = kernels.Device(Emulator(), "emulator", otherwise=1)
    kernels.use(device)
    yield device
    kernels.use(None)


def calls(kernel: str) -> int:
    return kernels.used().get(kernel, {}).get("emulator", 0)


@pytest.mark.parametrize("recipe", sorted(KERNELS))
@pytest.mark.parametrize("count", [1, 17, 700])
def test_scores_have_the_same_bits_on_a_device(
    files: dict[str, bytes], recipe: str, count: int, emulator_in_use: kernels.Device
) -> None:
    data = rows(count, seed=9)
    scorer, before = Scorer.from_bytes(files[recipe]), calls(KERNELS[recipe])
    on_device = scorer.score_columns(data.columns, count)
    assert calls(KERNELS[recipe]) > before
    kernels.use(None)
    by_onnx = scorer.score_columns(data.columns, count)
    assert on_device.tobytes() == by_onnx.tobytes()


def test_small_batches_and_other_models_stay_with_onnx_runtime(files: dict[str, bytes]) -> None:
    kernels.use(kernels.Device(Emulator(), "emulator", otherwise=10**9))
    try:
        before = calls("trees"), calls("linear")
        data = rows(50)
        for name, file in files.items():
            scorer = Scorer.from_bytes(file)
            scorer.score_columns(data.columns, 50)
            if name == "constant":
                assert scorer._on_device is None
        probes = 1, 1
        assert (calls("trees") - before[0], calls("linear") - before[1]) == probes
    finally:
        kernels.use(None)


def test_kernels_with_other_bits_are_not_used(
    files: dict[str, bytes],
    emulator_in_use: kernels.Device,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A C library whose exponential rounds otherwise would give another last bit."""
    exact = device_scorer._logistic

    def another(margin: np.ndarray, out: np.ndarray) -> None:
        exact(margin, out)
        out[:] = np.nextafter(out, np.float32(1))

    monkeypatch.setattr(device_scorer, "_logistic", another)
    data = rows(60)
    with caplog.at_level(logging.WARNING):
        scorer = Scorer.from_bytes(files["gradient_boosting"])
        found = scorer.score_columns(data.columns, 60)
    assert "other bits" in caplog.text
    assert (
        found.tobytes()
        == scorer._by_onnx(scorer.encoder.encode_columns(data.columns, 60)).tobytes()
    )


def test_a_device_that_fails_leaves_the_file_to_onnx_runtime(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, emulator_in_use: kernels.Device
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise DeviceFailed("it fell off the bus")

    monkeypatch.setattr(emulator_in_use.runtime, "kernel", failing)
    data = rows(60)
    scorer = Scorer.from_bytes(files["gradient_boosting"])
    assert len(scorer.score_columns(data.columns, 60)) == 60


def test_the_probe_looks_where_scores_differ(files: dict[str, bytes]) -> None:
    kernels.use(kernels.Device(Emulator(), "emulator", otherwise=1))
    try:
        made = DeviceScorer(onnx.load_model_from_string(files["gradient_boosting"]), 1)
        seen: list[np.ndarray] = []

        def other(x: np.ndarray) -> np.ndarray:
            seen.append(x)
            return made.score(x)

        assert made.agrees(other)
        assert len(np.unique(made.score(seen[0]))) > 50 and np.isnan(seen[0]).any()
        assert not made.agrees(lambda x: np.nextafter(made.score(x), np.float32(1)))
    finally:
        kernels.use(None)
