"""Serving over gRPC, with the log, the store and the model in memory: the same as over REST."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from models.serving.bodies import MAX_BODY_BYTES
from models.serving.grpc import driftlog_pb2 as pb
from models.serving.grpc import driftlog_pb2_grpc as stubs
from models.serving.grpc.calls import in_order
from models.serving.grpc.server import CannotListen, GrpcServer
from models.serving.instances import MAX_INSTANCES
from models.serving.service import Service
from schemas.catalogue import labels_topic, predictions_topic
from tests.unit.models.grpc_parts import ask, connected, instance
from tests.unit.models.serving_parts import (
    NOW_MS,
    MemoryLog,
    MemoryStore,
    champion,
    flight,
    service,
)
from tests.unit.models.test_serving_api import PREDICT, connect

Code = grpc.StatusCode
CALL = {"timeout": 20}
"""No call waits longer: a server that hangs fails the test."""


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def serving(log: MemoryLog, store: MemoryStore) -> Service:
    return service(log, store)


@pytest.fixture
async def channel(serving: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with connected(serving) as opened:
        yield opened


@pytest.fixture
def client(channel: grpc.aio.Channel) -> stubs.DriftlogStub:
    return stubs.DriftlogStub(channel)


async def refusal_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def detail(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    """The detail of this type in the rich status of a failed call."""
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert rpc_status.code_to_grpc_status_code(status.code) == error.code()
    assert status.message == error.details()
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            found = kind()
            packed.Unpack(found)
            return found
    raise AssertionError(f"no {kind.__name__} in {status}")


async def test_both_faces_answer_alike_and_log_the_same_kind_of_event(
    serving: Service, client: stubs.DriftlogStub, log: MemoryLog, store: MemoryStore
) -> None:
    changes = [{}, {"distance": 4500.0}, {"carrier": None, "hour": None}, {"distance": 1 / 3}]
    store.problem = "Redis does not answer"
    said = await client.Predict(ask(*[instance(**change) for change in changes]), **CALL)
    async with connect(serving) as http:
        body = (await http.post(PREDICT, json={"instances": [flight(**c) for c in changes]})).json()
    assert said.model_version == body["model_version"]
    assert list(said.warnings) == body["warnings"]
    over_rest = [(p["score"], p["label"]) for p in body["predictions"]]
    assert [(p.score, p.label) for p in said.predictions] == over_rest
    mine, theirs = log.events[:4], log.events[4:]
    assert [p.event_id for p in said.predictions] == [event.id for event in mine]
    for one, other in zip(mine, theirs, strict=True):
        assert (one.topic, one.type, one.time) == (other.topic, other.type, other.time)
        assert one.data | {"event_id": ""} == other.data | {"event_id": ""}


async def test_no_answer_before_the_log_has_it(client: stubs.DriftlogStub, log: MemoryLog) -> None:
    log.gate.clear()
    call = asyncio.ensure_future(client.Predict(ask(instance()), **CALL))
    await log.waiting.wait()
    assert not call.done()
    log.gate.set()
    assert len((await call).predictions) == 1


async def test_ids_and_times_of_the_caller_are_kept(
    client: stubs.DriftlogStub, log: MemoryLog
) -> None:
    await client.Predict(ask(instance(event_id="mine", event_time=NOW_MS - 5)), **CALL)
    assert (log.events[0].id, log.events[0].time) == ("mine", NOW_MS - 5)


async def test_a_retry_gets_the_same_answer_and_adds_nothing(
    client: stubs.DriftlogStub, log: MemoryLog, serving: Service
) -> None:
    request = ask(instance(event_id="a"), instance(event_id="b"))
    first = await client.Predict(request, **CALL)
    serving.desks["flights"].champion = champion("flights-2", at=0.7)
    assert await client.Predict(request, **CALL) == first
    assert len(log.events) == 2


async def test_labels_land_in_the_log(client: stubs.DriftlogStub, log: MemoryLog) -> None:
    truths = [pb.Truth(prediction_id="a", label=0), pb.Truth(prediction_id="b", label=1)]
    said = await client.Label(pb.LabelRequest(task="flights", labels=truths), **CALL)
    assert said.accepted == 2
    assert list(said.event_ids) == [event.id for event in log.events]
    assert {event.topic for event in log.events} == {labels_topic("flights")}
    assert [event.data["label"] for event in log.events] == [0, 1]


async def test_a_label_without_its_value_is_refused(
    client: stubs.DriftlogStub, log: MemoryLog
) -> None:
    request = pb.LabelRequest(labels=[pb.Truth(prediction_id="a")])
    error = await refusal_of(client.Label(request, **CALL))
    assert error.code() == Code.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "labels[0].label"
    assert log.events == []


async def test_models_says_who_answers(client: stubs.DriftlogStub, serving: Service) -> None:
    (said,) = (await client.Models(pb.ModelsRequest(), **CALL)).models
    assert (said.task, said.model_version, said.since, said.reason) == (
        *("flights", "flights-1", NOW_MS),
        "all gates passed",
    )
    serving.desks["flights"].champion = None
    (said,) = (await client.Models(pb.ModelsRequest(), **CALL)).models
    assert not said.HasField("model_version")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"distance": "far"}, "instances[1].distance"),
        ({"carrier": 7.0}, "instances[1].carrier"),
        ({"distance": float("nan")}, "instances[1].distance"),
        ({"hour": ...}, "instances[1].hour"),
        ({"carrier_late": 0.5}, "instances[1].carrier_late"),
    ],
)
async def test_each_wrong_field_is_a_violation_and_nothing_is_logged(
    client: stubs.DriftlogStub, log: MemoryLog, changes: dict[str, Any], field: str
) -> None:
    error = await refusal_of(client.Predict(ask(instance(), instance(**changes)), **CALL))
    assert error.code() == Code.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == field
    assert violation.description
    assert log.events == []


async def test_an_id_among_the_features_is_refused(client: stubs.DriftlogStub) -> None:
    request = ask(instance())
    request.instances[0].features["event_id"].text = "mine"
    error = await refusal_of(client.Predict(request, **CALL))
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "instances[0].event_id"


async def test_many_violations_still_fit_the_headers(client: stubs.DriftlogStub) -> None:
    wrong = [instance(**{"x" * 80 + str(n): 1.0, "distance": "far"}) for n in range(60)]
    error = await refusal_of(client.Predict(ask(*wrong), **CALL))
    assert error.code() == Code.INVALID_ARGUMENT
    assert len(detail(error, error_details_pb2.BadRequest).field_violations) > 1


async def test_an_unknown_task_is_not_found(client: stubs.DriftlogStub) -> None:
    error = await refusal_of(client.Predict(ask(instance(), task="trains"), **CALL))
    assert error.code() == Code.NOT_FOUND
    assert "flights" in str(error.details())


async def test_a_silent_log_is_unavailable_and_says_when_to_come_back(
    client: stubs.DriftlogStub, log: MemoryLog
) -> None:
    log.broken = True
    error = await refusal_of(client.Predict(ask(instance()), **CALL))
    assert error.code() == Code.UNAVAILABLE
    assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
    assert log.events == []


async def test_a_message_beyond_restss_limit_is_exhausted(
    client: stubs.DriftlogStub, log: MemoryLog
) -> None:
    big = ask(instance(carrier="x" * MAX_BODY_BYTES))
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        assert len(gzip.compress(big.SerializeToString())) < MAX_BODY_BYTES
        error = await refusal_of(client.Predict(big, compression=compression, **CALL))
        assert error.code() == Code.RESOURCE_EXHAUSTED
    assert log.events == []


async def test_a_batch_may_be_as_large_as_over_rest(client: stubs.DriftlogStub) -> None:
    answer = await client.Predict(ask(*[instance()] * MAX_INSTANCES), **CALL)
    assert len(answer.predictions) == MAX_INSTANCES
    more = ask(*[instance()] * (MAX_INSTANCES + 1))
    assert (await refusal_of(client.Predict(more, **CALL))).code() == Code.INVALID_ARGUMENT


async def test_a_deadline_ends_the_wait_for_the_log(
    client: stubs.DriftlogStub, log: MemoryLog, serving: Service
) -> None:
    log.gate.clear()
    error = await refusal_of(client.Predict(ask(instance()), timeout=1.0))
    assert error.code() == Code.DEADLINE_EXCEEDED
    async with asyncio.timeout(60):  # the server's side of the call ends, too
        while 'Predict",status="CANCELLED"} 1.0' not in serving.metrics.text().decode():
            await asyncio.sleep(0.01)
    log.gate.set()
    assert len((await client.Predict(ask(instance()), **CALL)).predictions) == 1


async def test_a_stream_answers_in_order_and_goes_on_after_a_refusal(
    client: stubs.DriftlogStub, log: MemoryLog
) -> None:
    distances = [float(n) for n in range(100)]

    async def requests() -> AsyncIterator[Any]:
        for distance in distances:
            yield ask(instance(distance=distance))
            if distance == 50:
                yield ask(instance(distance="far"))

    said = [answer async for answer in client.PredictStream(requests(), **CALL)]
    (refused,) = (answer.refusal for answer in said if answer.HasField("refusal"))
    assert said[51].refusal == refused
    assert refused.code == code_pb2.INVALID_ARGUMENT
    assert [v.field for v in refused.violations] == ["instances[0].distance"]
    answered = [a.answer.predictions[0] for a in said if a.HasField("answer")]
    assert [p.score for p in answered] == [0.1 + d / 10_000 for d in distances]
    assert {p.event_id for p in answered} == {event.id for event in log.events}
    assert {event.topic for event in log.events} == {predictions_topic("flights")}


async def test_a_stream_that_the_log_refuses_says_when_to_come_back(
    client: stubs.DriftlogStub, log: MemoryLog
) -> None:
    log.broken = True
    stream = client.PredictStream(**CALL)
    await stream.write(ask(instance()))
    said = await stream.read()
    assert said.refusal.code == code_pb2.UNAVAILABLE
    assert said.refusal.retry_after_ms > 0
    log.broken = False
    await stream.write(ask(instance()))
    assert len((await stream.read()).answer.predictions) == 1
    await stream.done_writing()
    assert await stream.read() == grpc.aio.EOF
    assert await stream.code() == Code.OK


async def test_a_stream_holds_no_more_at_work_than_its_limit() -> None:
    at_work, most, gates = 0, 0, [asyncio.Event() for _ in range(10)]

    async def requests() -> AsyncIterator[int]:
        for n in range(10):
            yield n

    async def work(n: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await gates[n].wait()
        at_work -= 1
        return n

    written: list[int] = []

    async def write(n: int) -> None:
        written.append(n)

    running = asyncio.create_task(in_order(requests(), work, write, limit=3))
    for gate in reversed(gates):  # the last are done first, yet nothing overtakes
        gate.set()
        await asyncio.sleep(0)
    await running
    assert written == list(range(10))
    assert most == 3


async def test_a_caller_that_leaves_a_stream_ends_its_work(
    client: stubs.DriftlogStub, log: MemoryLog, serving: Service
) -> None:
    log.gate.clear()
    stream = client.PredictStream(**CALL)
    await stream.write(ask(instance()))
    await log.waiting.wait()
    stream.cancel()
    async with asyncio.timeout(60):
        while 'PredictStream",status="CANCELLED"} 1.0' not in serving.metrics.text().decode():
            await asyncio.sleep(0.01)


async def test_calls_are_counted_by_method_and_code(
    client: stubs.DriftlogStub, serving: Service
) -> None:
    await client.Predict(ask(instance()), **CALL)
    await refusal_of(client.Predict(ask(), **CALL))
    text = serving.metrics.text().decode()
    for code in ("OK", "INVALID_ARGUMENT"):
        assert f'route="/driftlog.v1.Driftlog/Predict",status="{code}"}} 1.0' in text


async def test_health_follows_readiness_for_each_service(
    channel: grpc.aio.Channel, serving: Service, log: MemoryLog
) -> None:
    health = health_pb2_grpc.HealthStub(channel)

    async def status(name: str) -> int:
        request = health_pb2.HealthCheckRequest(service=name)
        return int((await health.Check(request, **CALL)).status)

    names = ("", "driftlog.v1.Driftlog", "inference.GRPCInferenceService")
    served, unserved = health_pb2.HealthCheckResponse.SERVING, 2
    watch = health.Watch(health_pb2.HealthCheckRequest(service=names[1]), **CALL)
    assert (await watch.read()).status == served
    assert {await status(name) for name in names} == {served}
    log.problem = "writes are not acknowledged"
    assert {await status(name) for name in names} == {unserved}
    assert (await watch.read()).status == unserved
    watch.cancel()
    unknown = health_pb2.HealthCheckRequest(service="nobody")
    assert (await refusal_of(health.Check(unknown, **CALL))).code() == Code.NOT_FOUND


class Doorkeeper(grpc.aio.ServerInterceptor):
    """Lets in who has a key."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        if ("authorization", "Bearer mine") in details.invocation_metadata:
            return await continuation(details)

        async def refuse(_: Any, context: Any) -> None:
            await context.abort(Code.UNAUTHENTICATED, "no key")

        return grpc.unary_unary_rpc_method_handler(refuse)


