"""Memory for the emulator's buffers: it ends where a page does that nobody may touch."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from functools import cache
from typing import Any

import numpy as np

from kernels.gpu.runtime import Array, OutOfMemory, Shape, array_interface, shape_of

_PAGE = mmap.PAGESIZE
THREADS = 1024
"""Of a block, at most."""
STACK_BYTES = 64 * 1024
"""As `emulator.h` has it."""
_NOBODY = 0
"""PROT_NONE."""
_PRIVATE = 0x22
"""MAP_PRIVATE | MAP_ANONYMOUS, of Linux."""
_ALIGNMENT = 16
"""Bytes. Of the widest vector access; CUDA's own is 256, at the cost of what it lets an access overrun."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Pool:
    """How much memory a device has, and how much of it is in use, in bytes."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0

    def take(self, size: int) -> int:
        """The address of `size` bytes, `size` >= 0; raises OutOfMemory."""
        if self.used + size > self.total:
            raise OutOfMemory(
                f"out of memory: {size:,} bytes asked for, {self.used:,} of {self.total:,} in use"
            )
        start = _libc.mmap(
            None, self._span(size), mmap.PROT_READ | mmap.PROT_WRITE, _PRIVATE, -1, 0
        )
        if start in (None, ctypes.c_void_p(-1).value):
            raise OutOfMemory(f"the processor has no {size:,} bytes")
        end = start + self._span(size) - _PAGE
        _libc.mprotect(end, _PAGE, _NOBODY)
        self.used += size
        return int(end - -(-size // _ALIGNMENT) * _ALIGNMENT)

    def give_back(self, address: int, size: int) -> None:
        """What `take` gave."""
        _libc.munmap(address // _PAGE * _PAGE, self._span(size))
        self.used -= size

    @staticmethod
    def _span(size: int) -> int:
        rounded = -(-size // _ALIGNMENT) * _ALIGNMENT
        return (-(-rounded // _PAGE) + 1) * _PAGE


@cache
def stacks() -> int:
    """Address of the stacks of a block's threads, for all kernels of the process."""
    size = THREADS * STACK_BYTES
    start = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, _PRIVATE, -1, 0)
    if start in (None, ctypes.c_void_p(-1).value):
        raise OutOfMemory("the processor has no memory for the threads' stacks")
    for thread in range(THREADS):
        _libc.mprotect(start + thread * STACK_BYTES, _PAGE, _NOBODY)
    return int(start)


class HostBuffer:
    """A `kernels.gpu.runtime.Buffer` in the processor's memory."""

    def __init__(self, address: int, shape: Shape, dtype: Any, keep: object = None) -> None:
        self.shape = shape_of(shape)
        self.dtype = np.dtype(dtype)
        self.address = address
        self._keep = keep

    @classmethod
    def taken(cls, pool: Pool, shape: Shape, dtype: Any) -> HostBuffer:
        """Unset memory of a pool; raises OutOfMemory."""
        size = int(np.prod(shape_of(shape), dtype=np.int64)) * np.dtype(dtype).itemsize
        address = pool.take(size)
        buffer = cls(address, shape, dtype)
        weakref.finalize(buffer, pool.give_back, address, size).atexit = False
        return buffer

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return array_interface(self.shape, self.dtype, self.address)

    def get(self) -> Array:
        copy: Array = self._view().copy()
        return copy

    def set(self, array: Array) -> None:
        given = np.asarray(array)
        if given.shape != self.shape or given.dtype != self.dtype:
            raise ValueError(
                f"{given.dtype}{given.shape} does not fit a buffer of {self.dtype}{self.shape}"
            )
        self._view()[...] = given

    def fill(self, byte: int = 0) -> None:
        ctypes.memset(self.address, byte, self.nbytes)

    def _view(self) -> Array:
        if self.nbytes == 0:
            return np.empty(self.shape, self.dtype)
        raw: Any = (ctypes.c_char * self.nbytes).from_address(self.address)
        view: Array = np.frombuffer(raw, self.dtype).reshape(self.shape)
        return view
