"""From labelled rows to the matrix that a recipe learns from, and the code book that goes with the model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from models.dataset import Dataset
from models.encoder import Encoder, FeatureCode
from models.recipes.errors import CannotTrain
from models.text_code import TextCode
from streams.task import Task


def encode(
    task: Task,
    rows: Dataset,
    seed: int,
    smoothing: float,
    texts: TextCode | None = None,
) -> tuple[Encoder, NDArray[np.float32]]:
    """The code book, and the matrix to train on.

    A category's code is the smoothed share of positives among its rows; the codes to train on are
    cross-fitted (each row's code comes from other rows), so that rare ones do not give labels away.
    `texts`: the code of free texts; without one, raises CannotTrain for a task that has any.
    """
    codes: list[FeatureCode] = []
    fitted: dict[str, NDArray[np.float64]] = {}
    for name, kind in task.kinds.items():
        if kind == "double":
            codes.append(FeatureCode(name))
        elif kind == "string":
            code, fitted[name] = _target_code(name, rows, seed, smoothing)
            codes.append(code)
        elif texts is not None:
            codes.append(FeatureCode(name, text=texts))
        else:
            raise CannotTrain(
                f"{name!r} is free text, which this recipe does not read: use text_linear or text_transformer"
            )
    encoder = Encoder(task.name, tuple(codes))
    matrix = encoder.encode_columns(rows.columns, len(rows))
    places = encoder.places
    for name, column in fitted.items():
        matrix[:, places[name].start] = column
    return encoder, matrix


def _target_code(
    name: str, rows: Dataset, seed: int, smoothing: float
) -> tuple[FeatureCode, NDArray[np.float64]]:
    values = rows.columns[name]
    known = np.array([value is not None for value in values], dtype=np.bool_)
    column = np.full(len(values), np.nan)
    labels = rows.labels[known]
    if len(labels) < 10 or len(np.unique(labels)) < 2:
        return FeatureCode(name, {}, float(rows.labels.mean())), column
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    encoder = TargetEncoder(target_type="binary", smooth=smoothing, cv=folds)
    column[known] = encoder.fit_transform(values[known].reshape(-1, 1), labels)[:, 0]
    found = zip(encoder.categories_[0], encoder.encodings_[0], strict=True)
    shares = {str(category): float(np.float32(share)) for category, share in found}
    return FeatureCode(name, shares, float(np.float32(encoder.target_mean_))), column
