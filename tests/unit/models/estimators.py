"""Estimators as a user might bring them."""

from __future__ import annotations

from typing import Any

from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler


def pipeline(seed: int, strength: float = 1.0) -> Pipeline:
    """Products of the columns, so that a linear model sees what two of them say together."""
    return make_pipeline(
        SimpleImputer(),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(C=strength, max_iter=1000, random_state=seed),
    )


def boosted(seed: int) -> Pipeline:
    return make_pipeline(
        SimpleImputer(), GradientBoostingClassifier(n_estimators=20, random_state=seed)
    )


def perceptron(seed: int) -> Pipeline:
    return make_pipeline(
        SimpleImputer(), StandardScaler(), MLPClassifier((8,), max_iter=50, random_state=seed)
    )


def broken(seed: int) -> Any:
    raise ValueError("no such thing")


def regressor(seed: int) -> Any:
    from sklearn.linear_model import LinearRegression

    return make_pipeline(SimpleImputer(), LinearRegression())
