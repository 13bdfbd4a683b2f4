"""Scores served vectors with an ONNX file: the same bits in every batch, nothing but the expected file.

Bit equality holds because one thread runs the session (no split of rows or trees that depends on the
batch), tree leaves are added in the order of the trees, and files with vectorised functions say in
their metadata to what multiple of rows a batch is filled up. Large batches go to a device where one
is in use (see `kernels.dispatch`) and gives the same bits (see `models.device_scorer`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from kernels import dispatch
from kernels.gpu.runtime import DeviceFailed
from models.artifacts import ArtifactRefused, read_verified
from models.device_scorer import DeviceScorer
from models.encoder import Encoder
from models.ensembles import NotSupported
from models.onnx_graph import METADATA, OPERATORS, PAD, THRESHOLD, with_note
from models.parity import PARITY, TOLERANCE, largest_difference, picked, sample

__all__ = ["ArtifactRefused", "Scorer"]

logger = logging.getLogger(__name__)
MAX_PAD = 64
_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml"))


class Scorer:
    """A loaded model. Thread-safe; `encoder` names the features that it reads."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        encoder: Encoder,
        rows: int,
        model: onnx.ModelProto,
    ) -> None:
        self._session = session
        self._rows = rows
        self._model = model
        self.encoder = encoder

    @classmethod
    def load(cls, path: Path, sha256: str) -> Scorer:
        """Raises ArtifactRefused unless the file has this SHA-256 and is a driftlog ONNX model."""
        return cls.from_bytes(read_verified(path, sha256))

    @classmethod
    def from_bytes(cls, data: bytes) -> Scorer:
        """Raises ArtifactRefused unless the bytes are a driftlog ONNX model."""
        try:
            model = onnx.load_model_from_string(data)
        except Exception as error:  # protobuf's DecodeError, or whatever else the bytes lead it to
            raise ArtifactRefused("not an ONNX file") from error
        encoder, rows = _inspect(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
            scorer = cls(session, encoder, rows, model)
            probe = scorer.score([{}, {}])
        except Exception as error:  # onnxruntime has a class of exception for each status code
            raise ArtifactRefused(f"onnxruntime does not run it: {_line(error)}") from error
        if probe.shape != (2,) or not np.all((probe >= 0) & (probe <= 1)):
            raise ArtifactRefused("its scores are no probabilities")
        scorer._check_parity()
        return scorer

    @property
    def task(self) -> str:
        return self.encoder.task

    @cached_property
    def threshold(self) -> float | None:
        """Scores from here on decide 1; None where the task's threshold holds."""
        told = self._note(THRESHOLD)
        return None if told is None else float(told)

    def _note(self, key: str) -> str | None:
        return next((item.value for item in self._model.metadata_props if item.key == key), None)

    def _check_parity(self) -> None:
        """Raises ArtifactRefused if the file's own sample is scored differently here."""
        told = self._note(PARITY)
        if told is None:
            return
        try:
            apart = largest_difference(told, self._by_onnx)
        except Exception as error:  # whatever the runtime makes of rows that do not fit
            raise ArtifactRefused(f"its parity sample does not run: {_line(error)}") from error
        if not apart <= TOLERANCE:
            raise ArtifactRefused(
                f"its parity sample is scored differently here, by {apart:.2g}: another runtime?"
            )

    def score(self, vectors: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """P(label 1) per vector, shape (n,). A feature that is absent or None is missing.

        Raises ValueError or TypeError for text where a number belongs.
        """
        return self.score_matrix(self.encoder.encode(vectors))

    def score_columns(self, columns: Mapping[str, Any], rows: int) -> NDArray[np.float64]:
        """As `score`, of one sequence of values a feature."""
        return self.score_matrix(self.encoder.encode_columns(columns, rows))

    def score_matrix(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """As `score`, of encoded rows (n, features)."""
        if len(matrix) == 0:
            return np.empty(0, dtype=np.float64)
        if (device := dispatch.in_use()) and (kernels := self._on_device):
            values = kernels.values(len(matrix))
            if device.wants(kernels.kernel, values):
                return kernels.score(matrix).astype(np.float64)
        return self._by_onnx(matrix)

    @cached_property
    def _on_device(self) -> DeviceScorer | None:
        """The kernels' form of the file; None if they have none, or one that differs in a bit."""
        try:
            made = DeviceScorer(self._model, self._rows)
            if made.agrees(self._by_onnx):
                return made
        except NotSupported:
            return None
        except DeviceFailed as error:
            logger.warning("%s: ONNX Runtime scores it: %s", self.task, error)
            return None
        logger.warning("%s: the kernels score it with other bits: ONNX Runtime does it", self.task)
        return None

    def _by_onnx(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        count = len(matrix)
        short = -count % self._rows
        if short:
            matrix = np.concatenate([matrix, np.repeat(matrix[-1:], short, axis=0)])
        scores = self._session.run(["score"], {"features": matrix})[0]
        return np.asarray(scores[:count], dtype=np.float64)


def with_sample(data: bytes, columns: Mapping[str, Any], rows: int) -> bytes:
    """The file with a few of these rows and its scores in it (see `models.parity`)."""
    scorer = Scorer.from_bytes(data)
    chosen = picked({code.name: columns[code.name] for code in scorer.encoder.features}, rows)
    matrix = scorer.encoder.encode_columns(chosen, len(next(iter(chosen.values()), ())))
    return with_note(data, PARITY, sample(matrix, scorer._by_onnx(matrix)))


def _inspect(model: onnx.ModelProto) -> tuple[Encoder, int]:
    """The code book and row multiple of a file whose parts are all known; raises ArtifactRefused."""
    graph = model.graph
    properties = {item.key: item.value for item in model.metadata_props}
    try:
        encoder = Encoder.from_json(properties[METADATA])
        rows = int(properties[PAD])
        threshold = float(properties.get(THRESHOLD, 0.5))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactRefused(
            f"its metadata names no features of a task: {_line(error)}"
        ) from error
    if not 0 <= threshold <= 1:
        raise ArtifactRefused(f"its decision threshold is {threshold}")
    if not 1 <= rows <= MAX_PAD:
        raise ArtifactRefused(f"it wants batches in multiples of {rows} rows")
    if _signature(graph.input) != [("features", onnx.TensorProto.FLOAT, [None, encoder.width])]:
        raise ArtifactRefused("its input is not 'features' float32 (n, columns of its features)")
    if _signature(graph.output) != [("score", onnx.TensorProto.FLOAT, [None])]:
        raise ArtifactRefused("its output is not 'score' float32 (n)")
    if model.functions or graph.sparse_initializer:
        raise ArtifactRefused("it has functions or sparse values of its own")
    for node in graph.node:
        if node.domain not in _DOMAINS or node.op_type not in OPERATORS:
            raise ArtifactRefused(f"it uses the operator {node.domain or 'ai.onnx'}.{node.op_type}")
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ArtifactRefused("its values lie outside the file")
    if not all(np.isfinite(values).all() for values in _floats(graph)):
        raise ArtifactRefused("its parameters are not all finite")
    return encoder, rows


def _signature(values: Sequence[Any]) -> list[tuple[str, int, list[int | None]]]:
    """(name, element type, shape) each; a free dimension is None."""
    found = []
    for value in values:
        tensor = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        found.append((value.name, tensor.elem_type, shape))
    return found


def _floats(graph: onnx.GraphProto) -> Iterator[Any]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name != "replaced_value_float":  # of an Imputer: NaN is what it looks for
                yield attribute.f
            yield np.asarray(attribute.floats)
            if attribute.HasField("t") or attribute.HasField("g"):
                yield math.nan  # tensors and graphs inside a node are not ours
    for tensor in graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
            yield onnx.numpy_helper.to_array(tensor)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
