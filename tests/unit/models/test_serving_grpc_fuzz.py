"""Whatever arrives over gRPC is answered or refused: no fault of the server's, no hang, no lost event."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.serving.grpc import driftlog_pb2 as pb
from models.serving.grpc import inference_pb2 as inference
from models.serving.grpc.server import GrpcServer
from models.serving.inference.tensors import DTYPES, TEXT
from tests.unit.models.grpc_parts import ask, instance
from tests.unit.models.serving_parts import FLIGHTS, MemoryLog, flight, service

PREDICT = "/driftlog.v1.Driftlog/Predict"
STREAM = "/driftlog.v1.Driftlog/PredictStream"
LABEL = "/driftlog.v1.Driftlog/Label"
INFER = "/inference.GRPCInferenceService/ModelInfer"
UNARY = (PREDICT, LABEL, INFER, "/driftlog.v1.Driftlog/Models")
PATIENCE_S = 20.0
FINE = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
FUZZ = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@dataclass
class Served:
    """A server in a thread of its own, and a channel that takes and gives bytes."""

    log: MemoryLog = field(default_factory=MemoryLog)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __enter__(self) -> Served:
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.server = self.run(self._start())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self.run(self.server.stop(0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    async def _start(self) -> GrpcServer:
        server = GrpcServer(service(self.log), "127.0.0.1:0")
        await server.start()
        return server

    def call(self, method: str, raw: bytes) -> tuple[grpc.StatusCode, bytes]:
        """The code, and what was answered (empty if nothing)."""
        try:
            return grpc.StatusCode.OK, self.channel.unary_unary(method)(raw, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            return error.code(), b""

    def told(self, method: str, raw: bytes) -> None:
        """Call: the code is fine, and what is answered is in the log."""
        logged = len(self.log.events)
        code, answer = self.call(method, raw)
        assert code in FINE
        self.tally(ids_in(method, answer), logged)

    def tally(self, said: list[str], logged: int) -> None:
        """`said` are in the log, and nobody was left untold of what came after the first `logged` events.

        A request that came before, with its own event ids, is answered without another event.
        """
        assert set(said) <= {event.id for event in self.log.events}
        assert {event.id for event in self.log.events[logged:]} <= set(said)


def ids_in(method: str, answer: bytes) -> list[str]:
    if not answer:
        return []
    if method == PREDICT:
        return [p.event_id for p in pb.PredictResponse.FromString(answer).predictions]
    if method == LABEL:
        return list(pb.LabelResponse.FromString(answer).event_ids)
    if method == INFER:
        outputs = inference.ModelInferResponse.FromString(answer).outputs
        return [
            i.decode() for o in outputs if o.name == "event_id" for i in o.contents.bytes_contents
        ]
    return []


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as opened:
        yield opened


TEXTS = st.text(max_size=8)
IDS = st.none() | st.text(max_size=120)
TIMES = st.none() | st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.builds(lambda number: pb.Value(number=number), st.floats()),
    st.builds(lambda text: pb.Value(text=text), TEXTS),
    st.just(pb.Value(missing=pb.Missing())),
    st.just(pb.Value()),
)
NAMES = st.sampled_from([*FLIGHTS.given, "carrier_late", "event_id"]) | TEXTS
TASKS = st.sampled_from(["", "flights", "trains"])


@st.composite
def instances(draw: st.DrawFn) -> Any:
    made = instance(draw(IDS), draw(TIMES))
    for name, value in draw(st.dictionaries(NAMES, VALUES, max_size=3)).items():
        made.features[name].CopyFrom(value)
    return made


PREDICTS = st.builds(
    lambda task, listed: pb.PredictRequest(task=task, instances=listed),
    TASKS,
    st.lists(instances(), max_size=3),
)
LABELS = st.builds(
    lambda task, truths: pb.LabelRequest(task=task, labels=truths),
    TASKS,
    st.lists(
        st.builds(
            lambda about, label, event_id, time: pb.Truth(
                prediction_id=about, label=label, event_id=event_id, event_time=time
            ),
            TEXTS,
            st.none() | st.integers(-1, 2),
            IDS,
            TIMES,
        ),
        max_size=3,
    ),
)


@st.composite
def infers(draw: st.DrawFn) -> Any:
    """Mostly whole requests, some of whose tensors are not what they should be."""
    request = inference.ModelInferRequest(model_name="flights", id=draw(TEXTS))
    for name, value in flight().items():
        kind = TEXT if isinstance(value, str) else "FP64"
        tensor = request.inputs.add(name=name, datatype=kind, shape=[1])
        if kind == TEXT:
            tensor.contents.bytes_contents.append(str(value).encode())
        else:
            tensor.contents.fp64_contents.append(value)
    for tensor in request.inputs:
        if draw(st.integers(0, 9)):
            continue
        tensor.datatype = draw(st.sampled_from([*DTYPES, TEXT, "FP8"]))
        tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=2)))
        tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=4), max_size=2)))
        tensor.shape[:] = draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3))
    request.raw_input_contents.extend(
        draw(st.just([]) | st.lists(st.binary(max_size=20), max_size=6))
    )
    for name in draw(st.lists(st.sampled_from(["event_id", "event_time", "x"]), max_size=2)):
        parameter = request.parameters[name]
        if draw(st.booleans()):
            parameter.int64_param = draw(st.integers(-(2**63), 2**63 - 1))
        else:
            parameter.string_param = draw(TEXTS)
    return request


@FUZZ
@given(request=PREDICTS)
def test_any_predict_request(served: Served, request: Any) -> None:
    served.told(PREDICT, request.SerializeToString())


@FUZZ
@given(request=LABELS)
def test_any_label_request(served: Served, request: Any) -> None:
    served.told(LABEL, request.SerializeToString())


@FUZZ
@given(request=infers())
def test_any_infer_request(served: Served, request: Any) -> None:
    served.told(INFER, request.SerializeToString())


@FUZZ
@given(method=st.sampled_from(UNARY), raw=st.binary(max_size=200))
def test_any_bytes(served: Served, method: str, raw: bytes) -> None:
    served.told(method, raw)


@FUZZ
@given(request=PREDICTS, data=st.data())
def test_messages_cut_off_or_damaged(served: Served, request: Any, data: st.DataObject) -> None:
    raw = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(raw)))
    served.told(PREDICT, bytes(raw[:end]))


@FUZZ
@given(
    messages=st.lists(
        PREDICTS.map(lambda m: m.SerializeToString()) | st.binary(max_size=40), max_size=5
    )
)
def test_any_stream_is_answered_one_for_one(served: Served, messages: list[bytes]) -> None:
    logged = len(served.log.events)
    stream = served.channel.stream_stream(STREAM)(iter(messages), timeout=PATIENCE_S)
    said = [pb.PredictStreamResponse.FromString(raw) for raw in stream]
    assert len(said) == len(messages)
    server_faults = {grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.UNKNOWN.value[0]}
    assert not {one.refusal.code for one in said} & server_faults
    ids = [p.event_id for one in said for p in one.answer.predictions]
    served.tally(ids, logged)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def headers(path: str) -> bytes:
    """A request's head as HPACK literals without indexing (RFC 7541, section 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "driftlog",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return frame(1, 4, 1, block)


GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
MESSAGE = ask(instance()).SerializeToString()
WHOLE = b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE
OK, INVALID, EXHAUSTED, INTERNAL = 0, 3, 8, 13
BROKEN = {
    "cut off": (WHOLE[:-1], INVALID, OK),
    "cut off in its length": (WHOLE[:3], INVALID, OK),
    "nothing": (b"", INVALID, OK),
    "huge": (b"\0\xff\xff\xff\xff" + MESSAGE, EXHAUSTED, EXHAUSTED),
    # gRPC over HTTP/2 says so, and the library answers it.
    "compressed by nothing": (b"\1" + WHOLE[1:], INTERNAL, INTERNAL),
    "two messages": (2 * WHOLE, OK, OK),
}
"""What is sent, and the status of a unary and of a streaming call, which just has no more messages."""


@pytest.mark.parametrize(("body", "unary", "streaming"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("method", [PREDICT, STREAM])
def test_broken_frames_end_their_own_call_only(
    served: Served, method: str, body: bytes, unary: int, streaming: int
) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port), PATIENCE_S) as raw:
        raw.sendall(GREETING + headers(method) + frame(0, 1, 1, body))
        heard = b""
        while not ended(heard):  # a timeout of the socket fails the test: the server hangs
            more = raw.recv(4096)
            if not more:
                break
            heard += more
    wanted = str(unary if method == PREDICT else streaming).encode()
    assert b"grpc-status" + bytes([len(wanted)]) + wanted in heard
    assert still_serves(served)


@pytest.mark.parametrize(
    "raw", [b"\0" * 64, b"GET / HTTP/1.1\r\n\r\n", GREETING[:20], b"\xff" * 999]
)
def test_what_is_no_http2_disturbs_nobody(served: Served, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port), PATIENCE_S) as stranger:
        stranger.sendall(raw)
        assert still_serves(served)
    assert still_serves(served)


def ended(heard: bytes) -> bool:
    """Whether stream 1 is over: END_STREAM or RST_STREAM, or the connection is (GOAWAY)."""
    at = 0
    while at + 9 <= len(heard):
        size, kind, flags = int.from_bytes(heard[at : at + 3], "big"), heard[at + 3], heard[at + 4]
        stream = int.from_bytes(heard[at + 5 : at + 9], "big")
        if kind == 7 or (stream == 1 and (kind == 3 or (kind in (0, 1) and flags & 1))):
            return True
        at += 9 + size
    return False


def still_serves(served: Served) -> bool:
    code, answer = served.call(PREDICT, MESSAGE)
    ids = ids_in(PREDICT, answer)
    return code == grpc.StatusCode.OK and ids == [served.log.events[-1].id]