async def test_interceptors_come_first(serving: Service, log: MemoryLog) -> None:
    async with connected(serving, Doorkeeper()) as channel:
        client = stubs.DriftlogStub(channel)
        error = await refusal_of(client.Predict(ask(instance()), **CALL))
        assert (error.code(), log.events) == (Code.UNAUTHENTICATED, [])
        key = (("authorization", "Bearer mine"),)
        await client.Predict(ask(instance()), metadata=key, **CALL)
        assert len(log.events) == 1


async def test_reflection_names_services_and_their_files(channel: grpc.aio.Channel) -> None:
    def requests() -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="driftlog.v1.Driftlog")

    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    services, file = [
        said async for said in stub.ServerReflectionInfo(iter(list(requests())), **CALL)
    ]
    names = {service.name for service in services.list_services_response.service}
    assert {"driftlog.v1.Driftlog", "inference.GRPCInferenceService"} < names
    assert "grpc.health.v1.Health" in names
    assert file.file_descriptor_response.file_descriptor_proto == [pb.DESCRIPTOR.serialized_pb]


async def test_stopping_lets_what_is_at_work_finish(serving: Service, log: MemoryLog) -> None:
    server = GrpcServer(serving, "127.0.0.1:0")
    await server.start()
    log.gate.clear()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = asyncio.ensure_future(stubs.DriftlogStub(channel).Predict(ask(instance()), **CALL))
        await log.waiting.wait()
        stopping = asyncio.create_task(server.stop(20))
        await asyncio.sleep(0)
        log.gate.set()
        assert len((await call).predictions) == 1
        await stopping
        await server.stop(20)
    assert len(log.events) == 1


async def test_a_taken_port_is_an_error_that_names_it(serving: Service) -> None:
    first = GrpcServer(serving, "127.0.0.1:0")
    await first.start()
    with pytest.raises(CannotListen, match=str(first.port)):
        await GrpcServer(serving, f"127.0.0.1:{first.port}").start()
    await first.stop(0)
