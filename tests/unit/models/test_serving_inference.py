"""The Open Inference Protocol over HTTP and gRPC, with the log, the store and the model in memory."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.serving.api import create_app
from models.serving.grpc import inference_pb2 as pb
from models.serving.grpc import inference_pb2_grpc as stubs
from models.serving.inference.json_form import HEADER
from models.serving.inference.tensors import DTYPES, TEXT, BadTensor, Tensor, decode, encode
from models.serving.service import Service
from tests.unit.models.grpc_parts import connected
from tests.unit.models.serving_parts import (
    FLIGHTS,
    NOW_MS,
    MemoryLog,
    champion,
    flight,
    service,
)
from tests.unit.models.test_serving_api import PREDICT, connect

MODEL = "/v2/models/flights"
INFER = f"{MODEL}/infer"
CALL = {"timeout": 20}
NAN = float("nan")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def serving(log: MemoryLog) -> Service:
    return service(log)


@pytest.fixture
async def http(serving: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(serving) as opened:
        yield opened


@pytest.fixture
async def stub(serving: Service) -> AsyncIterator[stubs.GRPCInferenceServiceStub]:
    async with connected(serving) as channel:
        yield stubs.GRPCInferenceServiceStub(channel)


def tensors(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    """These instances as the protocol's JSON inputs."""
    rows = rows or (flight(),)
    return [
        {
            "name": name,
            "datatype": TEXT if name in ("carrier", "origin", "dest") else "FP64",
            "shape": [len(rows)],
            "data": [row[name] for row in rows],
        }
        for name in FLIGHTS.given
    ]


def named(answer: dict[str, Any]) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


async def test_an_answer_is_the_same_as_rests_and_can_be_labelled(
    http: httpx.AsyncClient, log: MemoryLog
) -> None:
    rows = [flight(), flight(distance=4500.0), flight(carrier=None, hour=None)]
    answer = await http.post(INFER, json={"id": "mine", "inputs": tensors(*rows)})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["id"], body["model_name"], body["model_version"]) == (
        *("mine", "flights"),
        "flights-1",
    )
    over_rest = (await http.post(PREDICT, json={"instances": rows})).json()["predictions"]
    found = named(body)
    assert found["score"] == [said["score"] for said in over_rest]
    assert found["label"] == [said["label"] for said in over_rest]
    assert found["event_id"] == [event.id for event in log.events[:3]]
    for one, other in zip(log.events[:3], log.events[3:], strict=True):
        assert (one.type, one.data["features"]) == (other.type, other.data["features"])


async def test_what_is_missing_is_null_nan_or_an_empty_text(
    http: httpx.AsyncClient, log: MemoryLog
) -> None:
    rows = [flight(distance=None, carrier=None), flight(distance=NAN, carrier="")]
    raw = json.dumps({"inputs": tensors(*rows)}).encode()
    assert (await http.post(INFER, content=raw)).status_code == 200
    for event in log.events:
        assert (event.data["features"]["distance"], event.data["features"]["carrier"]) == (
            None,
            None,
        )


async def test_columns_and_other_datatypes_will_do(http: httpx.AsyncClient, log: MemoryLog) -> None:
    inputs = tensors(flight(), flight())
    for tensor in inputs:
        tensor["shape"] = [2, 1]
        tensor["data"] = [[value] for value in tensor["data"]]
    hour = next(tensor for tensor in inputs if tensor["name"] == "hour")
    hour |= {"datatype": "INT64", "data": [[17], [18]]}
    assert (await http.post(INFER, json={"inputs": inputs})).status_code == 200
    assert [event.data["features"]["hour"] for event in log.events] == [17.0, 18.0]


async def test_ids_and_times_come_as_parameters_or_tensors(
    http: httpx.AsyncClient, log: MemoryLog
) -> None:
    parameters = {"event_id": "mine", "event_time": NOW_MS - 1}
    await http.post(INFER, json={"inputs": tensors(), "parameters": parameters})
    ids = {"name": "event_id", "datatype": TEXT, "shape": [3], "data": ["a", "b", ""]}
    times = {"name": "event_time", "datatype": "INT64", "shape": [3], "data": [NOW_MS - 2] * 3}
    rows = tensors(*[flight()] * 3)
    answer = await http.post(INFER, json={"inputs": [*rows, ids, times]})
    assert answer.status_code == 200
    found = [(event.id, event.time) for event in log.events]
    assert found[:3] == [("mine", NOW_MS - 1), ("a", NOW_MS - 2), ("b", NOW_MS - 2)]
    assert found[3][0] == named(answer.json())["event_id"][2] != ""
    shared = await http.post(INFER, json={"inputs": rows, "parameters": {"event_id": "x"}})
    assert shared.status_code == 400
    assert "event_id" in shared.json()["error"]


