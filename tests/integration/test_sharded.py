"""Several processes make the steps that one makes: real ranks over gloo, on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.recipes import CannotTrain, checkpoints, sharded
from models.recipes.losses import class_weights
from models.recipes.torch_training import Parallel, Plan, reproducible, train

pytestmark = pytest.mark.integration
torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'deep'")
TOLERANCE = 2e-6
ROWS, WIDTH = 203, 12
"""The last of each epoch's batches has fewer rows than there are ranks."""
PLAN = Plan(7, 3, 13, 0.01, 0.01, 0.0, "balanced", 0.1)


def data() -> tuple[Any, Any]:
    chance = np.random.default_rng(1)
    x = chance.normal(size=(ROWS, WIDTH)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int8)


def module() -> Any:
    with reproducible(3):
        nn = torch.nn
        return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 1))


def gathered(
    kind: str, checkpoint: Path | None = None, plan: Plan = PLAN
) -> tuple[checkpoints.Standing, list[dict[str, int]]]:
    x, labels = data()
    weights = class_weights(plan.class_weight, labels[: ROWS - int(ROWS * plan.validation_share)])
    held: list[dict[str, int]] = []
    parallel = Parallel(kind, 2, timeout_s=300)
    found = sharded.train(module(), x, labels, plan, weights, checkpoint, parallel, held)
    return found, held


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, checkpoints.Standing]:
    """What one process leaves after the first epoch, and after the last."""
    folder = tmp_path_factory.mktemp("alone")
    save, first = checkpoints.save, folder / "first.safetensors"

    def keep(path: Path, standing: checkpoints.Standing) -> None:
        save(path, standing)
        if standing.epochs == 1:
            save(first, standing)

    with pytest.MonkeyPatch.context() as patch, reproducible(7):
        patch.setattr(checkpoints, "save", keep)
        train(module(), *data(), PLAN, folder)
    (last,) = (path for path in folder.iterdir() if path != first)
    standing = checkpoints.load(last)
    assert standing is not None
    return first, standing


def assert_alike(one: checkpoints.Standing, two: checkpoints.Standing) -> None:
    assert one.epochs == two.epochs
    assert one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        np.testing.assert_allclose(tensor, two.tensors[name], atol=TOLERANCE, err_msg=name)
    for name, losses in one.curves.items():
        np.testing.assert_allclose(losses, two.curves[name], atol=TOLERANCE)


def test_copies_make_the_same_steps(alone: tuple[Path, checkpoints.Standing]) -> None:
    found, held = gathered("ddp")
    assert_alike(found, alone[1])
    assert held[0] == held[1]


@pytest.mark.parametrize("kind", ["zero", "fsdp"])
def test_shares_go_on_from_where_one_process_stood(
    alone: tuple[Path, checkpoints.Standing], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(alone[0].read_bytes())
    found, held = gathered(kind, path)
    assert_alike(found, alone[1])
    left = checkpoints.load(path)
    assert left is not None
    assert_alike(left, alone[1])  # one process could go on from it
    whole = 4 * sum(parameter.numel() for parameter in module().parameters())
    assert max(rank["optimizer"] for rank in held) < 0.9 * 2 * whole
    if kind == "fsdp":
        assert max(rank["weights"] for rank in held) < 0.7 * whole


@pytest.mark.parametrize("kind", ["ddp", "zero", "fsdp"])
def test_convolutions_stay_frozen_and_are_tuned_afterwards(kind: str) -> None:
    """Fine-tuning of weights that were learned before, by two ranks as by one."""
    chance = np.random.default_rng(2)
    x = chance.normal(size=(61, 1, 4, 4)).astype(np.float32)
    labels = (x[:, 0, :2].mean(axis=(1, 2)) > 0).astype(np.int8)

    def learned() -> Any:
        with reproducible(5):
            nn = torch.nn
            body = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
            return nn.Sequential(*body, nn.Linear(12, 1))

    def tuned(frozen: int, parallel: Parallel | None = None) -> dict[str, Any]:
        module = learned()
        plan = Plan(7, 2, 16, 0.01, 0.01, 0.0, None, 0.0, frozen_epochs=frozen, start="told")
        with reproducible(7):
            train(module, x, labels, plan, None, parallel=parallel)
        found: dict[str, Any] = module.state_dict()
        return found

    alone, together = tuned(1), tuned(1, Parallel(kind, 2, timeout_s=300))
    for name, tensor in alone.items():
        np.testing.assert_allclose(tensor, together[name], atol=TOLERANCE, err_msg=name)
    for other in (tuned(0), tuned(2)):  # it was frozen for one epoch, and not for both
        assert (alone["0.weight"] - other["0.weight"]).abs().max() > 1e-3


def test_a_rank_that_fails_ends_the_training_with_its_reason() -> None:
    wild = Plan(7, 3, 13, 1e30, 0.0, 0.0, None, 0.1)
    with pytest.raises(CannotTrain, match="rank 0: its weights left all bounds in epoch 1"):
        gathered("ddp", plan=wild)


def test_what_cannot_be_shared_says_why() -> None:
    with pytest.raises(CannotTrain, match="ddp, fsdp, zero or None, 2 to 64 processes"):
        Parallel.of("tpu", 2)
    with pytest.raises(CannotTrain, match="processes=1"):
        Parallel.of("ddp", 1)
    assert Parallel.of(None, 2) is None
    with pytest.raises(CannotTrain, match="a layer Tanh is trained by one process"):
        sharded.described(torch.nn.Sequential(torch.nn.Tanh()))
    layers = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Flatten(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1)),
    )
    assert repr(sharded.built(sharded.described(layers))) == repr(layers)
