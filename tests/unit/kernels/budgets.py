"""Registers that the kernels may use on sm_90, one line for each source and set of macros that is in use.

With 65536 registers and 2048 threads, a multiprocessor is full of warps up to 32 registers a thread; 64 leave
half of them. Where a kernel needs more, the reason stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernels.gpu.attention import HEAD_DIMS
from kernels.gpu.matmul import TILES, GroupTiles, Tiles


@dataclass(frozen=True)
class Budget:
    """The most registers of each kernel of a source; none of them may spill."""

    source: str
    defines: dict[str, int | str]
    kernels: dict[str, int]

    def __str__(self) -> str:
        return " ".join([self.source, *(f"{k}={v}" for k, v in self.defines.items())])


FLOAT: dict[str, int | str] = {"T": "float", "VECTOR": "float4", "WIDE": 1}
DOUBLE: dict[str, int | str] = {"T": "double", "VECTOR": "double2", "WIDE": 0}
INT: dict[str, int | str] = {"T": "int", "VECTOR": "int4", "WIDE": 1}
LONG: dict[str, int | str] = {"T": "long long", "VECTOR": "longlong2", "WIDE": 0}

SUMS: list[dict[str, int | str]] = [
    {"T": "float", "ACC": "double"},
    {"T": "double", "ACC": "double"},
    {"T": "int", "ACC": "long long"},
    {"T": "long long", "ACC": "long long"},
]
HISTOGRAMS = {"histogram": 40, "histogram_all": 40, "histogram_rows": 40}
REDUCTIONS = {"reduce_atomic": 32, "reduce_tree": 32, "reduce_warp": 32, "reduce_vector": 40}

ELEMENTS: list[tuple[dict[str, int | str], dict[str, int | str]]] = [
    ({}, {}),
    ({}, {"PACK": 4}),
    ({"HALF": 1}, {"PACK": 8, "STEPS": 4}),
    ({"BF16": 1}, {}),
    ({"BF16": 1}, {"PACK": 8, "STEPS": 4}),
]
"""A type of elements, and the elements that are moved at a time."""

TOPK = [(32, 128, 1), (32, 384, 1), (32, 384, 4), (64, 384, 1), (128, 1024, 2), (256, 4096, 1)]
"""Keys that are kept, columns, queries of a block."""

BUDGETS: list[Budget] = [
    *(
        Budget("vector_add.cu", defines, {"vector_add": 32, "vector_add_scalar": 32})
        for defines in (FLOAT, DOUBLE, INT, LONG)
    ),
    *(
        Budget("reduction.cu", vectors | sums | {"OP": operation}, REDUCTIONS)
        for vectors, sums in zip((FLOAT, DOUBLE, INT, LONG), SUMS, strict=True)
        for operation in range(3)
    ),
    # Sixteen loads a thread on their way at once: four blocks of 256 threads have 64 KB in flight.
    *(
        Budget(
            "scan.cu",
            sums | {"EXCLUSIVE": exclusive},
            {"scan": 64, "tile_sums": 64, "scan_given": 64},
        )
        for sums in SUMS
        for exclusive in range(2)
    ),
    *(  # what the tuner may choose
        Budget("scan.cu", SUMS[0] | {"THREADS": n}, {"scan": 64, "tile_sums": 64, "scan_given": 64})
        for n in (128, 512)
    ),
    *(Budget("segments.cu", sums, {"segmented_scan": 64, "segmented_sums": 64}) for sums in SUMS),
    Budget("windows.cu", {}, {"window_starts": 40}),
    *(Budget("spmv.cu", sums, {"spmv_scalar": 32, "spmv_warp": 32}) for sums in SUMS[:2]),
    *(Budget("ring.cu", {"T": sums["T"]}, {"ring_reduce": 32, "ring_gather": 32}) for sums in SUMS),
    *(Budget("histogram.cu", {"T": t}, HISTOGRAMS) for t in ("float", "double")),
    # A row a thread, two compensated sums in float64: latency is hidden by arithmetic, not by warps.
    Budget("distances.cu", {}, {"distances": 64}),
    *(
        Budget(source, element | pack, {f"{kernel}_warp": 64, f"{kernel}_block": 40})
        for source, kernel in (("softmax.cu", "softmax"), ("layer_norm.cu", "layer_norm"))
        for element, pack in ELEMENTS
    ),
    *(
        Budget("gelu.cu", element | pack | tanh, {"gelu": 48, "bias_gelu": 48})
        for element, pack in ELEMENTS
        for tanh in ({}, {"TANH": 1})
    ),
    # 64 sums a thread: arithmetic hides what eight warps per scheduler would.
    Budget("matmul.cu", {}, {"matmul_naive": 40, "matmul_shared": 40, "matmul_registers": 128}),
    Budget(
        "matmul.cu",
        {"ALIGNED": 1},
        {"matmul_naive": 40, "matmul_shared": 40, "matmul_registers": 128},
    ),
    # 64 x 32 sums a warp: two blocks of 256; 64 x 64: one, with twice the arithmetic per load.
    *(
        Budget(
            "matmul_tensor.cu",
            element | tiles.defines(),
            {"matmul_wmma": 64, "matmul_mma": 255 if tiles.bn == 256 else 128},
        )
        for element in ({"HALF": 1}, {"BF16": 1})
        for tiles in TILES
        if isinstance(tiles, Tiles)
    ),
    # 64 x 256 sums a warpgroup are half of its registers: the other operands lie in shared memory.
    *(
        Budget("matmul_hopper.cu", {kind: 1} | tiles.defines(), {"matmul_wgmma": 224})
        for kind in ("HALF", "BF16")
        for tiles in TILES
        if isinstance(tiles, GroupTiles)
    ),
    # Output and scores of a tile stay in registers.
    *(
        Budget("attention.cu", {"HEAD_DIM": d} | causal | gelu, {"attention": 128})
        for d in HEAD_DIMS
        for causal, gelu in (({}, {}), ({"CAUSAL": 1}, {"GELU_OUT": 1}))
    ),
    *(
        Budget(
            "attention_tensor.cu",
            {"HEAD_DIM": d, "WARPS": 8, "KEYS": 64} | element | causal | gelu,
            {"attention_mma": 160 if d == 64 else 255},
        )
        for d in HEAD_DIMS
        for element in ({"HALF": 1}, {"BF16": 1})
        for causal, gelu in (({}, {}), ({"CAUSAL": 1}, {"GELU_OUT": 1}))
    ),
    *(
        Budget("attention_hopper.cu", {"HEAD_DIM": d, kind: 1} | more, {"attention_wgmma": 232})
        for d in HEAD_DIMS
        for kind in ("HALF", "BF16")
        for more in ({}, {"CAUSAL": 1, "GELU_OUT": 1})
    ),
    Budget("linear_int8.cu", {}, {"quantise_rows": 40, "linear_dp4a": 48, "linear_mma": 128}),
    # Eight rows on their way per warp, and two blocks: 64 KB in flight.
    *(
        Budget(
            "topk.cu",
            {"LIST": size, "DIM": dim, "QUERIES": queries},
            {
                "topk_scan": 128,
                "topk_tiles": 128,
                "topk_merge": 48,
                "rescore": 64,
                "inverse_lengths": 64,
            },
        )
        for size, dim, queries in TOPK
    ),
    *(
        Budget(
            "trees.cu",
            {"X": x, "SUM": total, "OUTPUTS": outputs, "WIDTH": width} | staged,
            {"trees_sum": 64},
        )
        for x, total, outputs, width, staged in (
            ("float", "float", 1, 1, {"STAGED": 1, "BASE_LAST": 1}),
            ("float", "double", 1, 1, {"STAGED": 1}),
            ("double", "double", 10, 1, {"STAGED": 1}),
            ("float", "double", 10, 10, {}),
        )
    ),
    Budget("linear_model.cu", {}, {"linear_margins": 40}),
]
