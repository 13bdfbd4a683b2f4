"""Drift statistics over histograms."""

from kernels.reference import bin_index, histogram, js, ks, psi

__all__ = ["bin_index", "histogram", "js", "ks", "psi"]
