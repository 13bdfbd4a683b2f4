"""Drift's arithmetic: histograms, moments, and distances of histograms, on the right device."""

from kernels.counting import tally
from kernels.dispatch import (
    accumulate,
    distances,
    histograms,
    js_rows,
    ks_rows,
    load,
    psi_rows,
    use,
)
from kernels.moments import add_moments, mean_and_variance, no_ranges
from kernels.reference import bin_index, histogram, js, ks, psi
from kernels.scores import Distances

__all__ = [
    "Distances",
    "accumulate",
    "add_moments",
    "bin_index",
    "distances",
    "histogram",
    "histograms",
    "js",
    "js_rows",
    "ks",
    "ks_rows",
    "load",
    "mean_and_variance",
    "no_ranges",
    "psi",
    "psi_rows",
    "tally",
    "use",
]
