"""The arithmetic of driftlog's hot paths, one call each, on the right device."""

from kernels.calls.blocks import (
    Segments,
    add,
    all_reduce,
    reduce,
    scan,
    segmented_scan,
    segments,
    spmv,
    windows,
)
from kernels.calls.drift import (
    Column,
    accumulate,
    distances,
    histogram,
    histograms,
    js_rows,
    ks_rows,
    load,
    psi_rows,
)
from kernels.calls.models import (
    LinearModel,
    Tree,
    TreeEnsemble,
    ensemble,
    linear_margins,
    trees_sum,
)
from kernels.calls.neural import attention, gelu, layer_norm, matmul, softmax
from kernels.calls.quantised import Int8Linear, linear_int8, quantised
from kernels.calls.retrieval import CosineIndex, Neighbours, topk
from kernels.cpu.distances import Distances
from kernels.cpu.histogram import tally
from kernels.cpu.moments import add_moments, mean_and_variance, no_ranges
from kernels.dispatch import CPU, Device, in_use, use, used
from kernels.gpu.runtime import DeviceFailed, NoGpu, OutOfMemory
from kernels.reference import bin_index, js, ks, psi

__all__ = [
    "CPU",
    "Column",
    "CosineIndex",
    "Device",
    "DeviceFailed",
    "Distances",
    "Int8Linear",
    "LinearModel",
    "Neighbours",
    "NoGpu",
    "OutOfMemory",
    "Segments",
    "Tree",
    "TreeEnsemble",
    "accumulate",
    "add",
    "add_moments",
    "all_reduce",
    "attention",
    "bin_index",
    "distances",
    "ensemble",
    "gelu",
    "histogram",
    "histograms",
    "in_use",
    "js",
    "js_rows",
    "ks",
    "ks_rows",
    "layer_norm",
    "linear_int8",
    "linear_margins",
    "load",
    "matmul",
    "mean_and_variance",
    "no_ranges",
    "psi",
    "psi_rows",
    "quantised",
    "reduce",
    "scan",
    "segmented_scan",
    "segments",
    "softmax",
    "spmv",
    "tally",
    "topk",
    "trees_sum",
    "use",
    "used",
    "windows",
]
