"""Transfer learning: a network that starts from the weights of another one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from models.network import Conv, Dense, NotANetwork, Singles, read
from models.recipes import weight_files
from models.recipes.errors import CannotTrain

PARAMETERS = ("pretrained", "pretrained_sha256", "reuse", "freeze")
"""Of a recipe that can start from other weights."""
CONVOLUTIONS, BODY, ALL = REUSES = "convolutions", "body", "all"
ALWAYS = "always"
CHAMPION, VERSION = "champion", "version:"
MAX_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Start:
    """`layers`: those with weights, in order. `source`: name and SHA-256 of the file.

    `center`, `scale` (channels,): how its pixels were standardised; None if the file does not say.
    """

    layers: tuple[Conv | Dense, ...]
    source: str
    sha256: str
    center: Singles | None = None
    scale: Singles | None = None

    @property
    def convolutions(self) -> list[Conv]:
        return [layer for layer in self.layers if isinstance(layer, Conv)]


def start(pretrained: str, sha256: str) -> Start:
    """`pretrained`: a model file of recipe cnn, or a safetensors file, or 'package:NAME/file'.

    Of safetensors the tensors NAME.weight and NAME.bias count, in the natural order of their names: four
    dimensions are a convolution, two a dense layer; all others are left. Raises CannotTrain, also if the file
    has another SHA-256 than `sha256` (hex; empty: any).
    """
    said = f"pretrained={pretrained!r}"
    if pretrained == CHAMPION or pretrained.startswith(VERSION):
        raise CannotTrain(f"{said}: only a trainer knows versions; name a file")
    path = weight_files.found("pretrained", pretrained)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CannotTrain(f"{said}: more than {MAX_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise CannotTrain(f"{said}: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if sha256 and digest != sha256:
        raise CannotTrain(f"{said}: its SHA-256 is {digest}, pretrained_sha256 says {sha256}")
    source = f"{path.name} {digest}"
    if path.suffix == ".safetensors":
        return Start(_of_safetensors(said, data), source, digest)
    return _of_model(said, data, source, digest)


def file_sha256(pretrained: str) -> str:
    """Of the file that `pretrained` names; raises CannotTrain."""
    return start(pretrained, "").sha256


def adopt(torch: Any, module: Any, given: Start, reuse: str, channels: Sequence[int]) -> None:
    """Copy weights into `module`: of its convolutions, of all but its last layer (`body`), or of `all`.

    Raises CannotTrain unless they have the same shapes.
    """
    if reuse not in REUSES:
        raise CannotTrain(f"reuse={reuse!r}: one of {', '.join(map(repr, REUSES))}")
    nn = torch.nn
    kinds = (nn.Conv2d,) if reuse == CONVOLUTIONS else (nn.Conv2d, nn.Linear)
    into = [layer for layer in module if isinstance(layer, kinds)]
    layers: Sequence[Conv | Dense] = given.convolutions if reuse == CONVOLUTIONS else given.layers
    # Of convolutions one may keep the first ones; a dense layer reads what all before it give.
    wrong = len(layers) < len(into) if reuse == CONVOLUTIONS else len(layers) != len(into)
    if reuse == BODY:
        into, layers = into[:-1], layers[:-1]
    shapes = [la.weight.shape for la in layers]
    wanted = [tuple(layer.weight.shape) for layer in into]
    if wrong or shapes[: len(wanted)] != wanted:
        there = [len(conv.bias) for conv in given.convolutions]
        raise CannotTrain(
            f"pretrained: its weights are {_told(shapes)}, those of this network {_told(wanted)}:"
            f" its channels are {there}, here channels={list(channels)}"
        )
    with torch.no_grad():
        for layer, known in zip(into, layers, strict=False):
            layer.weight.copy_(torch.from_numpy(known.weight.copy()))
            layer.bias.copy_(torch.from_numpy(known.bias.copy()))


def frozen_epochs(freeze: int | str, epochs: int, pretrained: str) -> int:
    """In how many epochs convolutions learn nothing; raises CannotTrain."""
    if freeze == ALWAYS:
        count = epochs
    elif isinstance(freeze, int) and not isinstance(freeze, bool) and freeze >= 0:
        count = freeze
    else:
        raise CannotTrain(f"freeze={freeze!r}: a number of epochs, or {ALWAYS!r}")
    if count and not pretrained:
        raise CannotTrain(f"freeze={freeze!r}: what starts by chance must learn: say pretrained=")
    return count


def _of_model(said: str, data: bytes, source: str, digest: str) -> Start:
    try:
        network = read(data)
    except (NotANetwork, DecodeError) as error:
        line = " ".join(str(error).split())[:200]
        raise CannotTrain(f"{said}: {line}; a safetensors file ends in .safetensors") from error
    if network.image is None:
        raise CannotTrain(f"{said}: it has no convolutions: it is a network of recipe mlp")
    layers = tuple(layer for layer in network.layers if isinstance(layer, Conv | Dense))
    first = np.arange(network.image[0]) * network.image[1] * network.image[2]
    return Start(layers, source, digest, network.center[first], network.scale[first])


def _of_safetensors(said: str, data: bytes) -> tuple[Conv | Dense, ...]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CannotTrain(f"{said}: {' '.join(str(error).split())[:200]}") from error
    layers: list[Conv | Dense] = []
    for name in sorted(tensors, key=_natural):
        weight = tensors[name]
        if not name.endswith("weight") or weight.ndim not in (2, 4):
            continue
        bias = tensors.get(name.removesuffix("weight") + "bias", np.zeros(len(weight)))
        if bias.shape != weight.shape[:1] or not np.isfinite(weight).all():
            raise CannotTrain(f"{said}: {name!r} is no layer's weights: {_told([weight.shape])}")
        kind = Conv if weight.ndim == 4 else Dense
        layers.append(kind(weight.astype(np.float32), bias.astype(np.float32)))
    return tuple(layers)


def _natural(name: str) -> list[tuple[int, str]]:
    """'features.10' comes after 'features.3'."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _told(shapes: Sequence[tuple[int, ...]]) -> str:
    return " + ".join("x".join(map(str, shape)) for shape in shapes) or "none"
