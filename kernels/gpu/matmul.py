"""Matrix multiply on a device: `matmul.cu` in float32, `matmul_tensor.cu` in float16 and bfloat16."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.gpu.elements import FLOAT32, ceil_div, defines, element, grid
from kernels.gpu.runtime import Buffer, DeviceFailed, Runtime
from kernels.gpu.types import aligned

TILE = 32
STEPS = "naive", "shared", "registers"
TENSOR_STEPS = "wmma", "mma"


@dataclass(frozen=True, slots=True)
class Tiles:
    """Launch parameters of `matmul_mma`: what a block and its warps compute, and tiles on their way."""

    bm: int = 128
    bn: int = 128
    bk: int = 32
    stages: int = 4
    warps_m: int = 2
    warps_n: int = 4

    @property
    def name(self) -> str:
        return f"matmul_mma {self.bm} x {self.bn} x {self.bk}"

    @property
    def shared_bytes(self) -> int:
        return self.stages * (self.bm + self.bn) * self.bk * 2

    @property
    def threads(self) -> int:
        return 32 * self.warps_m * self.warps_n

    def defines(self) -> dict[str, int | str]:
        return {
            "BM": self.bm,
            "BN": self.bn,
            "BK": self.bk,
            "STAGES": self.stages,
            "WARPS_M": self.warps_m,
            "WARPS_N": self.warps_n,
        }


@dataclass(frozen=True, slots=True)
class GroupTiles:
    """Launch parameters of `matmul_wgmma`, for compute capability 9.0 alone."""

    bn: int = 256
    stages: int = 4
    bm: int = 128
    threads: int = 256

    @property
    def name(self) -> str:
        return f"matmul_wgmma {self.bm} x {self.bn} x 64"

    @property
    def shared_bytes(self) -> int:
        return self.stages * (self.bm + self.bn) * 128 + 1024

    def defines(self) -> dict[str, int | str]:
        return {"BN": self.bn, "STAGES": self.stages}


TILES: tuple[Tiles | GroupTiles, ...] = (
    Tiles(),
    Tiles(bn=256, bk=64, stages=3),
    Tiles(bk=64, stages=3),
    Tiles(bm=64, bn=64, warps_n=2),
    GroupTiles(),
    GroupTiles(bn=128, stages=6),
)
"""What a tuner may choose from; the first is the default."""
SMALL = 3
"""Place of the tiling for small matrices."""


def matmul(runtime: Runtime, a: Buffer, b: Buffer, step: str = "registers") -> Buffer:
    """(m, n) float32 = a (m, k) times b (k, n), float32; `step`: one of STEPS."""
    (m, k), n = a.shape, b.shape[1]
    c = runtime.empty((m, n), FLOAT32)
    if m * n == 0:
        return c
    fours = k % 4 == 0 and n % 4 == 0 and aligned(a, b)
    kernel = runtime.kernel("matmul.cu", f"matmul_{step}", **({"ALIGNED": 1} if fours else {}))
    size, block = (128, (256, 1, 1)) if step == "registers" else (TILE, (TILE, TILE, 1))
    kernel(
        *(a, b, c),
        *map(np.int32, (m, n, k)),
        grid=grid(ceil_div(n, size), ceil_div(m, size)),
        block=block,
    )
    return c


def matmul_tensor(
    runtime: Runtime,
    a: Buffer,
    b: Buffer,
    step: str = "mma",
    tiles: Tiles | GroupTiles = TILES[0],
) -> Buffer:
    """(m, n) = a (m, k) times b (k, n), float16 or bfloat16, summed in float32; `tiles` say by which kernel.

    k and n must be multiples of 8 and the operands aligned to 16 bytes; for `wmma` all three multiples of 16.
    Raises DeviceFailed if they are not.
    """
    dtype = element(a.dtype)
    (m, k), n = a.shape, b.shape[1]
    c = runtime.empty((m, n), dtype)
    if m * n == 0:
        return c
    multiple = 16 if step == "wmma" else 8
    if (k | n | (m if step == "wmma" else 0)) % multiple or not aligned(a, b):
        raise DeviceFailed(
            f"shapes ({m}, {k}) and ({k}, {n}) are no multiples of {multiple}, or not aligned"
        )
    if step == "wmma":
        kernel = runtime.kernel("matmul_tensor.cu", "matmul_wmma", **defines(dtype))
        place, block, shared = grid(n // 16, ceil_div(m, 64)), (32, 4, 1), 0
    else:
        if isinstance(tiles, GroupTiles):
            if runtime.properties.compute_capability != (9, 0):
                raise DeviceFailed(
                    "matmul_wgmma: compute capability 9.0 alone has its instructions"
                )
            source, name = "matmul_hopper.cu", "matmul_wgmma"
        else:
            source, name = "matmul_tensor.cu", "matmul_mma"
        kernel = runtime.kernel(source, name, **defines(dtype), **tiles.defines())
        blocks = ceil_div(m, tiles.bm) * ceil_div(n, tiles.bn)
        place, block, shared = (blocks, 1, 1), (tiles.threads, 1, 1), tiles.shared_bytes
    kernel(*(a, b, c), *map(np.int32, (m, n, k)), grid=place, block=block, shared=shared)
    return c
