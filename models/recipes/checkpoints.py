"""Where a training stands, as a safetensors file: weights, optimiser, curves; whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "1"


@dataclass(frozen=True, slots=True)
class Standing:
    """After `epochs` epochs: named tensors, and the losses of each epoch so far."""

    epochs: int
    tensors: Mapping[str, Any]
    curves: Mapping[str, list[float]]


def place(folder: Path | None, *parts: Any) -> Path | None:
    """The file of a training that is told by `parts`: arrays by their bytes, all else by its repr."""
    if folder is None:
        return None
    digest = hashlib.sha256()
    for part in parts:
        told = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        digest.update(hashlib.sha256(told).digest())
    return folder / f"{digest.hexdigest()}.safetensors"


def save(path: Path, standing: Standing) -> None:
    """A reader sees the last checkpoint or this one, never half of it."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".partial-{os.getpid()}")
    metadata = {
        "format": FORMAT,
        "epochs": str(standing.epochs),
        "curves": json.dumps(standing.curves),
    }
    save_file({n: t.contiguous() for n, t in standing.tensors.items()}, beside, metadata)
    os.replace(beside, path)


def load(path: Path | None) -> Standing | None:
    """What `save` left; None if there is nothing that can be read: then the training begins anew."""
    from safetensors import SafetensorError, safe_open

    if path is None or not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Standing(int(metadata["epochs"]), tensors, json.loads(metadata["curves"]))
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
