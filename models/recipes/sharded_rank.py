"""One rank of a training by several processes: `python -m models.recipes.sharded_rank FOLDER RANK`.

The folder holds what `models.recipes.sharded` wrote there; rank 0 leaves the result in it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from models.recipes import checkpoints
from models.recipes.errors import CannotTrain
from models.recipes.losses import focal_loss, log_loss_of, margin_shift
from models.recipes.sharded import INPUTS, MARK, RESULT, SPEC, built
from models.recipes.torch_training import Curves, Parallel, Plan, margins_of, reproducible, stale


class Rank:
    """A share of the rows of each batch, and, by the kind, of the optimiser and the weights."""

    def __init__(self, torch: Any, folder: Path, rank: int) -> None:
        from safetensors.torch import load_file

        spec = json.loads((folder / SPEC).read_text())
        given = load_file(folder / INPUTS)
        self.torch = torch
        self.folder = folder
        self.rank = rank
        self.plan = Plan(**spec["plan"])
        self.parallel = Parallel(**spec["parallel"])
        self.world = self.parallel.processes
        self.inputs, self.labels = given.pop("x"), given.pop("labels")
        self.truth = self.labels.float()
        self.class_weights = (float(spec["weights"][0]), float(spec["weights"][1]))
        self.checkpoint = Path(spec["checkpoint"]) if spec["checkpoint"] else None
        self._join(int(spec["port"]))
        self.whole = built(spec["layers"])
        """A copy of the network with gathered weights, to look at."""
        standing = checkpoints.load(self.checkpoint)
        self.curves: Curves = {"training": [], "validation": []}
        self.best: dict[str, Any] = {}
        self.done = 0
        adam: dict[int, dict[str, Any]] = {}
        weights = _part(given, "weights.")
        if standing is not None:
            weights, self.best = (
                _part(standing.tensors, "weights."),
                _part(standing.tensors, "best."),
            )
            self.curves = {name: list(losses) for name, losses in standing.curves.items()}
            self.done = standing.epochs
            for name, tensor in _part(standing.tensors, "adam.").items():
                index, _, part = name.partition(".")
                adam.setdefault(int(index), {})[part] = tensor
        self.whole.load_state_dict(weights)
        self.module = built(spec["layers"])
        self.module.load_state_dict(weights)
        self._share(adam)

    def train(self) -> None:
        """To the end, or until the validation has had no better epoch for `patience` ones."""
        plan, torch = self.plan, self.torch
        fitted = len(self.inputs) - int(len(self.inputs) * plan.validation_share)
        for epoch in range(self.done, plan.epochs):
            if self._over():
                break
            # The dropout of each rank is its own.
            torch.manual_seed((plan.seed * 100_003 + epoch) * self.world + self.rank)
            order = np.random.default_rng((plan.seed, epoch)).permutation(fitted)
            self.model.train()
            frozen = self._convolutions() if epoch < plan.frozen_epochs else []
            for begin in range(0, fitted, plan.batch):
                batch = order[begin : begin + plan.batch]
                rows = torch.from_numpy(batch[self.rank :: self.world])
                self._step(rows, len(batch), frozen)
            self._look(epoch, fitted)
        if self.rank == 0:
            checkpoints.save(self.folder / RESULT, self._standing(self.done))

    def bytes_held(self) -> dict[str, int]:
        """Of weights and optimiser state in this rank."""
        local = [p.to_local() if hasattr(p, "to_local") else p for p in self.model.parameters()]
        inner = getattr(self.optimizer, "optim", self.optimizer)
        states = [value for state in inner.state.values() for value in state.values()]
        held = [v.to_local() if hasattr(v, "to_local") else v for v in states]
        return {
            "weights": sum(p.numel() * p.element_size() for p in local),
            "optimizer": sum(v.numel() * v.element_size() for v in held if hasattr(v, "numel")),
        }

    def _join(self, port: int) -> None:
        distributed = self.torch.distributed
        limit = timedelta(seconds=self.parallel.timeout_s)
        store = distributed.TCPStore("127.0.0.1", port, is_master=False, timeout=limit)
        distributed.init_process_group(
            "gloo", store=store, rank=self.rank, world_size=self.world, timeout=limit
        )

    def _share(self, adam: Mapping[int, Mapping[str, Any]]) -> None:
        """Wrap the module, and give the optimiser its part of where it stood."""
        torch, plan, kind = self.torch, self.plan, self.parallel.kind
        adamw, options = torch.optim.AdamW, {"weight_decay": plan.weight_decay}
        if kind == "fsdp":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard
            from torch.distributed.tensor import distribute_tensor

            mesh = init_device_mesh("cpu", (self.world,))
            self.model = fully_shard(self.module, mesh=mesh)
            self.optimizer = adamw(self.model.parameters(), plan.learning_rate, **options)
            for index, parameter in enumerate(self.model.parameters()):
                if index in adam:
                    self.optimizer.state[parameter] = {
                        name: value
                        if name == "step"
                        else distribute_tensor(value, mesh, parameter.placements)
                        for name, value in adam[index].items()
                    }
            return
        self.model = torch.nn.parallel.DistributedDataParallel(self.module)
        parameters = list(self.model.parameters())
        if kind == "zero":
            from torch.distributed.optim import ZeroRedundancyOptimizer

            self.optimizer = ZeroRedundancyOptimizer(
                parameters, adamw, lr=plan.learning_rate, **options
            )
        else:
            self.optimizer = adamw(parameters, plan.learning_rate, **options)
        if adam:
            group = {
                **adamw(parameters, plan.learning_rate, **options).state_dict()["param_groups"][0]
            }
            state = {index: dict(values) for index, values in adam.items()}
            self.optimizer.load_state_dict({"state": state, "param_groups": [group]})

    def _convolutions(self) -> list[Any]:
        """Their parameters."""
        kind = self.torch.nn.Conv2d
        return [p for la in self.module if isinstance(la, kind) for p in la.parameters()]

    def _step(self, rows: Any, size: int, frozen: Sequence[Any] = ()) -> None:
        """`rows`: this rank's of a batch of `size`. Gradients are averaged over the ranks.

        What gradients they share the ranks agree about once, when they begin: what is `frozen` gets one, too,
        and it is not used.
        """
        self.optimizer.zero_grad()
        margins = self.model(self.inputs[rows])[:, 0]
        if len(rows):
            loss = focal_loss(margins, self.truth[rows], self.class_weights, self.plan.focal)
            loss = loss * (len(rows) * self.world / size)
        else:  # the last batch may have fewer rows than there are ranks
            loss = margins.sum() * 0.0
        loss.backward()
        for parameter in frozen:
            parameter.grad = None
        self.optimizer.step()

    def _look(self, epoch: int, fitted: int) -> None:
        """Gather the weights, measure the epoch, leave a checkpoint."""
        weights, adam = self._gathered()
        self.done = epoch + 1
        if self.rank:
            return
        self.whole.load_state_dict(weights)
        self._adam = adam
        labels = self.labels.numpy()
        margins = margins_of(self.whole, self.inputs) - margin_shift(self.class_weights)
        if not np.isfinite(margins).all():
            raise CannotTrain(
                f"its weights left all bounds in epoch {epoch + 1}: lower learning_rate"
            )
        self.curves["training"].append(log_loss_of(margins[:fitted], labels[:fitted]))
        if fitted < len(margins):
            self.curves["validation"].append(log_loss_of(margins[fitted:], labels[fitted:]))
        deciding = self.curves["validation"]
        if not deciding or deciding[-1] <= min(deciding):
            self.best = {name: tensor.clone() for name, tensor in weights.items()}
        if self.checkpoint is not None:
            checkpoints.save(self.checkpoint, self._standing(epoch + 1))

    def _over(self) -> bool:
        """Rank 0 alone has the losses; the others do as it says."""
        patience = self.plan.patience
        late = self.rank == 0 and patience > 0 and stale(self.curves["validation"]) >= patience
        flag = self.torch.tensor([int(late)])
        self.torch.distributed.broadcast(flag, 0)
        return bool(flag.item())

    def _gathered(self) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
        """All weights, and the optimiser's state by the number of the parameter (in rank 0)."""
        kind = self.parallel.kind
        if kind == "fsdp":
            weights = {n: _full(t) for n, t in self.model.state_dict().items()}
            states = [self.optimizer.state[p] for p in self.model.parameters()]
            return weights, {
                index: {name: _full(value) for name, value in state.items()}
                for index, state in enumerate(states)
            }
        if kind == "zero":
            self.optimizer.consolidate_state_dict(to=0)
        weights = {name: t.detach().clone() for name, t in self.module.state_dict().items()}
        return weights, self.optimizer.state_dict()["state"] if self.rank == 0 else {}

    def _standing(self, epochs: int) -> checkpoints.Standing:
        tensors = {f"weights.{n}": t.clone() for n, t in self.whole.state_dict().items()}
        tensors |= {f"best.{n}": t for n, t in self.best.items()}
        for index, state in getattr(self, "_adam", {}).items():
            for name, value in state.items():
                tensors[f"adam.{index}.{name}"] = self.torch.as_tensor(value).clone()
        return checkpoints.Standing(epochs, tensors, self.curves)


def _part(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return {name: tensor.clone() for name, tensor in found.items()}


def _full(value: Any) -> Any:
    """Every rank must ask for it."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def main(folder: str, number: str) -> int:
    """Status 0, or 1 with a line on stderr that says why."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        seed = json.loads((Path(folder) / SPEC).read_text())["plan"]["seed"]
        with reproducible(seed) as torch:
            rank = Rank(torch, Path(folder), int(number))
            rank.train()
            held = json.dumps(rank.bytes_held())
            (Path(folder) / f"rank-{number}.json").write_text(held)
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except Exception as error:  # whatever it is, the training ends with it
        name = "" if isinstance(error, CannotTrain) else f"{type(error).__name__}: "
        print(f"{MARK}{name}{' '.join(str(error).split())[:300]}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
