"""Between tensors and what the Service takes: one tensor per feature, one row per prediction.

A missing value is NaN, JSON's null, or an empty text. Beside the features, tensors `event_id` (BYTES) and
`event_time` (INT64, ms since the epoch, or BYTES, ISO 8601) may come; as parameters of the request both hold
for all its rows, so that `event_id` is for requests of one row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from models.serving.inference.tensors import DTYPES, TEXT, Tensor
from models.serving.instances import MAX_INSTANCES, FieldError, InvalidRequest
from streams.task import Category, Task, Text

EVENT_ID, EVENT_TIME = "event_id", "event_time"
OUTPUTS = {"score": "FP64", "label": "INT64", EVENT_ID: TEXT, "model_version": TEXT}
"""What can be asked for; `model_version` comes unasked only where several versions answered."""
SHOWN = 80


def inputs_of(task: Task) -> dict[str, str]:
    """Each given feature, and each personal field, with the datatype that metadata name."""
    texts = {feature.name for feature in task.features if isinstance(feature, Category | Text)}
    features = {name: TEXT if name in texts else "FP64" for name in task.given}
    return features | dict.fromkeys(task.private, TEXT)


def body_of(task: Task, inputs: Sequence[Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors as `{"instances": [...]}`; raises InvalidRequest for what the tensors themselves have wrong."""
    wanted = inputs_of(task)
    errors = [
        FieldError("inputs", f"has no tensor {name!r}")
        for name in wanted
        if name not in {tensor.name for tensor in inputs}
    ]
    rows = _rows(inputs, errors)
    columns: dict[str, list[Any]] = {}
    for tensor in inputs:
        loc = f"inputs.{_shown(tensor.name)}"
        if tensor.name in columns:
            errors.append(FieldError(loc, "is there twice"))
        elif tensor.name in wanted:
            columns[tensor.name] = _feature(tensor, wanted[tensor.name] == TEXT, loc, errors)
        elif tensor.name in (EVENT_ID, EVENT_TIME):
            columns[tensor.name] = _texts(tensor, loc, errors)
        else:
            why = f"is no feature of task {task.name} to be sent, which takes {', '.join(wanted)}"
            errors.append(FieldError(loc, why))
    shared = {name: parameters[name] for name in (EVENT_ID, EVENT_TIME) if name in parameters}
    if EVENT_ID in shared and rows != 1:
        why = f"is one for {rows} rows: send a BYTES tensor event_id instead"
        errors.append(FieldError(f"parameters.{EVENT_ID}", why))
    if errors:
        raise InvalidRequest(errors)
    names, instances = list(columns), []
    for values in zip(*columns.values(), strict=True):
        row = {**shared, **dict(zip(names, values, strict=True))}
        instances.append({n: v for n, v in row.items() if v is not None or n in wanted})
    return {"instances": instances}


def _rows(inputs: Sequence[Tensor], errors: list[FieldError]) -> int:
    """How many rows all tensors have; 0 if they do not agree."""
    found: set[int] = set()
    for tensor in inputs:
        loc, shape = f"inputs.{_shown(tensor.name)}", tensor.shape
        if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
            errors.append(FieldError(loc, f"has shape {list(shape[:4])}: must be [n] or [n, 1]"))
        elif not 1 <= shape[0] <= MAX_INSTANCES:
            errors.append(FieldError(loc, f"has {shape[0]} rows: must be 1 to {MAX_INSTANCES}"))
        elif len(tensor.values) != shape[0]:
            why = f"has {len(tensor.values)} values, its shape says {shape[0]}"
            errors.append(FieldError(loc, why))
        else:
            found.add(shape[0])
    if len(found) > 1:
        errors.append(FieldError("inputs", f"have different numbers of rows: {sorted(found)}"))
    return found.pop() if len(found) == 1 else 0


def _feature(tensor: Tensor, is_text: bool, loc: str, errors: list[FieldError]) -> list[Any]:
    fits = tensor.datatype == TEXT if is_text else tensor.datatype in DTYPES.keys() - {"BOOL"}
    if not fits:
        wanted = TEXT if is_text else "a number, such as FP64"
        errors.append(FieldError(loc, f"has datatype {_shown(tensor.datatype)}: must be {wanted}"))
        return []
    return _texts(tensor, loc, errors) if is_text else [_number(v) for v in tensor.values]


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _texts(tensor: Tensor, loc: str, errors: list[FieldError]) -> list[Any]:
    """The values, bytes as text, empty ones as None."""
    try:
        values = [v.decode() if isinstance(v, bytes) else v for v in tensor.values]
    except UnicodeDecodeError:
        errors.append(FieldError(loc, "holds a text that is not UTF-8"))
        return []
    return [None if value == "" else value for value in values]


def outputs_of(answer: Mapping[str, Any], asked: Sequence[str]) -> list[Tensor]:
    """The Service's answer as tensors of shape [n], in the order asked; all that say something if none is."""
    said, whole = answer["predictions"], answer["model_version"]
    names = asked or [n for n in OUTPUTS if n != "model_version" or "model_version" in said[0]]
    return [
        Tensor(
            name,
            OUTPUTS[name],
            (len(said),),
            [one.get(name, whole) if name == "model_version" else one[name] for one in said],
        )
        for name in names
    ]


def _shown(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:SHOWN]
