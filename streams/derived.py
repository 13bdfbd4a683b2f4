"""Derived columns: one number per row out of many features, so that a histogram shows what none of them does.

A change of correlation leaves every single column as it was; the distance from the plane in which the
reference lies (its leading principal components) shows it. Of an embedding no single coordinate means
anything: its distance from the reference's centroid and from its plane do. What is frozen travels in
ModelRegistered; each row's number then is a column like any other, mergeable and exact. A text has no bins
of its own either: see `streams.texts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.projection import cosine_distance, reconstruction_error
from streams.texts import WordBook, Words

Floats = NDArray[np.float64]

PCA_ERROR = "pca_error"
"""Reconstruction error of standardised features; a missing value counts as the reference's mean."""
EMBEDDING_ERROR = "embedding_error"
"""Reconstruction error of an embedding; missing if a coordinate is."""
COSINE_DISTANCE = "cosine_distance"
"""1 - cosine to the reference's centroid; missing if a coordinate is, or if all are 0."""

TEXT_LENGTH = "text_length"
"""Words of a text; this and the next two are missing where the text is."""
UNKNOWN_WORDS = "unknown_words"
"""Share of a text's words that the reference does not know; missing without words."""
SURPRISE = "surprise"
"""Mean bits a word under the reference's frequencies; missing without words."""
OF_TEXT = (TEXT_LENGTH, UNKNOWN_WORDS, SURPRISE)
KNOWN = (PCA_ERROR, EMBEDDING_ERROR, COSINE_DISTANCE, *OF_TEXT)


@dataclass(frozen=True, slots=True)
class Transform:
    """How one derived column is computed: the `transform` of a `ReferenceColumn` and its numbers.

    Of a text: `center` are the hashes of the known words, `scale` their bits, `components` those of others.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    center: Floats
    scale: Floats
    components: Floats
    """(c, d)"""

    @classmethod
    def of(cls, column: Mapping[str, Any]) -> Transform:
        """Raises ValueError for a transform that this version does not know."""
        if column["transform"] not in KNOWN:
            raise ValueError(
                f"column {column['name']}: transform {column['transform']!r} is none of"
                f" {', '.join(KNOWN)}; was the model registered by a newer version?"
            )
        inputs = tuple(column["inputs"])
        return cls(
            column["name"],
            column["transform"],
            inputs,
            np.array(column["center"], np.float64),
            np.array(column["scale"], np.float64),
            np.array(column["components"], np.float64).reshape(-1, len(inputs)),
        )

    def __call__(self, x: Floats) -> Floats:
        """x: (d, n), the inputs in order. The column, shape (n,)."""
        if self.kind == COSINE_DISTANCE:
            return cosine_distance(x, self.center)
        impute = self.kind == PCA_ERROR
        return reconstruction_error(x, self.center, self.scale, self.components, impute=impute)

    def of_words(self, found: Words) -> Floats:
        """The column of a text, shape (n,)."""
        if self.kind == TEXT_LENGTH:
            return found.counts
        book = WordBook(self.center, self.scale, float(self.components.sum()))
        return book.unknown(found) if self.kind == UNKNOWN_WORDS else book.surprise(found)


@dataclass(frozen=True, slots=True)
class Derived:
    """The derived columns of one model version."""

    transforms: tuple[Transform, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(transform.name for transform in self.transforms)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Features that are needed, each once."""
        return tuple(dict.fromkeys(name for t in self.transforms for name in t.inputs))

    def columns(self, values: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
        """The derived columns, shape (n,), of features of shape (n,); NaN (of a text: None) is missing.

        A row's bits depend on that row alone, not on the batch that it comes in.
        """
        made: dict[str, Floats] = {}
        stacked: dict[tuple[str, ...], Floats] = {}
        texts: dict[str, Words] = {}
        for transform in self.transforms:
            if transform.kind in OF_TEXT:
                name = transform.inputs[0]
                if name not in texts:
                    texts[name] = Words.of(values[name])
                made[transform.name] = transform.of_words(texts[name])
                continue
            if transform.inputs not in stacked:
                stacked[transform.inputs] = np.array(
                    [values[name] for name in transform.inputs], np.float64
                )
            made[transform.name] = transform(stacked[transform.inputs])
        return made

    def row(self, values: Mapping[str, Any]) -> dict[str, float]:
        """The derived columns of one row (None, NaN and absent are missing): the bits of `columns`."""
        texts = {name for t in self.transforms if t.kind in OF_TEXT for name in t.inputs}
        column = {
            name: np.array([values.get(name)], object if name in texts else np.float64)
            for name in self.inputs
        }
        return {name: float(made[0]) for name, made in self.columns(column).items()}


def from_reference(reference: Iterable[Mapping[str, Any]]) -> Derived | None:
    """The derived columns among a model's `ReferenceColumn`s; None if there are none."""
    transforms = tuple(Transform.of(c) for c in reference if c.get("inputs"))
    return Derived(transforms) if transforms else None
