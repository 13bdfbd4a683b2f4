"""Pictures of a model, made from its file: how the loss fell, and what its convolutions see in images."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from models.network import read
from models.onnx_graph import CURVES, note

IMAGES = 4
MAX_MAPS = 8


class NoPicture(Exception):
    """Why there is none, in one line."""


def curves(data: bytes) -> dict[str, list[float]]:
    """The losses that a training left in the file; empty if it goes by no steps."""
    found: dict[str, list[float]] = json.loads(note(data, CURVES) or "{}")
    return found


def loss_picture(data: bytes, title: str) -> bytes:
    """PNG of the loss curves; raises NoPicture."""
    found = curves(data)
    if not found:
        raise NoPicture("its recipe trains in one step: it has no loss curve")
    figure = _figure((6.4, 4.0))
    axes = figure.add_subplot()
    for name, losses in found.items():
        axes.plot(range(1, len(losses) + 1), losses, marker=".", label=name)
    axes.set(title=title, xlabel="step", ylabel="log-loss")
    axes.legend()
    return _png(figure)


def activations(data: bytes, matrix: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What each convolution gives (after ReLU) for encoded rows: (n, channels, height, width) each.

    Raises NoPicture for a model without convolutions, NotANetwork for a file of another kind.
    """
    network = read(data)
    model = onnx.load_model_from_string(data)
    nodes = {node.output[0]: node for node in model.graph.node}
    wanted = [n for n in nodes if n.startswith("layer_") and _follows_conv(nodes, n)]
    if network.image is None or not wanted:
        raise NoPicture("it has no convolutions: activation maps are of recipe cnn")
    for name in wanted:
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    found: list[NDArray[np.float32]] = session.run(wanted, {"features": matrix})
    return found


def activation_picture(data: bytes, matrix: NDArray[np.float32], title: str) -> bytes:
    """PNG: some images (rows of `matrix`), and under each what the channels of each convolution see."""
    images = matrix[:IMAGES]
    maps = activations(data, images)
    image = read(data).image
    assert image is not None
    figure = _figure((1.1 * (1 + MAX_MAPS), 1.1 * len(images) * len(maps)))
    grid = figure.subplots(len(images) * len(maps), 1 + MAX_MAPS, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for row, pixels in enumerate(images):
        for depth, seen in enumerate(maps):
            line = grid[row * len(maps) + depth]
            line[0].imshow(_shown(pixels.reshape(image)), cmap="gray")
            for place, channel in enumerate(seen[row][:MAX_MAPS]):
                line[1 + place].imshow(channel, cmap="viridis")
    figure.suptitle(title)
    return _png(figure)


def _shown(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """(channels, height, width) as (height, width), or as (height, width, 3) in 0..1 for colours."""
    if len(pixels) != 3:
        mean: NDArray[np.float32] = pixels.mean(axis=0)
        return mean
    known = np.nan_to_num(pixels.transpose(1, 2, 0))
    low, high = float(known.min()), float(known.max())
    return (known - low) / max(high - low, 1e-12)


def _follows_conv(nodes: dict[str, Any], name: str) -> bool:
    before = nodes.get(nodes[name].input[0])
    return nodes[name].op_type == "Relu" and before is not None and before.op_type == "Conv"


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPicture(
            "pictures need matplotlib: install driftlog with its extra 'plots'"
        ) from None
    return Figure(figsize=size, layout="constrained")


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()