async def test_a_retry_gets_the_same_answer_and_adds_nothing(
    http: httpx.AsyncClient, log: MemoryLog, serving: Service
) -> None:
    asked = {"inputs": tensors(), "parameters": {"event_id": "mine"}}
    first = (await http.post(INFER, json=asked)).json()
    serving.desks["flights"].champion = champion("flights-2", at=0.7)
    assert (await http.post(INFER, json=asked)).json() == first
    assert len(log.events) == 1


async def test_outputs_come_as_they_are_asked_for(http: httpx.AsyncClient) -> None:
    wanted = [{"name": "model_version"}, {"name": "score"}]
    answer = (await http.post(INFER, json={"inputs": tensors(), "outputs": wanted})).json()
    assert [(o["name"], o["datatype"], o["shape"]) for o in answer["outputs"]] == [
        ("model_version", TEXT, [1]),
        ("score", "FP64", [1]),
    ]
    assert answer["outputs"][0]["data"] == ["flights-1"]
    unknown = await http.post(INFER, json={"inputs": tensors(), "outputs": [{"name": "odds"}]})
    assert unknown.status_code == 400


async def test_tensors_may_come_and_go_as_bytes(http: httpx.AsyncClient, log: MemoryLog) -> None:
    items, blobs = [], []
    for item in tensors(flight(), flight(carrier="")):
        shape = tuple(item["shape"])
        blobs.append(encode(Tensor(item["name"], item["datatype"], shape, item.pop("data"))))
        items.append({**item, "parameters": {"binary_data_size": len(blobs[-1])}})
    asked = {"inputs": items, "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    answer = await http.post(
        INFER,
        content=head + b"".join(blobs),
        headers={HEADER: str(len(head)), "content-type": "application/octet-stream"},
    )
    assert answer.status_code == 200
    assert [e.data["features"]["carrier"] for e in log.events] == ["AA", None]
    at = int(answer.headers[HEADER])
    found, rest = {}, answer.content[at:]
    for output in json.loads(answer.content[:at])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        found[output["name"]] = decode(output["datatype"], rest[:size])
        rest = rest[size:]
    assert rest == b""
    assert found["event_id"] == [event.id.encode() for event in log.events]
    assert found["score"] == [event.data["score"] for event in log.events]


WRONG: list[tuple[Any, str]] = [
    ([], "must be an object"),
    ({"inputs": 3}, "inputs"),
    ({"inputs": tensors()[1:]}, "no tensor 'distance'"),
    ({"inputs": [*tensors(), tensors()[0]]}, "twice"),
    ({"inputs": [*tensors(), {**tensors()[0], "name": "wind"}]}, "wind"),
    ({"inputs": [{**tensors()[0], "shape": [2]}, *tensors()[1:]]}, "shape says 2"),
    ({"inputs": [{**tensors()[0], "shape": [1, 2]}, *tensors()[1:]]}, "[n] or [n, 1]"),
    ({"inputs": [{**tensors()[0], "shape": "x"}, *tensors()[1:]]}, "list of integers"),
    ({"inputs": [{**tensors()[0], "datatype": TEXT}, *tensors()[1:]]}, "FP64"),
    ({"inputs": [{**tensors()[0], "data": ["x"]}, *tensors()[1:]]}, "distance"),
    ({"inputs": [{**tensors()[0], "data": None}, *tensors()[1:]]}, "data must be a list"),
    ({"inputs": [*tensors(flight(), flight())[:2], *tensors()[2:]]}, "numbers of rows"),
    ({"inputs": tensors(), "outputs": [{}]}, "outputs[0].name"),
    ({"inputs": tensors(), "parameters": {"event_time": -1}}, "event_time"),
    ({"inputs": tensors(), "more": 1}, "more"),
    ({"inputs": tensors(), "model_name": "trains"}, "model_name"),
    ({"inputs": tensors(), "model_version": {}}, "model_version"),
]


