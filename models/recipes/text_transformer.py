"""A pretrained transformer that reads the task's text, fine-tuned (PyTorch, transformers: extra `deep`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import onnx_graph
from models.dataset import Dataset
from models.encoder import Encoder
from models.foreign_graph import alike_in_any_batch
from models.network import LIMIT
from models.recipes import bert_graph, pretrained
from models.recipes.contract import check_parity
from models.recipes.encoding import encode
from models.recipes.errors import CannotTrain
from models.recipes.losses import ClassWeight
from models.recipes.mlp import moments
from models.recipes.torch_training import Plan, probabilities, reproducible, train
from models.scorer import Scorer
from streams.task import TEXT, Task

Singles = NDArray[np.float32]
PARITY_ROWS = 128
TRY_ROWS = 63
AT_ONCE = 64


def text_transformer(
    task: Task,
    rows: Dataset,
    seed: int,
    weights: str = "",
    length: int = 64,
    layers: int = 0,
    pooling: str = "mean",
    epochs: int = 20,
    batch: int = 32,
    learning_rate: float = 0.005,
    encoder_learning_rate: float = 5e-5,
    weight_decay: float = 0.01,
    focal: float = 0.0,
    class_weight: ClassWeight = None,
    validation_share: float = 0.1,
    patience: int = 4,
    category_smoothing: float = 50.0,
    *,
    checkpoints: Path | None = None,
) -> bytes:
    """BERT from the folder `weights` (or 'package:NAME/folder'), pooled, and a linear layer over it.

    The first `length` tokens of the text count. `layers`: so many of the last ones learn, too, with
    `encoder_learning_rate`; 0: the encoder stays as it is. Numbers and categories stand beside the pooled
    text. Kept is the epoch that is best on the newest `validation_share` of the rows; `patience` epochs
    without a better one end the training. The tokenizer travels in the file: scoring needs `tokenizers`.
    """
    if len(task.texts) != 1:
        raise CannotTrain(f"task {task.name} has {len(task.texts)} Text features: it must have one")
    if pooling not in bert_graph.POOLINGS:
        raise CannotTrain(f"pooling={pooling!r}: {' or '.join(bert_graph.POOLINGS)}")
    plan = Plan(
        *(seed, epochs, batch, learning_rate, weight_decay, focal, class_weight, validation_share),
        patience=patience,
    )
    with reproducible(seed) as torch:
        given = pretrained.load(weights, length)
        bert_graph.check(given.model.config)
        depth = given.model.config.num_hidden_layers
        if not 0 <= layers <= depth:
            raise CannotTrain(f"layers={layers!r}: the encoder has {depth}")
        encoder, matrix = encode(task, rows, seed, category_smoothing, given.code)
        columns = [encoder.places[n].start for n, kind in task.kinds.items() if kind != TEXT]
        center, scale = moments(matrix[:, columns])
        place = encoder.places[task.texts[0]]
        body = _body(torch, given, place, columns, center, scale, pooling)
        width = given.model.config.hidden_size + len(columns)
        linear = torch.nn.Linear(width, 1)
        learned = _thaw(given.model, layers)
        if layers:
            groups: list[dict[str, Any]] = [
                {"params": learned, "lr": encoder_learning_rate},
                {"params": list(linear.parameters())},
            ]
            module = torch.nn.Sequential(body, linear)
            curves = train(module, matrix, rows.labels, plan, checkpoints, groups)
        else:
            pooled = _pooled(torch, body, matrix)
            curves = train(torch.nn.Sequential(linear), pooled, rows.labels, plan, checkpoints)
        body.eval()
        head = bert_graph.Head(
            *(place, given.pad, pooling, columns, center, scale, LIMIT),
            weight=linear.weight.detach().numpy()[0].copy(),
            bias=float(linear.bias.detach()[0]),
        )
        notes = {onnx_graph.CURVES: json.dumps(curves), onnx_graph.WEIGHTS: given.source}
        data = _file(given.model, head, encoder, matrix, notes)
        whole = torch.nn.Sequential(body, linear)
        check_parity(
            *(data, rows, encoder, lambda v: probabilities(whole, v.astype(np.float32))),
            most=PARITY_ROWS,
        )
    return data


def _body(
    torch: Any,
    given: pretrained.Pretrained,
    place: slice,
    columns: list[int],
    center: Singles,
    scale: Singles,
    pooling: str,
) -> Any:
    """Encoded rows (n, width) -> the pooled text beside the standardised numbers, (n, hidden + numbers)."""

    class Body(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = given.model

        def forward(self, x: Any) -> Any:
            tokens = x[:, place].long()
            there = (tokens != given.pad).to(x.dtype)
            out = self.model(input_ids=tokens, attention_mask=there).last_hidden_state
            if pooling == "cls":
                pooled = out[:, 0]
            else:
                pooled = (out * there[:, :, None]).sum(1) / there.sum(1, keepdim=True)
            numbers = torch.nan_to_num(x[:, columns] - torch.from_numpy(center), nan=0.0)
            held = (numbers * torch.from_numpy(scale)).clip(-LIMIT, LIMIT)
            return torch.cat([pooled, held], dim=1)

    return Body()


def _thaw(model: Any, layers: int) -> list[Any]:
    """The parameters of the last `layers` layers; all others learn nothing."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    last = list(model.encoder.layer)[len(model.encoder.layer) - layers :]
    found = [parameter for layer in last for parameter in layer.parameters()]
    for parameter in found:
        parameter.requires_grad_(True)
    return found


def _pooled(torch: Any, body: Any, matrix: Singles) -> Singles:
    body.eval()
    with torch.no_grad():
        parts = [
            body(torch.from_numpy(matrix[at : at + AT_ONCE])).numpy()
            for at in range(0, len(matrix), AT_ONCE)
        ]
    return np.concatenate(parts)


def _file(
    model: Any, head: bert_graph.Head, encoder: Encoder, matrix: Singles, notes: Mapping[str, str]
) -> bytes:
    """The first form whose rows get the same bits in any batch; raises CannotTrain without any."""
    arrays = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    for rows in (1, 16):
        data = bert_graph.write(model.config, arrays, head, encoder, rows, notes)
        if alike_in_any_batch(Scorer.from_bytes(data), matrix[:TRY_ROWS]):
            return data
    raise CannotTrain("a row's score depends on the rows that are scored beside it")
