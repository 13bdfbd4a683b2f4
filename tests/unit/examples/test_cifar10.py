"""CIFAR-10: its files, a stream whose drift is where the docstring says, a network that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from driftlog import Ask, Numeric, Task, Truth
from examples.cifar10 import (
    A_DAY,
    ANIMALS,
    DAY_MS,
    DAYS,
    EXCHANGED_DAY,
    FOLDER,
    PIXELS,
    START_MS,
    moments,
    seen,
    task,
)
from examples.cifar10_files import CLASSES, FILES, NotCifar10, read_images
from models.dataset import Dataset
from models.foreign_graph import alike_in_any_batch
from models.gates import auc, log_loss
from models.recipes import fit
from models.scorer import Scorer
from tests.unit.examples.small_cifar10 import write_folder
from tests.unit.examples.stream import check_stream

WHOLE = Task(
    "whole", tuple(Numeric(f"p{number:04}") for number in range(3 * 32 * 32)), label="is an animal"
)
"""The images as they are in the files."""
QUICK = {"shape": (3, 32, 32), "channels": (4, 8), "hidden": 16, "epochs": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("cifar10"), 200)


def test_a_row_is_a_class_and_three_planes_of_colour(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes(bytes([0]) + bytes(3072))
    planes = b"".join(bytes([colour]) * 1024 for colour in (10, 20, 30))
    (tmp_path / FILES[1]).write_bytes(bytes([9]) + planes + bytes([3]) + bytes(range(256)) * 12)
    classes, images = read_images(tmp_path)
    assert classes.tolist() == [0, 9, 3, 0, 0, 0, 0]
    assert images.shape == (7, 3, 32, 32)
    assert [np.unique(plane).tolist() for plane in images[1]] == [[10], [20], [30]]
    assert images[2, 0, 1].tolist() == list(range(32, 64))
    assert {CLASSES[class_] for class_ in ANIMALS} == {
        *("bird", "cat", "deer", "dog", "frog", "horse")
    }


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (FILES[2], None, r"has no data_batch_3\.bin: it must hold the binary version of CIFAR-10"),
        (FILES[5], bytes(3072), "3,072 bytes are no whole number of rows of 3,073"),
        (FILES[0], b"", "0 bytes are no whole number of rows"),
        (
            FILES[1],
            bytes(3073) + bytes([10]) + bytes(3072),
            "row 2 is of class 10, there are 0 to 9",
        ),
    ],
)
def test_what_is_no_cifar10_is_said(
    tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    write_folder(tmp_path, 2)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(NotCifar10, match=why):
        read_images(tmp_path)


def test_the_folder_must_be_named_and_pickles_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(NotCifar10, match=r"set CIFAR10_FOLDER .*cifar-10-binary\.tar\.gz"):
        next(moments())
    monkeypatch.setenv(FOLDER, str(tmp_path / "nowhere"))
    with pytest.raises(NotCifar10, match="there is no folder"):
        next(moments())
    monkeypatch.setenv(FOLDER, str(tmp_path))
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04.")
    with pytest.raises(NotCifar10, match="the version for Python, whose pickles are not opened"):
        next(moments())
    write_folder(tmp_path, 2)
    with pytest.raises(NotCifar10, match="12 images are none for each of 60 days"):
        next(moments())


def test_each_image_has_its_day_and_its_colours_are_exchanged_when_it_is_said(folder: Path) -> None:
    redder: dict[bool, list[float]] = {False: [], True: []}
    asked: dict[str, tuple[int, float]] = {}
    day_of: dict[bytes, int] = {}

    def looked_at() -> Iterator[Ask | Truth]:
        for moment in moments(folder):
            yield moment
            if isinstance(moment, Truth):
                day, value = asked[moment.prediction_id]
                if moment.label == 1:
                    redder[day >= EXCHANGED_DAY].append(value)
                continue
            day = (moment.time - START_MS) // DAY_MS
            values = np.fromiter(moment.instance.values(), np.float64)
            asked[moment.id] = day, values[:256].mean() - values[512:].mean()
            assert day_of.setdefault(values.tobytes(), day) == day

    check_stream(looked_at())
    assert len(asked) == DAYS * A_DAY
    assert len(day_of) > 900
    assert mean(redder[False]) > 30  # the animals are reddish
    assert mean(redder[True]) < -30
    first = next(moments(folder))
    assert isinstance(first, Ask)
    assert tuple(first.instance) == task.given == PIXELS
    assert list(islice(moments(folder), 300)) == list(islice(moments(folder), 300))


def test_the_small_camera_sees_the_mean_of_four_pixels(folder: Path) -> None:
    image = read_images(folder)[1][7]
    small = seen(image)
    assert small.shape == (3, 16, 16)
    assert small[2, 3, 5] == image[2, 6:8, 10:12].mean()


def read_rows(folder: Path, exchanged: bool = False) -> Dataset:
    """The folder's images as labelled rows."""
    classes, images = read_images(folder)
    flat = (images[:, ::-1] if exchanged else images).reshape(len(images), -1).astype(np.float64)
    times = START_MS + np.arange(len(flat), dtype=np.int64) * 60_000
    labels = np.isin(classes, list(ANIMALS)).astype(np.int8)
    ids = np.array([f"{n}" for n in range(len(flat))], object)
    return Dataset(ids, times, labels, times + 1, dict(zip(WHOLE.vector, flat.T, strict=True)))


def test_the_cnn_reads_colours_until_they_are_exchanged(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is in the extra 'deep'")
    rows = read_rows(folder)
    data = fit(WHOLE, rows.where(rows.times < rows.times[400]), "cnn", QUICK, 7)
    scorer = Scorer.from_bytes(data)
    other = write_folder(tmp_path, 30, seed=9)
    later, turned = read_rows(other), read_rows(other, exchanged=True)
    scores = scorer.score_columns(later.columns, len(later))
    assert auc(later.labels, scores) > 0.95
    losses = [
        log_loss(one.labels, scorer.score_columns(one.columns, len(one))) for one in (later, turned)
    ]
    assert losses[1] > 1.5 * losses[0]
    matrix = scorer.encoder.encode_columns(later.columns, len(later))
    assert alike_in_any_batch(scorer, matrix[:33])


def test_each_colour_is_standardised_by_itself(folder: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is in the extra 'deep'")
    from models.network import read

    rows = read_rows(folder)
    rows = rows.where(rows.times < rows.times[120])
    shifted = {n: v + 1000 * (n >= "p2048") for n, v in rows.columns.items()}
    once = {**QUICK, "epochs": 1}
    plain, other = (
        read(fit(WHOLE, one, "cnn", once, 7)) for one in (rows, replace(rows, columns=shifted))
    )
    assert np.ptp(plain.center[2048:]) == 0
    assert other.center[2048] - plain.center[2048] == pytest.approx(1000, rel=1e-4)
    assert other.center[:2048].tolist() == plain.center[:2048].tolist()
    assert other.scale == pytest.approx(plain.scale, rel=1e-3)
