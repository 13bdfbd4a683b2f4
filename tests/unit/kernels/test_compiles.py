"""Every CUDA source compiles for sm_90, within its budget of registers and without a spill."""

from __future__ import annotations

import re

import pytest

from kernels.gpu import nvcc
from kernels.gpu.runtime import source_text
from tests.unit.kernels.budgets import BUDGETS, Budget

_KERNEL = re.compile(r"__global__ void\s+(?:__launch_bounds__\s*\([^;{]*?\)\s+)?(\w+)\(")


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_it_compiles_within_its_budget(budget: Budget) -> None:
    if nvcc.find() is None:
        pytest.skip("nvcc is not installed (the extra `dev` brings it for Linux)")
    found = nvcc.resources(budget.source, budget.defines)
    assert found.keys() == budget.kernels.keys()
    over = {k: r.registers for k, r in found.items() if r.registers > budget.kernels[k]}
    assert not over, f"more registers than {budget.kernels}"
    spilled = {k: r for k, r in found.items() if r.spilled or r.stack}
    assert not spilled, "local memory is used"


def test_every_source_and_kernel_has_a_budget() -> None:
    sources = {path.name for path in nvcc.SOURCES.glob("*.cu")}
    assert sources == {budget.source for budget in BUDGETS}
    for source in sources:
        declared = set(_KERNEL.findall(source_text(source)))
        budgeted = {name for b in BUDGETS if b.source == source for name in b.kernels}
        assert declared <= budgeted, f"{source}: no budget for {declared - budgeted}"


def test_a_source_that_does_not_compile_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    if nvcc.find() is None:
        pytest.skip("nvcc is not installed")
    monkeypatch.setattr(nvcc, "source_text", lambda _: "__global__ void broken() { nothing; }")
    with pytest.raises(nvcc.DeviceFailed, match="nothing"):
        nvcc.resources("broken.cu", {})


def test_a_spill_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cap of 24 registers, 64 values that live at once do not fit."""
    if nvcc.find() is None:
        pytest.skip("nvcc is not installed")
    source = """// nvcc: -maxrregcount=24
    extern "C" __global__ void full(float *x) {
        float v[64];
        #pragma unroll
        for (int i = 0; i < 64; ++i) v[i] = x[i * 32 + threadIdx.x];
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 64; ++i) x[i * 32 + threadIdx.x] = v[63 - i] * v[i];
    }"""
    monkeypatch.setattr(nvcc, "source_text", lambda _: source)
    assert nvcc.resources("full.cu", {})["full"].spilled > 0
