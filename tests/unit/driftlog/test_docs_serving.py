"""docs/serving.md: its commands are sent as they stand there, and its Python is run."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from examples.flights import task
from models.serving.core import Champion
from models.serving.grpc import driftlog_pb2
from models.serving.metrics import Metrics
from models.serving.service import Service
from tests.unit.infra.project_files import ROOT
from tests.unit.models.serving_parts import Line, MemoryLog, MemoryStore, codec
from tests.unit.models.serving_sockets import Addresses, listening

DOC = (ROOT / "docs" / "serving.md").read_text("utf-8")
COMMANDS = [
    shlex.split(block.replace("\\\n", " "))
    for block in re.findall(r"```sh\n(.*?)```", DOC, re.DOTALL)
]
PYTHON = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
TYPES = {
    "driftlog.v1.Driftlog": driftlog_pb2.DESCRIPTOR,
    "grpc.health.v1.Health": health_pb2.DESCRIPTOR,
}


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog()
    made._codec = codec(task)
    return made


@pytest.fixture
def served(log: MemoryLog) -> Iterator[Addresses]:
    service = Service((task,), Metrics(), MemoryStore(), log)
    service.desks["flights"].champion = Champion("flights-7", Line(), 0, "all gates passed")
    with listening(service) as addresses:
        yield addresses


def by(tool: str) -> list[Any]:
    return [pytest.param(words, id=words[-1][-60:]) for words in COMMANDS if words[0] == tool]


@pytest.mark.parametrize("words", by("curl"))
def test_each_curl_is_answered(words: list[str], served: Addresses, log: MemoryLog) -> None:
    here = [word.replace("127.0.0.1:18000", served.http) for word in words]
    said = subprocess.run([*here, "-f"], capture_output=True, text=True, timeout=30, check=True)
    (event,) = log.events
    assert event.id in said.stdout


@pytest.mark.parametrize("words", by("grpcurl"))
def test_each_grpcurl_is_answered(words: list[str], served: Addresses, log: MemoryLog) -> None:
    address, name = words[-2:]
    assert address == "127.0.0.1:18001"
    service, _, method = name.partition("/")
    descriptor = TYPES[service].services_by_name[service.rpartition(".")[2]].methods_by_name[method]
    request, response = map(GetMessageClass, (descriptor.input_type, descriptor.output_type))
    asked = json_format.Parse(words[words.index("-d") + 1], request())
    with grpc.insecure_channel(served.grpc) as channel:
        call = channel.unary_unary(f"/{name}", request.SerializeToString, response.FromString)
        said = call(asked, timeout=20)
    if method == "Check":
        assert said.status == health_pb2.HealthCheckResponse.SERVING
    else:
        assert [p.event_id for p in said.predictions] == [event.id for event in log.events]


def test_the_python_runs(
    served: Addresses, log: MemoryLog, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = PYTHON
    exec(program.replace("127.0.0.1:18000", served.http), {})
    assert len(log.events) == 502
    assert capsys.readouterr().out.startswith("flights-7 500 ")


def test_it_shows_both_faces() -> None:
    assert len(by("curl")) >= 3
    assert len(by("grpcurl")) >= 2
