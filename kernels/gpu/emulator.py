"""The emulator: the CUDA sources, unmodified, on this processor. Slow; for learning and for tests.

A source is compiled once by g++ (see `emulator.h` for what it shows and what it cannot) and kept by the hash
of everything that goes into it. What a kernel does wrong is a DeviceFailed, not the end of the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kernels.gpu.cache import cache_folder
from kernels.gpu.guarded import HostBuffer, Pool, stacks
from kernels.gpu.runtime import (
    DeviceFailed,
    Macros,
    NoGpu,
    Properties,
    Shape,
    Size,
    borrowed,
    macros_of,
    same_size,
    source_text,
    with_macros,
)

HERE = Path(__file__).parent
SOURCES = HERE.parent / "cuda"
HEADERS = (
    "emulator.h",
    "emulator_block.h",
    "emulator_intrinsics.h",
    "emulator_races.h",
    "emulator_types.h",
)
FLAGS = (
    "-std=c++17",
    "-O1",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE",
    "-fsanitize=alignment",
    "-fsanitize-undefined-trap-on-error",
    "-w",
    "-fPIC",
)
RACES = "-g1", "-DCUDA_RACES=1", "-fsanitize=thread", "--param=tsan-distinguish-volatile=1"
"""Of these, a linker must not hear: it would bring the sanitizer's own library."""
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^;{]*?\)\s+)?(\w+)\s*\('
)
_PLACE = re.compile(r"<([0-9a-f]+)>")
_MESSAGE_BYTES = 512
_running = threading.Lock()
"""One launch in the process at a time: signal handlers are the process's own."""


class _Launch(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint64),
        ("stacks", ctypes.c_void_p),
        ("reverse", ctypes.c_int),
        ("limit", ctypes.c_double),
        ("buffers", ctypes.c_void_p),
        ("buffer_count", ctypes.c_uint),
    ]


class _Span(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("bytes", ctypes.c_uint64)]


class Emulator:
    """A `kernels.gpu.runtime.Runtime` without a GPU. Raises NoGpu where there is no g++.

    `memory`: bytes that it has. `reverse`: threads and blocks run from the last to the first, which a kernel
    that relies on their order for anything but look-back does not survive. `races`: accesses that nothing
    orders end the launch (see `emulator_races.h`; needs GCC 11; slower). `limit_s`: for a launch.
    """

    def __init__(
        self,
        memory: int = 1 << 33,
        *,
        reverse: bool = False,
        races: bool = False,
        limit_s: float = 300.0,
    ) -> None:
        if shutil.which("g++") is None or not hasattr(ctypes.CDLL(None), "makecontext"):
            raise NoGpu("DRIFTLOG_DEVICE: the emulator needs g++ and Linux")
        self._pool = Pool(memory)
        self._reverse = reverse
        self._races = races
        self._limit = limit_s
        self._kernels: dict[tuple[str, str, Macros], EmulatedKernel] = {}
        self.properties = Properties(
            name="emulator",
            compute_capability=(9, 0),
            multiprocessors=1,
            warp=32,
            threads_per_multiprocessor=2048,
            registers_per_multiprocessor=65536,
            shared_per_multiprocessor=233472,
            shared_per_block=232448,
            l2_bytes=0,
            clock_hz=0.0,
            memory_bandwidth=0.0,
            total_memory=memory,
        )

    @property
    def memory_used(self) -> int:
        """Bytes of the buffers that live."""
        return self._pool.used

    def kernel(self, source: str, name: str, **defines: int | str) -> EmulatedKernel:
        key = source, name, macros_of(defines)
        if key not in self._kernels:
            library = compiled(source_text(source), source, key[2], races=self._races)
            self._kernels[key] = EmulatedKernel(library, name, self._reverse, self._limit)
        return self._kernels[key]

    def empty(self, shape: Shape, dtype: Any) -> HostBuffer:
        buffer = HostBuffer.taken(self._pool, shape, dtype)
        buffer.fill(0xA5)  # nobody clears it
        return buffer

    def zeros(self, shape: Shape, dtype: Any) -> HostBuffer:
        return HostBuffer.taken(self._pool, shape, dtype)

    def send(self, array: Any) -> HostBuffer:
        given = np.asarray(array)
        buffer = HostBuffer.taken(self._pool, given.shape, given.dtype)
        buffer.set(given)
        return buffer

    def borrow(self, x: Any) -> HostBuffer:
        shape, dtype, address = borrowed(x)
        return HostBuffer(address, shape, dtype, keep=x)

    def copy(self, source: Any, target: Any) -> None:
        same_size(source, target)
        ctypes.memmove(target.address, source.address, source.nbytes)

    def timed(self, work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    def synchronize(self) -> None:
        """Every launch has ended when it returns."""


class EmulatedKernel:
    """A kernel of a compiled source; its static shared memory is that of the whole file."""

    registers = 0
    local_bytes = 0

    def __init__(
        self, library: ctypes.CDLL, name: str, reverse: bool = False, limit_s: float = 300.0
    ) -> None:
        if not hasattr(library, f"emulator_run_{name}"):
            raise DeviceFailed(f"the source has no kernel {name!r}")
        self.name = name
        self._file = library._name
        self._run = library[f"emulator_run_{name}"]
        self._run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_size_t]
        self._reverse, self._limit = reverse, limit_s
        text = ctypes.create_string_buffer(_MESSAGE_BYTES * 4)
        library[f"emulator_describe_{name}"](text, ctypes.c_size_t(len(text)))
        self._parameters = text.value.decode().split()
        shared_static = library.emulator_shared_static
        shared_static.restype = ctypes.c_size_t
        self.shared_static = int(shared_static())

    def __call__(self, *arguments: Any, grid: Size, block: Size, shared: int = 0) -> None:
        self._check(arguments, grid, block, shared)
        values = [
            ctypes.c_void_p(argument.address)
            if isinstance(argument, HostBuffer)
            else ctypes.create_string_buffer(argument.tobytes(), argument.nbytes)
            for argument in arguments
        ]
        pointers = (ctypes.c_void_p * max(1, len(values)))(*map(ctypes.addressof, values))
        buffers = [argument for argument in arguments if isinstance(argument, HostBuffer)]
        spans = (_Span * max(1, len(buffers)))(*(_Span(b.address, b.nbytes) for b in buffers))
        how = self._reverse, self._limit, ctypes.addressof(spans), len(buffers)
        launch = _Launch((*grid,), (*block,), shared, stacks(), *how)
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        with _running:
            failed = self._run(ctypes.byref(launch), pointers, message, len(message))
        if failed:
            said = message.value.decode(errors="replace")
            said = _PLACE.sub(lambda found: f"at {_line(self._file, found[1])}", said)
            raise DeviceFailed(f"{self.name}: {said}")

    def _check(self, arguments: tuple[Any, ...], grid: Size, block: Size, shared: int) -> None:
        if len(arguments) != len(self._parameters):
            raise DeviceFailed(
                f"{self.name} takes {len(self._parameters)} arguments; {len(arguments)} were given"
            )
        for place, (argument, parameter) in enumerate(
            zip(arguments, self._parameters, strict=True)
        ):
            if not _fits(argument, parameter):
                said = getattr(argument, "dtype", type(argument).__name__)
                kind = "a buffer of " if isinstance(argument, HostBuffer) else ""
                raise DeviceFailed(
                    f"{self.name}: argument {place} is {kind}{said}; the source declares {parameter}"
                )
        limits = (2**31 - 1, 65535, 65535), (1024, 1024, 64)
        for what, size, most in zip(("grid", "block"), (grid, block), limits, strict=True):
            if not all(0 < n <= limit for n, limit in zip(size, most, strict=True)):
                raise DeviceFailed(f"{self.name}: a {what} of {size}; {most} are the most")
        if block[0] * block[1] * block[2] > 1024:
            raise DeviceFailed(f"{self.name}: a block of {block} has more than 1024 threads")
        if self.shared_static + shared > 232448:
            raise DeviceFailed(f"{self.name}: {self.shared_static + shared} bytes of shared memory")


