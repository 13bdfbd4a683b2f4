"""librdkafka's messages as arrays: one compiled pass over a batch, no Python object per message.

`rd_kafka_message_t` is public and has not changed since librdkafka 0.9:

    err int32 @0, rkt pointer @8, partition int32 @16, payload pointer @24, len size_t @32,
    key pointer @40, key_len size_t @48, offset int64 @56, _private pointer @64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from infra.jit import compiled
from schemas.columnar.memory import load_i32, load_i64

ERR, PAYLOAD, LENGTH, OFFSET = 0, 24, 32, 56
PARTITION_EOF = -191
_INT64 = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


def _copier() -> Any:
    def copy(typing: Any, to: Any, source: Any, length: Any) -> Any:  # noqa: ARG001 - numba's convention
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            to, source = (builder.inttoptr(place, _BYTES) for place in arguments[:2])
            cgutils.raw_memcpy(builder, to, source, arguments[2], 1)  # type: ignore[no-untyped-call]
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    return intrinsic(copy)


def _caller(machine: ir.Type, result: Any, *more: ir.Constant) -> Any:
    """A call of the C function at an address with a message and the arguments `more`."""

    def call(typing: Any, function: Any, message: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            kind = ir.FunctionType(machine, [_INT64] * (1 + len(more)))
            function = builder.inttoptr(arguments[0], kind.as_pointer())
            answer = builder.call(function, [arguments[1], *more])
            return context.get_dummy_value() if result is types.void else answer

        return result(types.int64, types.int64), generate

    return intrinsic(call)


copy_bytes = _copier()
_timestamp = _caller(_INT64, types.int64, ir.Constant(_INT64, 0))  # its kind is not asked for
_destroy = _caller(ir.VoidType(), types.void)


@compiled
def take(messages: Any, count: int, position: int, timestamp: int, destroy: int) -> Any:
    """Copy a batch of one partition out of librdkafka's memory and give that memory back.

    `messages` are the addresses of `count` messages; `timestamp` and `destroy` those of
    rd_kafka_message_timestamp and rd_kafka_message_destroy. Returns

    - address, length, offset, recorded: as in `Records`, into
    - payloads: uint8, all payloads one after the other;
    - position: the offset after the batch, control records at the partition's end included;
    - at_end: 1 after an end-of-partition mark, 0 after a record, -1 if there was neither;
    - done: so many messages were dealt with and destroyed. If it is less than `count`, the next one
      reports an error: its payload is the reason, in words.
    """
    n = size = done = 0
    while done < count:
        code = load_i32(messages[done] + ERR)
        if code == 0:
            n += 1
            size += load_i64(messages[done] + LENGTH)
        elif code != PARTITION_EOF:
            break
        done += 1
    address, length = np.empty(n, np.int64), np.empty(n, np.int64)
    offset, recorded = np.empty(n, np.int64), np.empty(n, np.int64)
    payloads = np.empty(size + 1, np.uint8)  # an empty payload has an address, too
    to = payloads.ctypes.data
    at_end = -1
    k = 0
    for i in range(done):
        message = messages[i]
        at = load_i64(message + OFFSET)
        if load_i32(message + ERR) == PARTITION_EOF:
            at_end, position = 1, at
        else:
            at_end, position = 0, at + 1
            source, length[k], offset[k] = (
                load_i64(message + PAYLOAD),
                load_i64(message + LENGTH),
                at,
            )
            recorded[k] = max(0, _timestamp(timestamp, message))
            address[k] = to if source != 0 else 0
            if source != 0:
                copy_bytes(to, source, length[k])
                to += length[k]
            k += 1
        _destroy(destroy, message)
    return address, length, offset, recorded, payloads, position, at_end, done


@compiled
def discard(messages: Any, count: int, destroy: int) -> None:
    """Destroy `count` messages unread."""
    for i in range(count):
        _destroy(destroy, messages[i])


@compiled
def error_code(message: int) -> int:
    """The rd_kafka_resp_err_t of the message at an address."""
    return load_i32(message + ERR)
