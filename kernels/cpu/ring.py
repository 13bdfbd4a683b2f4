"""Ring all-reduce on this processor: over arrays of one process, and over processes with shared memory.

Each of p ranks owns a buffer of n elements, cut into p chunks. In p - 1 steps of reduce-scatter a rank adds
its left neighbour's partial sum of one chunk to its own; in p - 1 steps of all-gather the finished chunks go
round. A rank sends 2 (p - 1) chunks, however many ranks there are almost 2 n elements: no algorithm sends
less. Source: Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TIMEOUT_S = 60.0
"""For a rank to come to a step."""


class RankFailed(RuntimeError):
    """A process of the ring ended before its work was done."""


def seconds(ranks: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """What a ring takes by the model: 2 (p - 1) / p * size / bandwidth + 2 (p - 1) latency.

    size: bytes of a buffer. bandwidth: bytes per second of a link. latency: seconds of a step.
    """
    return 2 * (ranks - 1) / ranks * size / bandwidth + 2 * (ranks - 1) * latency


def all_reduce(buffers: Sequence[Array]) -> None:
    """Give every buffer, (n,) of one dtype, the sum of all, in place.

    Integers are exact. A chunk's floats are added up in the order of the ring, so that all ranks have the
    same bits; they differ from a plain sum by less than (p - 1) eps sum |x|.
    """
    ranks = len(buffers)
    for step in range(2 * (ranks - 1)):
        for rank in range(ranks):
            _step(buffers[(rank - 1) % ranks], buffers[rank], rank, ranks, step)


def all_reduce_processes(buffers: Sequence[Array]) -> list[Array]:
    """The same, with a process for each rank: copies of the buffers, each with the sum.

    Raises RankFailed if a process ends early.
    """
    ranks, n, dtype = len(buffers), len(buffers[0]), buffers[0].dtype
    context = multiprocessing.get_context("spawn")
    memory = SharedMemory(create=True, size=max(1, ranks * n * dtype.itemsize))
    try:
        table = np.ndarray((ranks, n), dtype, memory.buf)
        table[:] = buffers
        barrier = context.Barrier(ranks)
        processes = [
            context.Process(target=_rank, args=(rank, ranks, n, dtype.str, memory.name, barrier))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise RankFailed(f"exit codes {[process.exitcode for process in processes]}")
        found = [row.copy() for row in table]
        del table
        return found
    finally:
        memory.close()
        memory.unlink()


def _rank(rank: int, ranks: int, n: int, dtype: str, name: str, barrier: Any) -> None:
    memory = SharedMemory(name)
    table: Array = np.ndarray((ranks, n), dtype, memory.buf)
    for step in range(2 * (ranks - 1)):
        barrier.wait(TIMEOUT_S)  # the left neighbour has done the step before
        _step(table[(rank - 1) % ranks], table[rank], rank, ranks, step)
    del table
    memory.close()


def _step(left: Array, mine: Array, rank: int, ranks: int, step: int) -> None:
    """Of reduce-scatter, ranks - 1 of them, then of all-gather."""
    gather = step - (ranks - 1)
    chunk = (rank - 1 - step if gather < 0 else rank - gather) % ranks
    span = slice(len(mine) * chunk // ranks, len(mine) * (chunk + 1) // ranks)
    if gather < 0:
        mine[span] += left[span]
    else:
        mine[span] = left[span]
