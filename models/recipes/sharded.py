"""A training by several processes that share each batch (torch.distributed over gloo, on loopback).

The ranks draw the same order of rows and each takes its share of every batch, so that together they make the
steps that one process makes, up to the rounding of sums in another order; dropout alone differs. What they
leave after an epoch is gathered: one process may go on from it, and the other way round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.recipes import checkpoints
from models.recipes.errors import CannotTrain
from models.recipes.torch_training import Parallel, Plan, torch_or_refuse

INPUTS, SPEC, RESULT = "inputs.safetensors", "spec.json", "result.safetensors"
MARK = "driftlog rank: "
"""Begins the line in which a rank says why it failed."""
Layers = list[list[Any]]


def train(
    module: Any,
    x: NDArray[np.float32],
    labels: NDArray[Any],
    plan: Plan,
    weights: tuple[float, float],
    checkpoint: Path | None,
    parallel: Parallel,
    held: list[dict[str, int]] | None = None,
) -> checkpoints.Standing:
    """Where the training stands in the end, gathered. `module`: a Sequential of the recipes' layers.

    `held`: is given the bytes of weights and optimiser state in each rank. Raises CannotTrain with the
    reason of the rank that failed first; the others are ended.
    """
    torch = torch_or_refuse()
    from safetensors.torch import save_file

    layers = described(module)
    with tempfile.TemporaryDirectory(prefix="driftlog-") as name:
        folder = Path(name)
        tensors = {f"weights.{n}": t.detach().contiguous() for n, t in module.state_dict().items()}
        tensors["x"] = torch.from_numpy(np.ascontiguousarray(x))
        tensors["labels"] = torch.from_numpy(labels.astype(np.float64))
        save_file(tensors, folder / INPUTS)
        with _store(torch, parallel) as port:
            spec = {
                "layers": layers,
                "plan": asdict(plan),
                "weights": weights,
                "checkpoint": str(checkpoint) if checkpoint else None,
                "parallel": asdict(parallel),
                "port": port,
            }
            (folder / SPEC).write_text(json.dumps(spec))
            _run(folder, parallel)
        standing = checkpoints.load(folder / RESULT)
        if held is not None:
            ranks = range(parallel.processes)
            held += [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in ranks]
    if standing is None:
        raise CannotTrain("the ranks ended without a result")
    return standing


def described(module: Any) -> Layers:
    """The layers as plain data, [kind, arguments...] each; raises CannotTrain for a layer of another kind."""
    torch = torch_or_refuse()
    nn, found = torch.nn, list[list[Any]]()
    for layer in module:
        if isinstance(layer, nn.Linear):
            found.append(["Linear", layer.in_features, layer.out_features])
        elif isinstance(layer, nn.Conv2d):
            sizes = [layer.in_channels, layer.out_channels, layer.kernel_size[0], 1]
            found.append(["Conv2d", *sizes, layer.padding[0]])
        elif isinstance(layer, nn.MaxPool2d):
            found.append(["MaxPool2d", layer.kernel_size])
        elif isinstance(layer, nn.Dropout):
            found.append(["Dropout", layer.p])
        elif isinstance(layer, nn.ReLU | nn.Flatten):
            found.append([type(layer).__name__])
        else:
            raise CannotTrain(
                f"parallel: a layer {type(layer).__name__} is trained by one process: leave it out"
            )
    return found


def built(layers: Layers) -> Any:
    """The Sequential that `described` told."""
    nn = torch_or_refuse().nn
    return nn.Sequential(*(getattr(nn, kind)(*arguments) for kind, *arguments in layers))


@contextmanager
def _store(torch: Any, parallel: Parallel) -> Iterator[int]:
    """Where the ranks find each other: a store on loopback, at a port that the system chooses."""
    from datetime import timedelta

    store = torch.distributed.TCPStore(
        "127.0.0.1",
        0,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=parallel.timeout_s),
    )
    yield store.port
    del store


def _run(folder: Path, parallel: Parallel) -> None:
    house = str(Path(__file__).parents[2])
    paths = [house, *filter(None, [os.environ.get("PYTHONPATH")])]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "models.recipes.sharded_rank", str(folder), str(rank)],
            env=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for rank in range(parallel.processes)
    ]
    try:
        with ThreadPoolExecutor(len(ranks)) as pool:
            try:
                pending = {pool.submit(rank.communicate): n for n, rank in enumerate(ranks)}
                while pending:
                    for one in wait(pending, return_when=FIRST_COMPLETED).done:
                        number = pending.pop(one)
                        if ranks[number].returncode:
                            raise CannotTrain(_reason(number, ranks[number], one.result()[1]))
            finally:
                for rank in ranks:
                    rank.kill()
    finally:
        for rank in ranks:
            rank.wait()


def _reason(number: int, rank: subprocess.Popen[str], said: str) -> str:
    told = [line.removeprefix(MARK) for line in said.splitlines() if line.startswith(MARK)]
    if told:
        return f"rank {number}: {told[-1]}"
    if rank.returncode < 0:
        return f"rank {number} was ended by signal {-rank.returncode}"
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    return f"rank {number} ended with status {rank.returncode}: {last[0][:300]}"
