"""The servers that `benchmarks.serving` compares with: the same ONNX file without any log.

    python -m benchmarks.serving_arms bare PORT FOLDER

`bare`: FastAPI with a pydantic model of the body, uvloop and httptools, ONNX Runtime called in the handler,
as a good user would write it. MLServer and BentoML run the files that `mlserver_files` and `bentoml_files`
write, with interpreters of their own; nothing of driftlog is imported there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, create_model

MODEL, CODES = "model.onnx", "codes.json"


class Prediction(BaseModel):
    score: float
    label: int


class Answer(BaseModel):
    model_version: str
    predictions: list[Prediction]


def bare(folder: Path) -> FastAPI:
    """One route, `POST /predict`: {"instances": [{feature: value, ...}, ...]}."""
    codes = json.loads((folder / CODES).read_text())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / MODEL), options)
    kinds = {
        name: (float | None if book is None else str | None, ...) for name, book in codes.items()
    }
    Row = create_model("Row", __config__=ConfigDict(extra="forbid"), **kinds)  # type: ignore[call-overload]  # noqa: N806

    class Body(BaseModel):
        instances: list[Row] = Field(min_length=1, max_length=1_000)  # type: ignore[valid-type]

    app = FastAPI()

    def number(name: str, value: float | str | None) -> float:
        if value is None:
            return float("nan")
        book = codes[name]
        return value if book is None else book["categories"].get(value, book["unknown"])

    async def predict(body: Body) -> Answer:
        rows = [[number(name, getattr(row, name)) for name in codes] for row in body.instances]
        scores = session.run(["score"], {"features": np.array(rows, dtype=np.float32)})[0]
        return Answer(
            model_version="bench-1",
            predictions=[Prediction(score=float(s), label=int(s >= 0.5)) for s in scores],
        )

    predict.__annotations__["body"] = Body  # the class is made here, not where names are looked up
    app.post("/predict", response_model=Answer)(predict)
    return app


MLSERVER_MODEL = """
import pathlib

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        model = pathlib.Path(__file__).parent / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(model), options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        matrix = np.asarray(NumpyCodec.decode_input(payload.inputs[0]), dtype=np.float32)
        scores = self.session.run(["score"], {"features": matrix})[0]
        output = NumpyCodec.encode_output("score", scores)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def mlserver_files(folder: Path, port: int) -> list[str]:
    """Writes its settings and model; the arguments after its interpreter.

    Its body is the encoded matrix: it has no categories to look up. No worker pool (a model in the server's
    own process is its fastest way for a small one), no request logging, no metrics but its own.
    """
    (folder / "bench_onnx.py").write_text(MLSERVER_MODEL)
    server = {
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "host": "127.0.0.1",
        "parallel_workers": 0,
        "debug": False,
        "logging_settings": None,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    model = {"name": "bench", "implementation": "bench_onnx.Onnx"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    return ["-c", "from mlserver.cli import main; main()", "start", str(folder)]


BENTOML_SERVICE = """
import json
import pathlib

import bentoml
import numpy as np
import onnxruntime
from pydantic import BaseModel


class Prediction(BaseModel):
    score: float
    label: int


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Bench:
    def __init__(self) -> None:
        folder = pathlib.Path(__file__).parent
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self.codes = json.loads((folder / "codes.json").read_text())

    def number(self, name, value):
        if value is None:
            return float("nan")
        book = self.codes[name]
        return value if book is None else book["categories"].get(value, book["unknown"])

    @bentoml.api
    async def predict(self, instances: list[dict[str, float | str | None]]) -> list[Prediction]:
        rows = [[self.number(name, one[name]) for name in self.codes] for one in instances]
        scores = self.session.run(["score"], {"features": np.array(rows, dtype=np.float32)})[0]
        return [Prediction(score=float(s), label=int(s >= 0.5)) for s in scores]
"""


def bentoml_files(folder: Path, port: int) -> list[str]:
    """Writes its service; the arguments after its interpreter. One worker, no access log, no metrics."""
    (folder / "service.py").write_text(BENTOML_SERVICE)
    where = ["--host", "127.0.0.1", "--port", str(port)]
    return ["-m", "bentoml", "serve", "service:Bench", "--working-dir", str(folder), *where]


def main() -> int:
    _, port, folder = sys.argv[1:]
    uvicorn.run(
        bare(Path(folder)),
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
