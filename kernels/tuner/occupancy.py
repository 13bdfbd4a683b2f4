"""How many warps of a kernel a multiprocessor holds at once: what hides the latency of memory.

Source: NVIDIA, CUDA C++ Programming Guide, "Technical Specifications per Compute Capability", and the
occupancy calculator's rules for how registers and shared memory are handed out (cuda_occupancy.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kernels.gpu.runtime import Properties

REGISTER_UNIT = 256
"""Registers of a warp are handed out in multiples of so many."""
PARTITIONS = 4
"""Of a multiprocessor; each has its own registers, and whole warps live in one."""
SHARED_UNIT = 128
"""Bytes."""
SHARED_RESERVED = 1024
"""Bytes of each block that the system keeps, from compute capability 8.0 on."""
MOST_REGISTERS = 255
"""Of a thread."""
BLOCKS = {(8, 0): 32, (8, 6): 16, (8, 7): 16, (8, 9): 24, (9, 0): 32}
"""A multiprocessor's, by compute capability."""

Limit = Literal["blocks", "warps", "registers", "shared memory"]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Of a multiprocessor, with blocks of one kernel."""

    blocks: int
    warps: int
    share: float
    """Of the warps that it can hold, 0..1."""
    limit: Limit
    """What allows no further block."""


def occupancy(device: Properties, threads: int, registers: int, shared: int = 0) -> Occupancy:
    """Of blocks of `threads`, with `registers` a thread and `shared` bytes (static and dynamic) a block.

    0 blocks: it cannot be launched. Raises ValueError for a device whose rules are not known here.
    """
    most_blocks = BLOCKS.get(device.compute_capability)
    if most_blocks is None:
        raise ValueError(f"occupancy of compute capability {device.compute_capability}: not known")
    warps = -(-threads // device.warp)
    most_warps = device.threads_per_multiprocessor // device.warp
    limits: dict[Limit, int] = {
        "blocks": most_blocks,
        "warps": most_warps // warps,
        "registers": _by_registers(device, warps, registers),
        "shared memory": _by_shared(device, shared),
    }
    limit = min(limits, key=lambda name: limits[name])
    blocks = limits[limit] if threads <= 1024 else 0
    return Occupancy(blocks, blocks * warps, blocks * warps / most_warps, limit)


def _by_registers(device: Properties, warps: int, registers: int) -> int:
    if registers > MOST_REGISTERS:
        return 0
    of_warp = -(-max(1, registers) * device.warp // REGISTER_UNIT) * REGISTER_UNIT
    of_block = of_warp * -(-warps // PARTITIONS) * PARTITIONS
    if of_block > device.registers_per_multiprocessor:
        return 0
    per_partition = device.registers_per_multiprocessor // PARTITIONS // of_warp
    return per_partition * PARTITIONS // warps


def _by_shared(device: Properties, shared: int) -> int:
    if shared > device.shared_per_block:
        return 0
    taken = -(-(shared + SHARED_RESERVED) // SHARED_UNIT) * SHARED_UNIT
    return device.shared_per_multiprocessor // taken
