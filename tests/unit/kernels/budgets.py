"""Registers that the kernels may use on sm_90, one line for each source and set of macros that is in use.

With 65536 registers and 2048 threads, a multiprocessor is full of warps up to 32 registers a thread; 64 leave
half of them. Where a kernel needs more, the reason stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass


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
REDUCTIONS = {"reduce_atomic": 32, "reduce_tree": 32, "reduce_warp": 32, "reduce_vector": 40}

BUDGETS = [
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
    *(Budget("segments.cu", sums, {"segmented_scan": 64, "segmented_sums": 64}) for sums in SUMS),
    *(Budget("spmv.cu", sums, {"spmv_scalar": 32, "spmv_warp": 32}) for sums in SUMS[:2]),
    *(Budget("ring.cu", {"T": sums["T"]}, {"ring_reduce": 32, "ring_gather": 32}) for sums in SUMS),
    Budget("histogram.cu", {"T": "float"}, {"histogram": 32, "histogram_all": 32}),
    Budget("histogram.cu", {"T": "double"}, {"histogram": 32, "histogram_all": 32}),
    # A row a thread, two compensated sums in float64: latency is hidden by arithmetic, not by warps.
    Budget("distances.cu", {}, {"distances": 64}),
]
