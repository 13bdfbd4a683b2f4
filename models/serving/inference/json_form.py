"""The protocol's JSON, and its extension for binary tensors: after the JSON come the tensors' bytes.

`Inference-Header-Content-Length` says where the JSON ends; a tensor's parameter `binary_data_size` how many
of the bytes after it are its own, in the order of the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from models.serving.bodies import parse_json
from models.serving.inference.protocol import Infer, Inferred
from models.serving.inference.tensors import BadTensor, Tensor, decode, encode, flat
from models.serving.instances import FieldError, InvalidRequest

HEADER = "inference-header-content-length"
MAX_TENSORS = 1_000
_KNOWN = {"id", "parameters", "inputs", "outputs", "model_name", "model_version"}
"""The last two are KServe's client's; the path says the same."""


def read_infer(
    raw: bytes, json_bytes: int | None, path: Mapping[str, str]
) -> tuple[Infer, set[str] | None]:
    """The request in `raw`, whose JSON has `json_bytes` (None: all of it).

    `path`: the model's name and version, which the request may repeat and must not contradict. Also the
    outputs that are wanted as bytes (None: all). Raises InvalidRequest or Problem 422.
    """
    if json_bytes is not None and json_bytes > len(raw):
        raise _wrong("", f"has {len(raw)} bytes, its header says that its JSON has more")
    document = parse_json(raw[:json_bytes])
    if not isinstance(document, dict):
        raise _wrong("", "must be an object with 'inputs'")
    for name in document.keys() - _KNOWN:
        raise _wrong(_ascii(name), f"is unknown; a request has {', '.join(sorted(_KNOWN))}")
    for name, value in path.items():
        said = document.get(name)
        if said is not None and _text(said, name) != value and value:
            raise _wrong(name, f"is not {value!r}, which the path says")
    binary = b"" if json_bytes is None else raw[json_bytes:]
    inputs = _inputs(document.get("inputs"), binary)
    parameters = _object(document.get("parameters", {}), "parameters")
    outputs = _list(document.get("outputs", []), "outputs")
    names = [_text(item.get("name"), f"outputs[{i}].name") for i, item in enumerate(outputs)]
    identity = document.get("id", "")
    return (
        Infer(
            inputs, names, parameters, _text(identity, "id"), document.get("model_version") or ""
        ),
        _wanted_binary(outputs, parameters),
    )


def _inputs(items: object, binary: bytes) -> list[Tensor]:
    found, at = [], 0
    for index, item in enumerate(_list(items, "inputs")):
        loc = f"inputs[{index}]"
        name = _text(item.get("name"), f"{loc}.name")
        datatype = _text(item.get("datatype"), f"{loc}.datatype")
        shape = item.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            raise _wrong(f"{loc}.shape", "must be a list of integers")
        size = _object(item.get("parameters", {}), f"{loc}.parameters").get("binary_data_size")
        try:
            if size is None:
                values = flat(item.get("data"))
            elif type(size) is not int or not 0 <= size <= len(binary) - at:
                raise BadTensor("binary_data_size must be an integer, within the bytes that came")
            else:
                values = decode(datatype, binary[at : at + size])
                at += size
        except BadTensor as error:
            raise _wrong(loc, str(error)) from None
        found.append(Tensor(name, datatype, tuple(shape), values))
    if at != len(binary):
        raise _wrong("", f"has {len(binary) - at} bytes after its tensors that belong to none")
    return found


def _wanted_binary(outputs: list[Any], parameters: dict[str, Any]) -> set[str] | None:
    everything = parameters.get("binary_data_output") is True
    if not outputs:
        return None if everything else set()
    wanted = set()
    for item in outputs:
        said = _object(item.get("parameters", {}), "outputs.parameters")
        if said.get("binary_data", everything) is True:
            wanted.add(item["name"])
    return wanted


def write_infer(said: Inferred, binary: set[str] | None) -> tuple[bytes, int | None]:
    """The response, and how many of its bytes are JSON (None: all)."""
    outputs, blobs = [], []
    for tensor in said.outputs:
        item: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if binary is None or tensor.name in binary:
            blobs.append(encode(tensor))
            item["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            item["data"] = list(tensor.values)
        outputs.append(item)
    document: dict[str, Any] = {
        "model_name": said.model_name,
        "model_version": said.model_version,
        "outputs": outputs,
    }
    if said.id:
        document["id"] = said.id
    if said.warnings:
        document["parameters"] = {"warnings": "; ".join(said.warnings)}
    head = json.dumps(document).encode()
    return b"".join([head, *blobs]), len(head) if blobs else None


def _object(value: object, loc: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(loc, "must be an object")
    return value


def _list(value: object, loc: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > MAX_TENSORS:
        raise _wrong(loc, f"must be a list of at most {MAX_TENSORS}")
    for index, item in enumerate(value):
        _object(item, f"{loc}[{index}]")
    return value


def _text(value: object, loc: str) -> str:
    if not isinstance(value, str):
        raise _wrong(loc, "must be text")
    return value


def _wrong(loc: str, why: str) -> InvalidRequest:
    return InvalidRequest([FieldError(loc, why)])


def _ascii(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()[:80]
