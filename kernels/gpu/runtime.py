"""What launchers know of a device: memory, kernels, a clock. Two runtimes exist, PyCUDA's and the emulator.

Everything is ordered: a kernel begins when what was asked for before it has ended, and `Buffer.get` waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Shape = int | tuple[int, ...]
Size = tuple[int, int, int]
Array = NDArray[Any]
Macros = tuple[tuple[str, str], ...]
HEADERS = "<cuda_fp16.h>", "<cuda_bf16.h>"
"""Of nvcc, which every source may use."""
ARCHITECTURE = "-arch="
OPTIONS = "// nvcc:"
"""How a line of a source begins that names options it must be compiled with."""


class DeviceFailed(RuntimeError):
    """A device could not do what it was asked for; the message says why."""


class OutOfMemory(DeviceFailed):
    """The device's memory does not hold what was asked for: smaller parts may fit."""


class TooLarge(OutOfMemory):
    """One launch cannot do this, and smaller parts would not change that."""


class NoGpu(RuntimeError):
    """There is no GPU to use; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Properties:
    """Of a device, as its driver states them."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    warp: int
    threads_per_multiprocessor: int
    registers_per_multiprocessor: int
    shared_per_multiprocessor: int
    """Bytes of shared memory."""
    shared_per_block: int
    """Most bytes of shared memory that a block can opt in to."""
    l2_bytes: int
    clock_hz: float
    memory_bandwidth: float
    """Bytes per second that the memory's clock and bus allow; 0 where nobody states it."""
    total_memory: int
    """Bytes."""
    driver: str = ""


class Buffer(Protocol):
    """An array in the device's memory, C order; freed when dropped. Offers `__cuda_array_interface__`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

    def get(self) -> Array:
        """A copy in the processor's memory, when all that was launched before has ended."""

    def set(self, array: Array) -> None:
        """Copy from the processor's memory; raises ValueError for another shape or dtype."""

    def fill(self, byte: int = 0) -> None:
        """Set every byte."""


class Kernel(Protocol):
    """A compiled kernel. What a runtime cannot know of it is 0."""

    @property
    def registers(self) -> int:
        """Of a thread."""

    @property
    def shared_static(self) -> int:
        """Bytes of a block, without what is asked for at the launch."""

    @property
    def local_bytes(self) -> int:
        """Of a thread: what spilled, and arrays that are indexed at run time."""

    def __call__(self, *arguments: Any, grid: Size, block: Size, shared: int = 0) -> None:
        """Launch. `arguments`: NumPy scalars of exactly the declared types, or buffers; `shared`: bytes.

        Raises DeviceFailed; an asynchronous device may say so only at the next call.
        """


class Runtime(Protocol):
    """A device. Its calls come from one thread at a time: `kernels.dispatch` sees to that."""

    @property
    def properties(self) -> Properties: ...

    def kernel(self, source: str, name: str, **defines: int | str) -> Kernel:
        """Kernel `name` of the file `source` in `kernels/cuda`, compiled with these macros; cached."""

    def empty(self, shape: Shape, dtype: Any) -> Buffer:
        """Unset memory; raises OutOfMemory."""

    def zeros(self, shape: Shape, dtype: Any) -> Buffer:
        """Memory of zero bytes; raises OutOfMemory."""

    def send(self, array: Any) -> Buffer:
        """A copy of an array of the processor's memory; raises OutOfMemory."""

    def borrow(self, x: Any) -> Buffer:
        """The memory of an object with `__cuda_array_interface__`, without a copy; keeps the object alive.

        Raises ValueError for one that is not contiguous in C order.
        """

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Bytes of one buffer into another of the same size; raises ValueError for another size."""

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds that the device took for what `work` launched."""

    def synchronize(self) -> None:
        """Wait until all that was launched has ended; raises DeviceFailed if some of it failed."""


def source_text(source: str) -> str:
    """A file of `kernels/cuda`."""
    return (files("kernels") / "cuda" / source).read_text("utf-8")


def with_macros(text: str, source: str, macros: Macros, headers: Sequence[str] = HEADERS) -> str:
    """A source with its macros set, after the headers: a macro named T would break their templates."""
    lines = [*(f"#include {header}" for header in headers)]
    lines += [f"#define {name} {value}" for name, value in macros]
    return "\n".join([*lines, f'#line 1 "{source}"', text])


def macros_of(defines: Mapping[str, int | str]) -> Macros:
    """Macros in a fixed order, to be a key."""
    return tuple(sorted((name, str(value)) for name, value in defines.items()))


def source_options(text: str, architecture: str) -> tuple[list[str], str]:
    """Options that a source asks nvcc for in a line such as `// nvcc: --fmad=false`, and the architecture.

    That is the one given, unless the source asks for its own: `// nvcc: -arch=sm_90a`.
    """
    lines = (line for line in text.splitlines() if line.startswith(OPTIONS))
    asked = [option for line in lines for option in line.removeprefix(OPTIONS).split()]
    for option in asked:
        if option.startswith(ARCHITECTURE):
            architecture = option.removeprefix(ARCHITECTURE)
    return [o for o in asked if not o.startswith(ARCHITECTURE)], architecture


def shape_of(shape: Shape) -> tuple[int, ...]:
    """A shape as a tuple."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def same_size(source: Buffer, target: Buffer) -> None:
    """Raises ValueError unless both have as many bytes."""
    if source.nbytes != target.nbytes:
        raise ValueError(f"{source.nbytes:,} bytes into {target.nbytes:,}")


def array_interface(shape: tuple[int, ...], dtype: np.dtype[Any], address: int) -> dict[str, Any]:
    """Version 3 of the CUDA array interface, default stream."""
    return {
        "shape": shape,
        "typestr": dtype.str,
        "data": (address, False),
        "version": 3,
        "strides": None,
        "stream": 1,
    }


def borrowed(x: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype and address of an object's device memory.

    Raises TypeError for one without `__cuda_array_interface__`, ValueError if it is not in C order.
    """
    try:
        interface = x.__cuda_array_interface__
    except AttributeError as error:
        raise TypeError(f"{type(x).__name__} has no __cuda_array_interface__") from error
    shape, dtype = tuple(map(int, interface["shape"])), np.dtype(interface["typestr"])
    strides, want = interface.get("strides"), dtype.itemsize
    if strides is not None:
        for length, stride in zip(reversed(shape), reversed(tuple(strides)), strict=True):
            if length > 1 and stride != want:
                raise ValueError(
                    f"device memory with strides {tuple(strides)}: make it contiguous first"
                )
            want *= length
    return shape, dtype, int(interface["data"][0] or 0)
