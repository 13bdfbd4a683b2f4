"""References in NumPy and plain Python, one module for each family of kernels: the truth."""

from kernels.reference.drift import DECIMALS, bin_index, histogram, js, ks, psi

__all__ = ["DECIMALS", "bin_index", "histogram", "js", "ks", "psi"]
