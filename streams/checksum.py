"""CRC-32C (Castagnoli) of bytes in memory: by the processor's own instruction where it has one."""

from __future__ import annotations

import platform
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numpy.typing import NDArray

from infra.jit import compiled
from schemas.columnar.memory import load_i64, load_u8

_POLYNOMIAL = 0x82F63B78
_MACHINES = {
    "x86_64": ("sse4.2", 64, "llvm.x86.sse42.crc32.64.64"),
    "aarch64": ("crc", 32, "llvm.aarch64.crc32cx"),
}


def _tables() -> NDArray[np.int64]:
    """Shape (8, 256): what a byte, and 0 to 7 zero bytes after it, make of the sum."""
    found = np.zeros((8, 256), np.int64)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ _POLYNOMIAL * (value & 1)
        found[0, byte] = value
    for row in range(1, 8):
        before = found[row - 1]
        found[row] = before >> 8 ^ found[0, before & 255]
    return found


TABLES = _tables()


@compiled
def word_by_tables(crc: int, word: int) -> int:
    """The sum after eight more bytes."""
    low, high = crc ^ word & 0xFFFFFFFF, word >> 32
    after: int = (
        TABLES[7, low & 255]
        ^ TABLES[6, low >> 8 & 255]
        ^ TABLES[5, low >> 16 & 255]
        ^ TABLES[4, low >> 24 & 255]
        ^ TABLES[3, high & 255]
        ^ TABLES[2, high >> 8 & 255]
        ^ TABLES[1, high >> 16 & 255]
        ^ TABLES[0, high >> 24 & 255]
    )
    return after


def _word() -> Any:
    """`word_by_tables`, or the instruction that does the same."""
    feature, bits, name = _MACHINES.get(platform.machine(), ("", 0, ""))
    if not llvmlite.binding.get_host_cpu_features().get(feature):
        return word_by_tables

    def step(typing: Any, crc: Any, word: Any) -> Any:  # noqa: ARG001 - numba's calling convention
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            machine, word = ir.IntType(bits), ir.IntType(64)
            kind = ir.FunctionType(machine, [machine, word])
            function = get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
            before = arguments[0] if bits == 64 else builder.trunc(arguments[0], machine)
            after = builder.call(function, [before, arguments[1]])
            return after if bits == 64 else builder.zext(after, word)

        return types.int64(types.int64, types.int64), generate

    return intrinsic(step)


next_word = _word()


@compiled
def crc32c(address: int, size: int) -> int:
    """Of `size` bytes from `address` on; the caller has checked that they are its own."""
    crc = 0xFFFFFFFF
    end = address + size
    while end - address >= 8:
        crc = next_word(crc, load_i64(address))
        address += 8
    while address < end:
        crc = TABLES[0, (crc ^ load_u8(address)) & 255] ^ crc >> 8
        address += 1
    return crc ^ 0xFFFFFFFF
