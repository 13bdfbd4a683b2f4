"""The emulator runs the CUDA sources, in both orders of threads and blocks; a GPU does where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

import kernels
from kernels.gpu.emulator import Emulator
from kernels.gpu.pycuda import PyCuda
from kernels.gpu.runtime import NoGpu, Runtime


def _opened(kind: str) -> Runtime:
    if kind != "cuda":
        if shutil.which("g++") is None:
            pytest.skip("the emulator needs g++, which is not installed")
        return Emulator(reverse=kind == "emulator, reverse")
    try:
        return PyCuda()
    except NoGpu as error:
        if os.environ.get("REQUIRE_GPU"):
            pytest.fail(f"REQUIRE_GPU: {error}")
        pytest.skip(str(error))


@pytest.fixture(
    scope="session",
    params=["emulator", "emulator, reverse", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Every device there is."""
    return _opened(request.param)


@pytest.fixture(scope="session")
def emulator() -> Runtime:
    """Where one device is enough."""
    return _opened("emulator")


@pytest.fixture
def in_use(emulator: Runtime) -> Iterator[kernels.Device]:
    """The emulator takes every call, however small."""
    device = kernels.Device(emulator, "emulator", otherwise=1)
    kernels.use(device)
    yield device
    kernels.use(None)
