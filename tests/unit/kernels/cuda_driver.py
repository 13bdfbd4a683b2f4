"""PyCUDA's part in `kernels.gpu`, played by the processor: the .cu files run unmodified (see the header)."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LAUNCHERS = {  # file -> its kernel, and the parameters that this declares
    "histogram.cu": (
        "histogram",
        (
            "const double *x, const double *edges, const int *slot, long long n, int levels,"
            " int bins, int first, int slots_here, int copies, unsigned long long *counts"
        ),
    ),
    "scores.cu": (
        "distances",
        "const long long *p, const long long *q, const long long *sizes, int rows, int width, double *out",
    ),
}


class Function:
    """A kernel of a compiled source; called as PyCUDA calls one."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._run = getattr(library, f"run_{name}")

    def __call__(self, *arguments: Any, block: tuple, grid: tuple, shared: int = 0) -> None:
        plain = [
            ctypes.c_void_p(argument.ctypes.data)
            if isinstance(argument, np.ndarray)
            else (ctypes.c_longlong if argument.dtype == np.int64 else ctypes.c_int)(int(argument))
            for argument in arguments
        ]
        self._run(
            *map(ctypes.c_uint, grid), ctypes.c_uint(block[0]), ctypes.c_size_t(shared), *plain
        )


def compiled(source: Path, folder: Path) -> ctypes.CDLL:
    """A .cu file as a shared library with a launcher for its kernel."""
    name, parameters = LAUNCHERS[source.name]
    names = ", ".join(part.split()[-1].lstrip("*") for part in parameters.split(","))
    launcher = folder / f"{name}.cpp"
    launcher.write_text(
        f'#include "{HERE / "cuda_on_cpu.h"}"\n#include "{source}"\n'
        f'extern "C" void run_{name}(unsigned across, unsigned down, unsigned threads, size_t bytes,'
        f" {parameters})\n"
        f"{{ cuda_on_cpu::launch({{across, down, 1}}, threads, bytes, [=] {{ {name}({names}); }}); }}\n"
    )
    library = folder / f"{name}.so"
    command = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([*command, str(launcher), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def modules(folder: Path, sources: Path) -> dict[str, ModuleType]:
    """What `import pycuda.driver` and `import pycuda.compiler` give, for sys.modules."""
    driver, compiler, package = (
        ModuleType(name) for name in ("pycuda.driver", "pycuda.compiler", "pycuda")
    )

    class Error(Exception):
        pass

    class Context:
        depth = 0

        def push(self) -> None:
            Context.depth += 1

        @staticmethod
        def pop() -> None:
            Context.depth -= 1

    class Device:
        def __init__(self, number: int) -> None:
            assert number == 0

        def name(self) -> str:
            return "played by the processor"

        def retain_primary_context(self) -> Context:
            return Context()

    def source_module(source: str, options: list[str], no_extern_c: bool) -> Any:
        assert options == ["--fmad=false"] and no_extern_c
        path = next(path for path in sources.glob("*.cu") if path.read_text() == source)
        library = compiled(path, folder)
        module = ModuleType(path.name)
        module.get_function = lambda name: Function(library, name)  # type: ignore[attr-defined]
        return module

    def to_device(array: np.ndarray) -> np.ndarray:
        assert Context.depth == 1 and array.flags.c_contiguous
        return array.copy()

    def memcpy_dtoh(target: np.ndarray, source: np.ndarray) -> None:
        target.reshape(-1).view(np.uint8)[:] = source.reshape(-1).view(np.uint8)

    driver.__dict__.update(
        Error=Error, Context=Context, Device=Device, to_device=to_device, memcpy_dtoh=memcpy_dtoh
    )
    driver.__dict__.update(init=lambda: None, mem_alloc=lambda size: np.empty(size, np.uint8))
    compiler.__dict__.update(SourceModule=source_module)
    package.__dict__.update(driver=driver, compiler=compiler)
    return {"pycuda": package, "pycuda.driver": driver, "pycuda.compiler": compiler}
