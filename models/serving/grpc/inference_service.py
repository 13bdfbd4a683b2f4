"""inference.GRPCInferenceService: the Open Inference Protocol over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from models.serving.grpc import inference_pb2 as pb
from models.serving.grpc.calls import Calls
from models.serving.grpc.errors import Refused
from models.serving.inference import protocol
from models.serving.inference.mapping import EVENT_ID
from models.serving.inference.tensors import BadTensor, Tensor, decode, encode
from models.serving.instances import FieldError, InvalidRequest
from models.serving.problems import Problem
from models.serving.service import Service

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def handlers(service: Service) -> Any:
    """The generic handler of this service for a gRPC server."""

    async def live(_: Any) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def ready(_: Any) -> Any:
        is_ready, _ = await service.readiness()
        return pb.ServerReadyResponse(ready=is_ready)

    async def model_ready(request: Any) -> Any:
        try:
            is_ready = protocol.model_ready(service, request.name, request.version)
        except Problem:
            is_ready = False
        return pb.ModelReadyResponse(ready=is_ready)

    async def server_metadata(_: Any) -> Any:
        return pb.ServerMetadataResponse(**protocol.server_metadata())

    async def model_metadata(request: Any) -> Any:
        said = protocol.model_metadata(service, request.name, request.version)
        return pb.ModelMetadataResponse(**said)

    async def infer(request: Any) -> Any:
        name, version = request.model_name, request.model_version
        protocol.model(service, name, version)
        asked = _asked(request)
        named = {*asked.parameters, *(tensor.name for tensor in asked.inputs)}
        raw = request.SerializeToString(deterministic=True) if EVENT_ID in named else b""
        said = await protocol.infer(service, name, version, asked, raw)
        return _response(said, as_bytes=bool(request.raw_input_contents))

    async def stream(request: Any) -> Any:
        return pb.ModelStreamInferResponse(infer_response=await infer(request))

    def refusal(said: Refused) -> Any:
        return pb.ModelStreamInferResponse(error_message=said.message)

    calls = Calls(DESCRIPTOR, service.metrics)
    return grpc.method_handlers_generic_handler(
        DESCRIPTOR.full_name,
        {
            "ServerLive": calls.unary("ServerLive", live),
            "ServerReady": calls.unary("ServerReady", ready),
            "ModelReady": calls.unary("ModelReady", model_ready),
            "ServerMetadata": calls.unary("ServerMetadata", server_metadata),
            "ModelMetadata": calls.unary("ModelMetadata", model_metadata),
            "ModelInfer": calls.unary("ModelInfer", infer),
            "ModelStreamInfer": calls.stream("ModelStreamInfer", stream, refusal),
        },
    )


def _asked(request: Any) -> protocol.Infer:
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        why = f"has {len(raws)} items for {len(request.inputs)} inputs"
        raise InvalidRequest([FieldError("raw_input_contents", why)])
    inputs = [
        _tensor(index, item, raws[index] if raws else None)
        for index, item in enumerate(request.inputs)
    ]
    names = [output.name for output in request.outputs]
    return protocol.Infer(inputs, names, _parameters(request.parameters), request.id)


def _tensor(index: int, item: Any, raw: bytes | None) -> Tensor:
    try:
        values = _contents(item) if raw is None else decode(item.datatype, raw)
    except BadTensor as error:
        raise InvalidRequest([FieldError(f"inputs[{index}]", str(error))]) from None
    return Tensor(item.name, item.datatype, tuple(item.shape), values)


def _contents(item: Any) -> list[Any]:
    field = _CONTENTS.get(item.datatype)
    if field is None:
        raise BadTensor(f"datatype {item.datatype[:20]!r} has no contents: send it raw")
    for other, _ in item.contents.ListFields():
        if other.name != field:
            raise BadTensor(f"has {other.name}; those of datatype {item.datatype} are {field}")
    return list(getattr(item.contents, field))


def _parameters(found: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in found.items()}
    return {name: getattr(found[name], kind) for name, kind in chosen.items() if kind}


def _response(said: protocol.Inferred, as_bytes: bool) -> Any:
    response = pb.ModelInferResponse(
        model_name=said.model_name, model_version=said.model_version, id=said.id
    )
    if said.warnings:
        response.parameters["warnings"].string_param = "; ".join(said.warnings)
    for tensor in said.outputs:
        output = response.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
        )
        if as_bytes:
            response.raw_output_contents.append(encode(tensor))
        else:
            is_text = tensor.datatype == "BYTES"
            values = [text.encode() for text in tensor.values] if is_text else tensor.values
            getattr(output.contents, _CONTENTS[tensor.datatype]).extend(values)
    return response
