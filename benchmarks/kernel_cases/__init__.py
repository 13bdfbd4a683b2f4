"""The kernels that `python -m benchmarks.kernels` measures: a list of cases for each family."""

from benchmarks.kernel_cases import blocks, drift, neural, retrieval
from benchmarks.kernel_cases.case import Case, Maker

CASES: list[Maker] = [*blocks.CASES, *drift.CASES, *neural.CASES, *retrieval.CASES]

__all__ = ["CASES", "Case", "Maker"]
