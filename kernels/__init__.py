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
    accumulate,
    distances,
    histograms,
    js_rows,
    ks_rows,
    load,
    psi_rows,
)
from kernels.cpu.distances import Distances
from kernels.cpu.histogram import tally
from kernels.cpu.moments import add_moments, mean_and_variance, no_ranges
from kernels.dispatch import Device, in_use, use, used
from kernels.gpu.runtime import DeviceFailed, NoGpu, OutOfMemory
from kernels.reference import bin_index, histogram, js, ks, psi

__all__ = [
    "Device",
    "DeviceFailed",
    "Distances",
    "NoGpu",
    "OutOfMemory",
    "Segments",
    "accumulate",
    "add",
    "add_moments",
    "all_reduce",
    "bin_index",
    "distances",
    "histogram",
    "histograms",
    "in_use",
    "js",
    "js_rows",
    "ks",
    "ks_rows",
    "load",
    "mean_and_variance",
    "no_ranges",
    "psi",
    "psi_rows",
    "reduce",
    "scan",
    "segmented_scan",
    "segments",
    "spmv",
    "tally",
    "use",
    "used",
    "windows",
]
