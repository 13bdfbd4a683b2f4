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
LANE = 2048
"""Three parts of so many bytes are summed at once: each step waits for the last one of its part alone."""


def _after_zeros() -> NDArray[np.int64]:
    """Shape (2, 4, 256): what LANE and twice as many zero bytes make of each byte of the sum."""
    one = [int(TABLES[0, 1 << bit]) if bit < 8 else 1 << (bit - 8) for bit in range(32)]
    tables, found = _by_byte(one), []
    for _ in range(LANE.bit_length() + 1):  # of 1 zero byte, then each time of twice as many
        found.append(tables)
        twice = [_looked_up(tables, _looked_up(tables, 1 << bit)) for bit in range(32)]
        tables = _by_byte(twice)
    return np.array(found[-2:], np.int64)


def _by_byte(by_bit: list[int]) -> list[list[int]]:
    """Shape (4, 256): sums of what stands for the bits of each byte."""
    tables = [[0] * 256 for _ in range(4)]
    for bit, after in enumerate(by_bit):
        table, high = tables[bit // 8], 1 << bit % 8
        for low in range(high):
            table[high + low] = table[low] ^ after
    return tables


def _looked_up(tables: list[list[int]], value: int) -> int:
    return (
        tables[0][value & 255]
        ^ tables[1][value >> 8 & 255]
        ^ tables[2][value >> 16 & 255]
        ^ tables[3][value >> 24]
    )


AFTER_ZEROS = _after_zeros()


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
def _shifted(crc: int, which: int) -> int:
    """The sum after LANE zero bytes, or twice as many. (A sum is linear in sum and bytes.)"""
    after: int = (
        AFTER_ZEROS[which, 0, crc & 255]
        ^ AFTER_ZEROS[which, 1, crc >> 8 & 255]
        ^ AFTER_ZEROS[which, 2, crc >> 16 & 255]
        ^ AFTER_ZEROS[which, 3, crc >> 24 & 255]
    )
    return after


@compiled
def crc32c(address: int, size: int) -> int:
    """Of `size` bytes from `address` on; the caller has checked that they are its own."""
    crc = 0xFFFFFFFF
    end = address + size
    while end - address >= 3 * LANE:
        second = third = 0
        for at in range(address, address + LANE, 8):
            crc = next_word(crc, load_i64(at))
            second = next_word(second, load_i64(at + LANE))
            third = next_word(third, load_i64(at + 2 * LANE))
        crc = _shifted(crc, 1) ^ _shifted(second, 0) ^ third
        address += 3 * LANE
    while end - address >= 8:
        crc = next_word(crc, load_i64(address))
        address += 8
    while address < end:
        crc = TABLES[0, (crc ^ load_u8(address)) & 255] ^ crc >> 8
        address += 1
    return crc ^ 0xFFFFFFFF