@pytest.mark.parametrize(("body", "said"), WRONG)
async def test_a_wrong_request_is_a_400_that_says_why(
    http: httpx.AsyncClient, log: MemoryLog, body: Any, said: str
) -> None:
    answer = await http.post(INFER, json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert log.events == []


@pytest.mark.parametrize("header", ["-1", "x", "999999", "1e3", "²"])
async def test_a_wrong_length_of_the_json_is_a_400(http: httpx.AsyncClient, header: str) -> None:
    raw = json.dumps({"inputs": tensors()}).encode()
    answer = await http.post(INFER, content=raw, headers={HEADER: header.encode()})
    assert answer.status_code == 400


async def test_bytes_that_belong_to_no_tensor_are_refused(http: httpx.AsyncClient) -> None:
    raw = json.dumps({"inputs": tensors()}).encode()
    answer = await http.post(INFER, content=raw + b"1234", headers={HEADER: str(len(raw))})
    assert answer.status_code == 400
    assert "4 bytes" in answer.json()["error"]


@pytest.fixture(scope="module")
def whole() -> tuple[MemoryLog, httpx.ASGITransport]:
    """One application for all examples."""
    log = MemoryLog()
    return log, httpx.ASGITransport(create_app(service(log)), raise_app_exceptions=False)


RAW = json.dumps({"inputs": tensors()}).encode()


@settings(max_examples=60, deadline=None)
@given(
    cut=st.integers(0, len(RAW)),
    tail=st.binary(max_size=12),
    header=st.none() | st.integers(0, len(RAW) + 20),
)
def test_any_bytes_after_any_header(
    whole: tuple[MemoryLog, httpx.ASGITransport], cut: int, tail: bytes, header: int | None
) -> None:
    log, transport = whole
    before = len(log.events)

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://serving") as client:
            lengths = {} if header is None else {HEADER: str(header)}
            return await client.post(INFER, content=RAW[:cut] + tail, headers=lengths)

    answer = asyncio.run(post())
    assert answer.status_code in (200, 400)
    assert len(log.events) - before == (answer.status_code == 200)


async def test_health_and_metadata(
    http: httpx.AsyncClient, serving: Service, log: MemoryLog
) -> None:
    server = (await http.get("/v2")).json()
    assert server["name"] == "driftlog"
    assert "binary_tensor_data" in server["extensions"]
    model = (await http.get(MODEL)).json()
    assert (model["name"], model["versions"]) == ("flights", ["flights-1"])
    assert [tensor["name"] for tensor in model["inputs"]] == list(FLIGHTS.given)
    assert (await http.get(f"{MODEL}/versions/flights-1")).json() == model
    ready = ("/v2/health/ready", f"{MODEL}/ready", f"{MODEL}/versions/flights-1/ready")
    assert [(await http.get(path)).status_code for path in ready] == [200] * 3
    log.problem = "writes are not acknowledged"
    assert [(await http.get(path)).status_code for path in ready] == [503] * 3
    serving.desks["flights"].champion = None
    assert (await http.get(f"{MODEL}/ready")).json() == {"name": "flights", "ready": False}
    assert (await http.get("/v2/health/live")).json() == {"live": True}


@pytest.mark.parametrize("path", ["/v2/models/trains", f"{MODEL}/versions/flights-0"])
async def test_unknown_models_and_versions_are_a_404(http: httpx.AsyncClient, path: str) -> None:
    for answer in (
        await http.get(path),
        await http.get(f"{path}/ready"),
        await http.post(f"{path}/infer", json={"inputs": tensors()}),
    ):
        assert answer.status_code == 404
        assert "flights" in answer.json()["error"]


async def test_a_version_in_the_body_must_be_the_champion(http: httpx.AsyncClient) -> None:
    statuses = {"flights-1": 200, None: 200, "flights-0": 404}
    for version, status in statuses.items():
        asked = {"inputs": tensors(), "model_name": "flights", "model_version": version}
        assert (await http.post(INFER, json=asked)).status_code == status
    other = {"inputs": tensors(), "model_version": "flights-0"}
    path = f"{MODEL}/versions/flights-1/infer"
    assert (await http.post(path, json=other)).status_code == 400


async def test_a_silent_log_is_a_503(http: httpx.AsyncClient, log: MemoryLog) -> None:
    log.broken = True
    answer = await http.post(INFER, json={"inputs": tensors()})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "not acknowledge" in answer.json()["error"]


def message(rows: list[dict[str, Any]], raw: bool, **more: Any) -> Any:
    request = pb.ModelInferRequest(model_name="flights", **more)
    for item in tensors(*rows):
        added = request.inputs.add(
            name=item["name"], datatype=item["datatype"], shape=item["shape"]
        )
        shape = tuple(item["shape"])
        if raw:
            tensor = Tensor(item["name"], item["datatype"], shape, item["data"])
            request.raw_input_contents.append(encode(tensor))
        elif item["datatype"] == TEXT:
            added.contents.bytes_contents.extend(text.encode() for text in item["data"])
        else:
            added.contents.fp64_contents.extend(item["data"])
    return request


@pytest.mark.parametrize("raw", [True, False])
async def test_grpc_answers_in_the_form_that_was_asked(
    stub: stubs.GRPCInferenceServiceStub, log: MemoryLog, raw: bool
) -> None:
    rows = [flight(), flight(distance=4500.0), flight(distance=NAN, dest="")]
    said = await stub.ModelInfer(message(rows, raw, id="mine"), **CALL)
    assert (said.model_name, said.model_version, said.id) == ("flights", "flights-1", "mine")
    if raw:
        kinds = [output.datatype for output in said.outputs]
        score, label, event_id = map(decode, kinds, said.raw_output_contents)
    else:
        contents = [output.contents for output in said.outputs]
        score, label = list(contents[0].fp64_contents), list(contents[1].int64_contents)
        event_id = list(contents[2].bytes_contents)
    assert [output.name for output in said.outputs] == ["score", "label", "event_id"]
    assert score == [event.data["score"] for event in log.events]
    assert label == [event.data["label"] for event in log.events]
    assert event_id == [event.id.encode() for event in log.events]
    missing = log.events[2].data["features"]
    assert (missing["distance"], missing["dest"]) == (None, None)


async def test_grpc_parameters_and_stream(
    stub: stubs.GRPCInferenceServiceStub, log: MemoryLog
) -> None:
    def requests() -> list[Any]:
        first = message([flight()], False)
        first.parameters["event_id"].string_param = "mine"
        first.parameters["event_time"].int64_param = NOW_MS - 1
        return [first, pb.ModelInferRequest(model_name="trains"), message([flight()], True)]

    said = [answer async for answer in stub.ModelStreamInfer(iter(requests()), **CALL)]
    assert [bool(answer.error_message) for answer in said] == [False, True, False]
    assert "mine" in [event.id for event in log.events]
    assert len(log.events) == 2


async def test_grpc_health_and_metadata(
    stub: stubs.GRPCInferenceServiceStub, serving: Service, log: MemoryLog
) -> None:
    assert (await stub.ServerLive(pb.ServerLiveRequest(), **CALL)).live
    assert (await stub.ServerReady(pb.ServerReadyRequest(), **CALL)).ready
    asked = pb.ModelReadyRequest(name="flights", version="flights-1")
    assert (await stub.ModelReady(asked, **CALL)).ready
    unknown = pb.ModelReadyRequest(name="flights", version="flights-0")
    assert not (await stub.ModelReady(unknown, **CALL)).ready
    assert (await stub.ServerMetadata(pb.ServerMetadataRequest(), **CALL)).name == "driftlog"
    model = await stub.ModelMetadata(pb.ModelMetadataRequest(name="flights"), **CALL)
    assert [(i.name, list(i.shape)) for i in model.inputs] == [(n, [-1]) for n in FLIGHTS.given]
    log.problem = "writes are not acknowledged"
    assert not (await stub.ServerReady(pb.ServerReadyRequest(), **CALL)).ready
    assert not (await stub.ModelReady(asked, **CALL)).ready


async def test_grpc_refuses_contents_that_do_not_fit(
    stub: stubs.GRPCInferenceServiceStub, log: MemoryLog
) -> None:
    other = message([flight()], False)
    other.inputs[0].datatype = "FP32"
    unknown = message([flight()], False)
    unknown.inputs[0].datatype = "FP8"
    few = message([flight()], True)
    del few.raw_input_contents[1:]
    for request in (other, unknown, few):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request, **CALL)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert log.events == []


