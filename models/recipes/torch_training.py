"""The training loop of the networks: the same weights from the same rows and seed, interrupted or not.

Every epoch draws its order and its dropout from (seed, epoch) alone, so one that goes on from a checkpoint
does what it would have done without the interruption.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.network import Conv, Dense, Flat, Layer, Pool, Relu, Singles
from models.recipes import checkpoints
from models.recipes.errors import CannotTrain
from models.recipes.losses import ClassWeight, class_weights, focal_loss, log_loss_of, margin_shift


@dataclass(frozen=True, slots=True)
class Plan:
    """`validation_share`: the newest rows, which choose the epoch whose weights are kept; 0: the last.

    `patience`: the training ends after so many epochs without a better one; 0: never before its time.
    `frozen_epochs`: the first ones, in which convolutions learn nothing. `start`: the SHA-256 of the weights
    that it starts from, empty if they are drawn by the seed.
    """

    seed: int
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    focal: float
    class_weight: ClassWeight
    validation_share: float
    patience: int = 0
    frozen_epochs: int = 0
    start: str = ""


PARALLEL = ("ddp", "fsdp", "zero")


@dataclass(frozen=True, slots=True)
class Parallel:
    """`processes` share each batch. 'ddp' copies all, 'zero' shares out the optimiser, 'fsdp' weights, too.

    `timeout_s`: how long one may wait for another.
    """

    kind: str
    processes: int = 2
    timeout_s: float = 600.0

    @classmethod
    def of(cls, kind: str | None, processes: int) -> Parallel | None:
        """What a recipe's parameters say; raises CannotTrain."""
        if kind is None:
            return None
        if kind not in PARALLEL or not 2 <= processes <= MAX_PROCESSES:
            raise CannotTrain(
                f"parallel={kind!r}, processes={processes!r}: {', '.join(PARALLEL)} or None,"
                f" 2 to {MAX_PROCESSES} processes"
            )
        return cls(kind, processes)


MAX_PROCESSES = 64
Curves = dict[str, list[float]]


def torch_or_refuse() -> Any:
    """The module torch; raises CannotTrain if it is not installed."""
    try:
        import torch
    except ImportError:
        raise CannotTrain(
            "this recipe needs PyTorch, which is not installed: install driftlog with its extra 'deep'"
        ) from None
    return torch


@contextmanager
def reproducible(seed: int) -> Iterator[Any]:
    """torch with one thread, deterministic algorithms and this seed; as it was afterwards."""
    torch = torch_or_refuse()
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield torch
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def train(
    module: Any,
    x: Singles,
    labels: NDArray[Any],
    plan: Plan,
    folder: Path | None,
    groups: list[dict[str, Any]] | None = None,
    parallel: Parallel | None = None,
) -> Curves:
    """Train `module` (inputs -> (n, 1) margins) in place; the losses of each epoch, without class weights.

    `x`: inputs in the order of time; `labels` (n,) in 0..1. Goes on from a checkpoint in `folder`.
    `groups`: parameters with learning rates of their own, as torch's optimisers take them; all, unless given.
    `parallel`: several processes do it, see `models.recipes.sharded`.
    """
    torch = torch_or_refuse()
    held = int(len(x) * plan.validation_share)
    fitted = len(x) - held
    weights = class_weights(plan.class_weight, labels[:fitted])
    if parallel is not None:
        from models.recipes import sharded

        path = checkpoints.place(folder, x, labels, plan, module)
        standing = sharded.train(module, x, labels, plan, weights, path, parallel)
        curves, best, _ = _resume(module, None, standing)
        return _settled(module, best, weights, curves)
    inputs = torch.from_numpy(np.ascontiguousarray(x))
    truth = torch.from_numpy(labels.astype(np.float32))
    optimizer = torch.optim.AdamW(
        groups or module.parameters(), plan.learning_rate, weight_decay=plan.weight_decay
    )
    path = checkpoints.place(folder, x, labels, plan, module)
    curves, best, done = _resume(module, optimizer, checkpoints.load(path))
    for epoch in range(done, plan.epochs):
        if plan.patience and stale(curves["validation"]) >= plan.patience:
            break
        _freeze(torch, module, plan, epoch)
        torch.manual_seed(plan.seed * 100_003 + epoch)
        order = np.random.default_rng((plan.seed, epoch)).permutation(fitted)
        module.train()
        for begin in range(0, fitted, plan.batch):
            rows = torch.from_numpy(order[begin : begin + plan.batch])
            optimizer.zero_grad()
            loss = focal_loss(module(inputs[rows])[:, 0], truth[rows], weights, plan.focal)
            loss.backward()
            optimizer.step()
        margins = margins_of(module, inputs) - margin_shift(weights)
        if not np.isfinite(margins).all():
            raise CannotTrain(
                f"its weights left all bounds in epoch {epoch + 1}: lower learning_rate"
            )
        curves["training"].append(log_loss_of(margins[:fitted], labels[:fitted]))
        if held:
            curves["validation"].append(log_loss_of(margins[fitted:], labels[fitted:]))
        deciding = curves["validation"] if held else []
        if not deciding or deciding[-1] <= min(deciding):
            best = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        if path is not None:
            checkpoints.save(path, _standing(module, optimizer, best, epoch + 1, curves, torch))
    return _settled(module, best, weights, curves)