def _fits(argument: Any, parameter: str) -> bool:
    """Signs of integers do not matter; `x` is a type of its own, whose size must be a multiple."""
    pointer, kind, size = re.fullmatch(r"(\*?)([ifx])(\d+)", parameter).groups()  # type: ignore[union-attr]
    if bool(pointer) != isinstance(argument, HostBuffer):
        return False
    if not pointer and not isinstance(argument, np.generic):
        return False
    dtype = argument.dtype
    if kind == "x":
        return int(size) == 0 or int(size) % dtype.itemsize == 0
    return bool(int(size) == dtype.itemsize and (kind == "f") == (dtype.kind == "f"))


def compiled(text: str, source: str, macros: Macros, *, races: bool = False) -> ctypes.CDLL:
    """A source as a library with a launcher for each kernel; raises DeviceFailed if it does not compile."""
    flags = (*FLAGS, *(RACES if races else ()))
    headers = [HERE / name for name in HEADERS] + sorted(SOURCES.glob("*.cuh"))
    digest = hashlib.sha256(repr((text, source, macros, flags, _compiler())).encode())
    for header in headers:
        digest.update(header.read_bytes())
    library = cache_folder() / "emulator" / f"{Path(source).stem}-{digest.hexdigest()[:24]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = _build(with_macros(text, source, macros, []), source, Path(folder), flags)
            made.replace(library)
    return ctypes.CDLL(str(library))


def _build(text: str, source: str, folder: Path, flags: tuple[str, ...]) -> Path:
    file = folder / f"{Path(source).stem}.cpp"
    includes = ["-DCUDA_EMULATOR=1", f"-I{HERE}", f"-I{SOURCES}"]
    file.write_text(text, "utf-8")
    seen = _gxx("-E", "-P", "-std=c++17", *includes, str(file))  # without what #if leaves out
    names = dict.fromkeys(_KERNEL.findall(seen))
    exports = "".join(f"CUDA_EMULATOR_EXPORT({name})\n" for name in names)
    file.write_text(f'#include "emulator.h"\n{text}\n{exports}', "utf-8")
    parts, made = file.with_suffix(".o"), file.with_suffix(".so")
    _gxx(*flags, *includes, "-c", str(file), "-o", str(parts))
    _gxx("-shared", str(parts), "-lrt", "-o", str(made))
    return made


def _line(library: str, place: str) -> str:
    """Source and line of an instruction."""
    tool = shutil.which("addr2line")
    if tool is None:
        return f"instruction {place}"
    before = f"{int(place, 16) - 1:x}"  # what is told is where the call returns to
    done = subprocess.run(
        [tool, "-i", "-e", library, before], capture_output=True, text=True, check=False
    )
    lines = [Path(line.split(" ")[0]).name for line in done.stdout.splitlines()]
    ours = [line for line in lines if line.partition(":")[0].endswith((".cu", ".cuh"))]
    return ", in ".join(ours) or f"instruction {place}"


def _gxx(*arguments: str) -> str:
    done = subprocess.run(["g++", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode:
        raise DeviceFailed(f"the emulator's compiler: {done.stderr.strip()[:2000]}")
    return done.stdout


@cache
def _compiler() -> str:
    return _gxx("--version").splitlines()[0] + platform.machine()
