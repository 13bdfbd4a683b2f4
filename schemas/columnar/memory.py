"""Loads and stores by address, for compiled loops: little-endian, unaligned, unchecked.

The caller has checked that the bytes are its own; numba's cache holds no address, only these instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function, raw_memcpy
from numba.extending import intrinsic


def _loader(machine: ir.Type, result: Any, widen: Callable[[Any, Any], Any]) -> Any:
    def load(typing: Any, address: Any) -> Any:  # noqa: ARG001 - numba's calling convention
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            pointer = builder.inttoptr(arguments[0], machine.as_pointer())
            return widen(builder, builder.load(pointer, align=1))

        return result(types.int64), generate

    return intrinsic(load)


def _storer(machine: ir.Type, value: Any, narrow: Callable[[Any, Any], Any]) -> Any:
    def store(typing: Any, address: Any, given: Any) -> Any:  # noqa: ARG001 - numba's calling convention
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            pointer = builder.inttoptr(arguments[0], machine.as_pointer())
            builder.store(narrow(builder, arguments[1]), pointer, align=1)
            return context.get_dummy_value()

        return types.void(types.int64, value), generate

    return intrinsic(store)


def _same(builder: Any, value: Any) -> Any:  # noqa: ARG001
    return value


def _sign_extended(builder: Any, value: Any) -> Any:
    return builder.sext(value, ir.IntType(64))


def _extended(builder: Any, value: Any) -> Any:
    return builder.fpext(value, ir.DoubleType())


def _cut_to_i32(builder: Any, value: Any) -> Any:
    return builder.trunc(value, ir.IntType(32))


def _zero_extended(builder: Any, value: Any) -> Any:
    return builder.zext(value, ir.IntType(64))


Load = Callable[[int], int]
Store = Callable[[int, int], None]

load_u8: Load = _loader(ir.IntType(8), types.int64, _zero_extended)
load_i32: Load = _loader(ir.IntType(32), types.int64, _sign_extended)
load_i64: Load = _loader(ir.IntType(64), types.int64, _same)
load_u32: Callable[[int], np.uint64] = _loader(ir.IntType(32), types.uint64, _zero_extended)
load_u64: Callable[[int], np.uint64] = _loader(ir.IntType(64), types.uint64, _same)
load_f32: Callable[[int], float] = _loader(ir.FloatType(), types.float64, _extended)
load_f64: Callable[[int], float] = _loader(ir.DoubleType(), types.float64, _same)

store_i32: Store = _storer(ir.IntType(32), types.int64, _cut_to_i32)
store_i64: Store = _storer(ir.IntType(64), types.int64, _same)
store_u64: Callable[[int, np.uint64], None] = _storer(ir.IntType(64), types.uint64, _same)
store_f64: Callable[[int, float], None] = _storer(ir.DoubleType(), types.float64, _same)


def _signed() -> Any:
    def sign(typing: Any, word: Any) -> Any:  # noqa: ARG001 - numba's calling convention
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            return arguments[0]

        return types.int64(types.uint64), generate

    return intrinsic(sign)


signed: Callable[[np.uint64], int] = _signed()
"""The same 64 bits as a signed number."""


def _copier() -> Any:
    def copy(typing: Any, target: Any, source: Any, size: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            pointers = [builder.inttoptr(at, ir.IntType(8).as_pointer()) for at in arguments[:2]]
            raw_memcpy(builder, pointers[0], pointers[1], arguments[2], 1)  # type: ignore[no-untyped-call]
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    return intrinsic(copy)


copy: Callable[[int, int, int], None] = _copier()
"""copy(target, source, size): so many bytes from one address to another; they must not overlap."""


def _prefetcher() -> Any:
    def fetch(typing: Any, address: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
            function = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
            # To be written, into every level of the cache, as data.
            how = [ir.Constant(number, value) for value in (1, 3, 1)]
            builder.call(function, [builder.inttoptr(arguments[0], pointer), *how])
            return context.get_dummy_value()

        return types.void(types.int64), generate

    return intrinsic(fetch)


prefetch: Callable[[int], None] = _prefetcher()
"""Begin to bring the cache line at an address, which a random access would wait for; any address will do."""