def _freeze(torch: Any, module: Any, plan: Plan, epoch: int) -> None:
    """An optimiser passes over what has no gradient: neither steps nor decay."""
    if plan.frozen_epochs:
        for layer in module:
            if isinstance(layer, torch.nn.Conv2d):
                layer.requires_grad_(epoch >= plan.frozen_epochs)


def _settled(
    module: Any, best: dict[str, Any], weights: tuple[float, float], curves: Curves
) -> Curves:
    """The module with its best weights, ready to answer."""
    torch = torch_or_refuse()
    module.load_state_dict(best)
    module.eval()
    with torch.no_grad():  # class weights raise every margin alike: what is left is a probability
        last = [layer for layer in module if hasattr(layer, "bias") and layer.bias is not None][-1]
        last.bias -= margin_shift(weights)
    return {name: losses for name, losses in curves.items() if losses}


def layers(module: Any) -> Iterator[Layer]:
    """A Sequential as plain arrays; dropout is of the training alone."""
    torch = torch_or_refuse()
    for layer in module:
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            kind = Dense if isinstance(layer, torch.nn.Linear) else Conv
            yield kind(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        elif isinstance(layer, torch.nn.ReLU):
            yield Relu()
        elif isinstance(layer, torch.nn.MaxPool2d):
            yield Pool()
        elif isinstance(layer, torch.nn.Flatten):
            yield Flat(next(la.in_features for la in module if isinstance(la, torch.nn.Linear)))


def probabilities(module: Any, x: Singles) -> NDArray[np.float64]:
    """P(1) of each row of inputs, as torch says it."""
    torch = torch_or_refuse()
    with torch.no_grad():
        scores = torch.sigmoid(module(torch.from_numpy(np.ascontiguousarray(x))))
    return np.asarray(scores[:, 0].numpy(), dtype=np.float64)


def stale(losses: list[float]) -> int:
    """Epochs since the best one."""
    return losses[::-1].index(min(losses)) if losses else 0


def margins_of(module: Any, inputs: Any) -> NDArray[np.float64]:
    """Margins (n,) of torch inputs, without dropout."""
    torch = torch_or_refuse()
    module.eval()
    with torch.no_grad():
        parts = [module(inputs[at : at + 1024])[:, 0] for at in range(0, len(inputs), 1024)]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)


def _standing(
    module: Any, optimizer: Any, best: dict[str, Any], epochs: int, curves: Curves, torch: Any
) -> checkpoints.Standing:
    tensors = {f"weights.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{n}": torch.as_tensor(v) for n, v in state.items()}
    return checkpoints.Standing(epochs, tensors, curves)


def _resume(
    module: Any, optimizer: Any, standing: checkpoints.Standing | None
) -> tuple[Curves, dict[str, Any], int]:
    """(curves, best weights, epochs done); the module and its optimiser as they stood then."""
    if standing is None:
        return {"training": [], "validation": []}, {}, 0
    groups: dict[str, dict[str, Any]] = {"weights": {}, "best": {}, "adam": {}}
    for name, tensor in standing.tensors.items():
        group, _, rest = name.partition(".")
        groups[group][rest] = tensor.clone()
    module.load_state_dict(groups["weights"])
    curves = {name: list(losses) for name, losses in standing.curves.items()}
    if optimizer is None:
        return curves, groups["best"], standing.epochs
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in groups["adam"].items():
        index, _, part = name.partition(".")
        state.setdefault(int(index), {})[part] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return curves, groups["best"], standing.epochs
