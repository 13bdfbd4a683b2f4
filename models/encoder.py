"""From served vectors to the model's input matrix; the code book travels inside the ONNX file as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import text_code
from models.text_code import TextCode

FORMAT = 1
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class FeatureCode:
    """How one feature becomes a number. `categories` is None for a numeric feature.

    A missing value is NaN; a category that the training data did not have is `unknown`. A free text becomes
    several numbers, as `text` says.
    """

    name: str
    categories: Mapping[str, float] | None = None
    unknown: float = 0.0
    text: TextCode | None = None

    @property
    def kind(self) -> str:
        """As in `Task.kinds`."""
        if self.text is not None:
            return "text"
        return "double" if self.categories is None else "string"

    @property
    def width(self) -> int:
        """Columns of the model's input."""
        return 1 if self.text is None else self.text.length

    def to_json(self) -> dict[str, Any]:
        if self.text is not None:
            return {"name": self.name, "kind": "text", "text": self.text.to_json()}
        if self.categories is None:
            return {"name": self.name, "kind": "double"}
        return {
            "name": self.name,
            "kind": "string",
            "categories": dict(self.categories),
            "unknown": self.unknown,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FeatureCode:
        """Raises ValueError for anything but what `to_json` gives."""
        name, kind = data.get("name"), data.get("kind")
        if not isinstance(name, str) or kind not in ("double", "string", "text"):
            raise ValueError(f"feature {name!r} of kind {kind!r}")
        if kind == "text":
            return cls(name, text=text_code.from_json(data.get("text")))
        if kind == "double":
            return cls(name)
        categories, unknown = data.get("categories"), data.get("unknown")
        if not isinstance(categories, dict) or not all(
            isinstance(code, float) and np.isfinite(code)
            for code in [*categories.values(), unknown]
        ):
            raise ValueError(f"feature {name!r}: its categories are no finite numbers")
        return cls(name, categories, float(unknown))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Encoder:
    """The features of a task's vectors, in the order of the model's input columns."""

    task: str
    features: tuple[FeatureCode, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def width(self) -> int:
        """Columns of the model's input: one a feature, more for a text."""
        return sum(feature.width for feature in self.features)

    @property
    def places(self) -> dict[str, slice]:
        """The columns of each feature."""
        found, begin = {}, 0
        for feature in self.features:
            found[feature.name] = slice(begin, begin + feature.width)
            begin += feature.width
        return found

    def encode(self, vectors: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """Shape (len(vectors), width); an absent feature is missing."""
        columns = {name: [vector.get(name) for vector in vectors] for name in self.names}
        return self.encode_columns(columns, len(vectors))

    def encode_columns(self, columns: Mapping[str, Any], rows: int) -> NDArray[np.float32]:
        """As `encode`, of one sequence a feature; raises ValueError or TypeError for text as a number."""
        matrix = np.empty((rows, self.width), dtype=np.float32)
        for feature, place in zip(self.features, self.places.values(), strict=True):
            values = columns[feature.name]
            if feature.text is not None:
                matrix[:, place] = _numbers(feature.text, values, rows)
            else:
                matrix[:, place.start] = _encode(feature, values)
        return matrix

    def to_json(self) -> str:
        features = [feature.to_json() for feature in self.features]
        book = {"format": FORMAT, "task": self.task, "features": features}
        return json.dumps(book, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Encoder:
        """Raises ValueError for anything but what `to_json` gives."""
        book = json.loads(text)
        if not isinstance(book, dict) or book.get("format") != FORMAT:
            raise ValueError(f"not a code book of format {FORMAT}")
        if not isinstance(book.get("task"), str) or not isinstance(book.get("features"), list):
            raise ValueError("a code book without task or features")
        return cls(book["task"], tuple(FeatureCode.from_json(item) for item in book["features"]))


def _numbers(code: TextCode, texts: Any, rows: int) -> NDArray[np.float32]:
    """(rows, length); raises TypeError for what is neither text nor missing."""
    numbers = []
    for text in texts:
        if text is not None and text == text and not isinstance(text, str):
            raise TypeError(f"{text!r} where a text belongs")
        numbers.append(code.numbers(text if isinstance(text, str) else None))
    return np.array(numbers, np.float32).reshape(rows, code.length)


def _encode(feature: FeatureCode, values: Any) -> NDArray[np.float64]:
    if feature.categories is None:
        # None becomes NaN; what single precision cannot hold becomes its largest number
        return np.clip(np.asarray(values, dtype=np.float64), -_LARGEST, _LARGEST)
    codes: dict[Any, float] = {**feature.categories, None: np.nan}
    unknown = feature.unknown
    return np.fromiter((codes.get(value, unknown) for value in values), np.float64, len(values))