@given(st.data())
def test_decode_undoes_encode(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["FP64", "INT64", "FP32", "UINT8", TEXT]))
    values = data.draw(
        st.lists(
            {
                "FP64": st.floats(allow_nan=False),
                "FP32": st.floats(allow_nan=False, width=32),
                "INT64": st.integers(-(2**63), 2**63 - 1),
                "UINT8": st.integers(0, 255),
                TEXT: st.text(),
            }[kind]
        )
    )
    raw = encode(Tensor("t", kind, (len(values),), values))
    wanted = [text.encode() for text in values] if kind == TEXT else values
    assert decode(kind, raw) == wanted
    if raw:
        with pytest.raises(BadTensor):
            decode("INT16" if kind == "UINT8" else kind, raw + b"\0" * (1 + len(raw) % 2))


@given(st.sampled_from([*DTYPES, TEXT]), st.binary(max_size=40))
def test_decode_gives_whole_values_or_says_why_not(kind: str, raw: bytes) -> None:
    try:
        values = decode(kind, raw)
    except BadTensor:
        return
    assert sum(len(v) + 4 for v in values) == len(raw) if kind == TEXT else len(raw) >= len(values)


def test_text_lengths_are_little_endian() -> None:
    assert encode(Tensor("t", TEXT, (1,), ["ab"])) == struct.pack("<I", 2) + b"ab"
