"""Between driftlog.v1's messages and the bodies that the Service takes and gives."""

from __future__ import annotations

from typing import Any

from models.serving.grpc import driftlog_pb2 as pb
from models.serving.instances import FieldError, InvalidRequest

ENVELOPE = ("event_id", "event_time")


def predict_body(request: Any) -> dict[str, Any]:
    """A PredictRequest as `{"instances": [...]}`; raises InvalidRequest."""
    return {"instances": [_instance(index, one) for index, one in enumerate(request.instances)]}


def label_body(request: Any) -> dict[str, Any]:
    """A LabelRequest as `{"labels": [...]}`."""
    labels = []
    for truth in request.labels:
        label: dict[str, Any] = {"prediction_id": truth.prediction_id, **_envelope(truth)}
        if truth.HasField("label"):
            label["label"] = truth.label
        labels.append(label)
    return {"labels": labels}


def predict_response(answer: dict[str, Any]) -> Any:
    """The Service's answer as a PredictResponse."""
    return pb.PredictResponse(
        model_version=answer["model_version"],
        predictions=[
            pb.Prediction(
                event_id=said["event_id"],
                score=said["score"],
                label=said["label"],
                model_version=said.get("model_version"),
            )
            for said in answer["predictions"]
        ],
        warnings=answer.get("warnings", ()),
    )


def label_response(answer: dict[str, Any]) -> Any:
    """The Service's answer as a LabelResponse."""
    return pb.LabelResponse(accepted=answer["accepted"], event_ids=answer["event_ids"])


def models_response(models: list[dict[str, Any]]) -> Any:
    """What the Service says about its models, as a ModelsResponse."""
    names = ("task", "model_version", "since", "reason")
    return pb.ModelsResponse(
        models=[
            pb.Model(
                **{name: said[name] for name in names},
                rollout=pb.Rollout(**said["rollout"]) if "rollout" in said else None,
            )
            for said in models
        ]
    )


def _instance(index: int, message: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in message.features.items():
        kind = value.WhichOneof("kind")
        if name in ENVELOPE:
            why = "is no feature: set the instance's field of this name"
            raise InvalidRequest([FieldError(f"instances[{index}].{name}", why)])
        if kind is not None:
            found[name] = None if kind == "missing" else getattr(value, kind)
    return found | _envelope(message)


def _envelope(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in ENVELOPE if message.HasField(name)}
