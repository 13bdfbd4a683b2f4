"""Clients of the Open Inference Protocol that others wrote, each in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.models.serving_parts import NOW_MS, MemoryLog, service
from tests.unit.models.serving_sockets import listening

pytestmark = pytest.mark.integration
UV = Path(sys.executable).with_name("uv")
TIME = NOW_MS - 7
ROWS = {
    "distance": [1089.0, 4500.0, None],
    "hour": [18.0, 7.0, 7.0],
    "carrier": ["AA", "UA", ""],
    "origin": ["JFK", "LGA", "EWR"],
    "dest": ["ORD", "SFO", "SFO"],
}

TRITON = """
import json, sys
import numpy as np
import tritonclient.grpc
import tritonclient.http
import tritonclient.grpc.aio

kind, address, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
time = int(sys.argv[4])
api = tritonclient.http if kind == "http" else tritonclient.grpc
client = api.InferenceServerClient(address)
said = {
    "live": client.is_server_live(),
    "ready": [client.is_server_ready(), client.is_model_ready("flights")],
    "unknown": client.is_model_ready("flights", "flights-0"),
}
as_dict = {} if kind == "http" else {"as_json": True}
said["server"] = client.get_server_metadata(**as_dict)["name"]
said["inputs"] = [i["name"] for i in client.get_model_metadata("flights", **as_dict)["inputs"]]

def tensors(**binary):
    made = []
    for name, values in rows.items():
        text = isinstance(values[0], str)
        dtype = np.object_ if text else np.float64
        array = np.array([np.nan if v is None else v for v in values], dtype=dtype)
        tensor = api.InferInput(name, [len(values), 1], "BYTES" if text else "FP64")
        tensor.set_data_from_numpy(array.reshape(-1, 1), **binary)
        made.append(tensor)
    return made

def read(result):
    found = {name: result.as_numpy(name).tolist() for name in ("score", "label", "event_id")}
    ids = found["event_id"]  # bytes, or what the JSON had
    found["event_id"] = [text.decode() if isinstance(text, bytes) else text for text in ids]
    found["version"] = result.get_response(**as_dict)["model_version"]
    return found

said["infer"] = [read(client.infer("flights", tensors(), request_id="mine"))]
if kind == "http":
    plain = [api.InferRequestedOutput(n, binary_data=False) for n in ("score", "label", "event_id")]
    said["infer"].append(read(client.infer("flights", tensors(binary_data=False), outputs=plain)))
else:
    came = []
    client.start_stream(lambda result, error: came.append(error or result))
    for _ in range(3):
        client.async_stream_infer("flights", tensors())
    client.stop_stream()
    said["infer"] += [read(result) for result in came]
said["named"] = read(client.infer(
    "flights", tensors(), model_version="flights-1", parameters={"event_time": time},
))
try:
    client.infer("flights", tensors()[1:])
except api.InferenceServerException as error:
    said["refused"] = [str(error.status()), error.message()]
client.close()
json.dump(said, sys.stdout)
"""

KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

kind, address, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

def request():
    tensors = []
    for name, values in rows.items():
        text = isinstance(values[0], str)
        array = np.array([np.nan if v is None else v for v in values], np.object_ if text else np.float64)
        tensor = InferInput(name, [len(values)], "BYTES" if text else "FP64")
        tensor.set_data_from_numpy(array, binary_data=kind == "http-binary")
        tensors.append(tensor)
    return InferRequest(model_name="flights", infer_inputs=tensors, request_id="mine")

def read(response):
    found = {output.name: output.as_numpy().tolist() for output in response.outputs}
    texts = found["event_id"]
    found["event_id"] = [text.decode() if isinstance(text, bytes) else text for text in texts]
    found["version"] = response.model_version
    return found

async def run():
    if kind == "grpc":
        client = InferenceGRPCClient(address)
        said = {"live": await client.is_server_live(), "ready": [await client.is_server_ready()]}
        said["ready"].append(await client.is_model_ready("flights"))
        said["infer"] = [read(await client.infer(request()))]
    else:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        base = "http://" + address
        said = {"live": await client.is_server_live(base), "ready": [await client.is_server_ready(base)]}
        said["ready"].append(await client.is_model_ready(base, "flights"))
        said["infer"] = [read(await client.infer(base, request(), model_name="flights"))]
    await client.close()
    return said

json.dump(asyncio.run(run()), sys.stdout)
"""


@dataclass(frozen=True)
class Served:
    """Both faces of one service, on ports of the loopback."""

    log: MemoryLog
    addresses: dict[str, str]


@pytest.fixture
def served() -> Iterator[Served]:
    log = MemoryLog()
    with listening(service(log)) as at:
        yield Served(log, {"http": at.http, "http-binary": at.http, "grpc": at.grpc})


def environment(folder: Path, *packages: str) -> Path:
    """The Python of an environment that has these; their dependencies do not fit ours."""
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([UV, "pip", "install", "-q", "--python", python, *packages], check=True)
    return python


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("triton"), "tritonclient[http,grpc]==2.73.*")


@pytest.fixture(scope="module")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("kserve"), "kserve==0.21.*")


def ask(python: Path, script: str, kind: str, served: Served) -> dict[str, Any]:
    """What the script says of both faces' answers to ROWS."""
    command = [python, "-c", script, kind, served.addresses[kind], json.dumps(ROWS), str(TIME)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def agree(answers: list[dict[str, Any]], log: MemoryLog) -> None:
    """Each answer is what the next three events in the log say."""
    for number, answer in enumerate(answers):
        events = log.events[3 * number : 3 * number + 3]
        assert answer["event_id"] == [event.id for event in events]
        assert answer["score"] == [event.data["score"] for event in events]
        assert answer["label"] == [event.data["label"] for event in events]
        if answer["version"] is not None:  # KServe's client leaves it out of what REST answered
            assert {answer["version"]} == {event.data["model_version"] for event in events}
    features = [event.data["features"] for event in log.events[:3]]
    for name, values in ROWS.items():
        assert [row[name] for row in features] == [value or None for value in values]


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritons_client(triton: Path, served: Served, kind: str) -> None:
    said = ask(triton, TRITON, kind, served)
    assert (said["live"], said["ready"], said["unknown"]) == (True, [True, True], False)
    assert said["server"] == "driftlog"
    assert said["inputs"] == list(ROWS)
    answers = [*said["infer"], said["named"]]
    agree(answers, served.log)
    assert len(served.log.events) == 3 * len(answers) == (9 if kind == "http" else 15)
    assert {event.time for event in served.log.events[-3:]} == {TIME}
    status, message = said["refused"]
    assert status in ("400", "StatusCode.INVALID_ARGUMENT")
    assert "no tensor 'distance'" in message


@pytest.mark.parametrize("kind", ["http", "http-binary", "grpc"])
def test_kserves_client(kserve: Path, served: Served, kind: str) -> None:
    said = ask(kserve, KSERVE, kind, served)
    assert (said["live"], said["ready"]) == (True, [True, True])
    agree(said["infer"], served.log)
    assert len(served.log.events) == 3
