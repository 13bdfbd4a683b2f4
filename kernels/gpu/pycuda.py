"""The runtime on an NVIDIA GPU, through PyCUDA, which is asked for only here.

It lives in the device's primary context, which torch and CuPy share, and on the default stream: arrays of
theirs are used without a copy and without a synchronisation.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import kernels
from kernels.gpu import nvcc
from kernels.gpu.runtime import (
    Array,
    DeviceFailed,
    Macros,
    NoGpu,
    OutOfMemory,
    Properties,
    Shape,
    Size,
    array_interface,
    borrowed,
    macros_of,
    same_size,
    shape_of,
    source_options,
    source_text,
    with_macros,
)

SOURCES = Path(kernels.__file__).parent / "cuda"
SHARED_UNASKED = 48 * 1024
"""Bytes of shared memory that a block gets without opting in."""


class PyCuda:
    """A `kernels.gpu.runtime.Runtime`: the CUDA device of this number. Raises NoGpu without one."""

    def __init__(self, number: int = 0) -> None:
        try:
            import pycuda.driver as cuda  # type: ignore[import-not-found,unused-ignore]
            from pycuda.compiler import compile as compiled  # type: ignore[import-not-found,unused-ignore]
            from pycuda.tools import DeviceMemoryPool  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise NoGpu(f"DRIFTLOG_DEVICE: PyCUDA is not installed ({error})") from error
        self.cuda: Any = cuda
        self._compiled: Any = compiled
        try:
            cuda.init()
            device = cuda.Device(number)
            self._context = device.retain_primary_context()
            self.properties = _properties(cuda, device)
            with self.current():
                self._held = _Held(DeviceMemoryPool())
        except (cuda.Error, DeviceFailed) as error:
            raise NoGpu(f"DRIFTLOG_DEVICE: no CUDA device can be used: {error}") from error
        weakref.finalize(self, _let_go, cuda, self._context, self._held)

    def current(self) -> AbstractContextManager[None]:
        """The device's context, for the calling thread; PyCUDA's errors become ours."""
        return _current(self.cuda, self._context)

    def kernel(self, source: str, name: str, **defines: int | str) -> CudaKernel:
        macros = macros_of(defines)
        key = source, name, macros
        if key not in self._held.kernels:
            with self.current():
                function = self._module(source, macros).get_function(name)
                self._held.kernels[key] = CudaKernel(self.cuda, self._context, function)
        return self._held.kernels[key]

    def empty(self, shape: Shape, dtype: Any) -> CudaBuffer:
        sizes, kind = shape_of(shape), np.dtype(dtype)
        size = math.prod(sizes) * int(kind.itemsize)
        with self.current():
            memory = self._held.pool.allocate(max(1, size))
        buffer = CudaBuffer(self, int(memory), sizes, kind)
        weakref.finalize(buffer, self._free, memory)  # also at the end, before the pool goes
        return buffer

    def zeros(self, shape: Shape, dtype: Any) -> CudaBuffer:
        buffer = self.empty(shape, dtype)
        buffer.fill(0)
        return buffer

    def send(self, array: Any) -> CudaBuffer:
        given = np.ascontiguousarray(array)
        buffer = self.empty(np.shape(array), given.dtype)
        buffer.set(given.reshape(buffer.shape))
        return buffer

    def borrow(self, x: Any) -> CudaBuffer:
        shape, dtype, address = borrowed(x)
        return CudaBuffer(self, address, shape, dtype, keep=x)

    def copy(self, source: Any, target: Any) -> None:
        same_size(source, target)
        if source.nbytes:
            with self.current():
                self.cuda.memcpy_dtod_async(target.address, source.address, source.nbytes)

    def timed(self, work: Callable[[], object]) -> float:
        with self.current():
            begin, end = self.cuda.Event(), self.cuda.Event()
            begin.record()
            work()
            end.record()
            end.synchronize()
            return float(begin.time_till(end)) / 1000

    def synchronize(self) -> None:
        with self.current():
            self.cuda.Context.synchronize()

    def _module(self, source: str, macros: Macros) -> Any:
        modules = self._held.modules
        if (source, macros) not in modules:
            text = source_text(source)
            major, minor = self.properties.compute_capability
            options, architecture = source_options(text, f"sm_{major}{minor}")
            try:
                cubin = self._compiled(
                    with_macros(text, source, macros),
                    nvcc=str(nvcc.find() or "nvcc"),
                    options=[*options, "-std=c++17"],
                    no_extern_c=True,
                    arch=architecture,
                    include_dirs=[str(SOURCES)],
                )
            except (OSError, self.cuda.CompileError) as error:
                raise DeviceFailed(f"{source}: {error}") from error
            modules[source, macros] = self.cuda.module_from_buffer(cubin)
        return modules[source, macros]

    def _free(self, memory: Any) -> None:
        with self.current():
            memory.free()


class CudaBuffer:
    """A `kernels.gpu.runtime.Buffer` on the device."""

    def __init__(
        self,
        runtime: PyCuda,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        keep: object = None,
    ) -> None:
        self._runtime = runtime
        self._keep = keep
        self.address, self.shape, self.dtype = address, shape, dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return array_interface(self.shape, self.dtype, self.address)

    def get(self) -> Array:
        out = np.empty(self.shape, self.dtype)
        if out.nbytes:
            with self._runtime.current():
                self._runtime.cuda.memcpy_dtoh(_bytes(out), self.address)
        return out

    def set(self, array: Array) -> None:
        given = np.ascontiguousarray(array)
        if np.shape(array) != self.shape or given.dtype != self.dtype:
            raise ValueError(
                f"{given.dtype}{np.shape(array)} does not fit a buffer of {self.dtype}{self.shape}"
            )
        if given.nbytes:
            with self._runtime.current():
                self._runtime.cuda.memcpy_htod(self.address, _bytes(given))

    def fill(self, byte: int = 0) -> None:
        if self.nbytes:
            with self._runtime.current():
                self._runtime.cuda.memset_d8(self.address, byte, self.nbytes)


def _bytes(array: Array) -> Array:
    """The same memory: PyCUDA asks for a buffer of a type that it knows, which bfloat16 is not."""
    return array.reshape(-1).view(np.uint8)


class CudaKernel:
    """A `kernels.gpu.runtime.Kernel` of a loaded module."""

    def __init__(self, cuda: Any, context: Any, function: Any) -> None:
        self._cuda, self._context = cuda, context
        self._function = function
        self._prepared = ""
        self._opted_in = SHARED_UNASKED
        self.registers = int(function.num_regs)
        self.shared_static = int(function.shared_size_bytes)
        self.local_bytes = int(function.local_size_bytes)

    def __call__(self, *arguments: Any, grid: Size, block: Size, shared: int = 0) -> None:
        kinds = "".join("P" if hasattr(a, "address") else a.dtype.char for a in arguments)
        values = [a.address if hasattr(a, "address") else a for a in arguments]
        with _current(self._cuda, self._context):
            if kinds != self._prepared:
                self._function.prepare(list(kinds))
                self._prepared = kinds
            if shared + self.shared_static > self._opted_in:
                most = self._cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._function.set_attribute(most, shared)
                self._opted_in = shared + self.shared_static
            self._function.prepared_call(grid, block, *values, shared_size=shared)


@dataclass
class _Held:
    """What lives in the context, and has to go while it is current."""

    pool: Any
    modules: dict[tuple[str, Macros], Any] = field(default_factory=dict)
    kernels: dict[tuple[str, str, Macros], CudaKernel] = field(default_factory=dict)


@contextmanager
def _current(cuda: Any, context: Any) -> Iterator[None]:
    context.push()
    try:
        yield
    except cuda.MemoryError as error:
        raise OutOfMemory(str(error)) from error
    except cuda.Error as error:
        raise DeviceFailed(str(error)) from error
    finally:
        cuda.Context.pop()


def _let_go(cuda: Any, context: Any, held: _Held) -> None:
    """PyCUDA ends the process if the pool goes without a context."""
    with _current(cuda, context):
        held.kernels.clear()
        held.modules.clear()
        held.pool = None
    context.detach()


def _properties(cuda: Any, device: Any) -> Properties:
    attribute = cuda.device_attribute

    def ask(name: str) -> int:
        return int(device.get_attribute(getattr(attribute, name)))

    # Transfers at both edges of the memory's clock, which is in kHz.
    bandwidth = 2 * ask("MEMORY_CLOCK_RATE") * 1e3 * ask("GLOBAL_MEMORY_BUS_WIDTH") / 8
    return Properties(
        name=device.name(),
        compute_capability=device.compute_capability(),
        multiprocessors=ask("MULTIPROCESSOR_COUNT"),
        warp=ask("WARP_SIZE"),
        threads_per_multiprocessor=ask("MAX_THREADS_PER_MULTIPROCESSOR"),
        registers_per_multiprocessor=ask("MAX_REGISTERS_PER_MULTIPROCESSOR"),
        shared_per_multiprocessor=ask("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
        shared_per_block=ask("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        l2_bytes=ask("L2_CACHE_SIZE"),
        clock_hz=ask("CLOCK_RATE") * 1e3,
        memory_bandwidth=bandwidth,
        total_memory=int(device.total_memory()),
        driver="driver of CUDA {}.{}".format(*divmod(cuda.get_driver_version() // 10, 100)),
    )
