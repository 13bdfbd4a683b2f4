"""The loop that follows a program over payloads: one compiled interpreter for every schema.

Every read is checked against the end of its payload first. Where the bytes are not what the program
expects, the event goes to the row codec, which says why, or reads it after all (Avro can say one thing in
several ways, and this loop knows only the usual one).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from schemas.codec import MAX_EVENT_BYTES
from schemas.columnar.columns import NULL_BITS
from schemas.columnar.dictionary import FULL, NOT_UTF8, intern, keep, undo
from schemas.columnar.identity import identify
from schemas.columnar.instructions import MAX_DEPTH, Op
from schemas.columnar.memory import (
    load_f32,
    load_f64,
    load_i64,
    load_u8,
    signed,
    store_f64,
    store_i32,
    store_i64,
)
from schemas.columnar.reading import BAD, read_block, read_byte, read_string, read_varint, skip
from schemas.columnar.text import valid_utf8

# What `run` stopped for.
DONE = 0
REFUSED = 1
UNKNOWN = 2
NO_ROOM = 3
_OTHER = 4

# Words of `progress`: the next record, the next row, the next of other types.
RECORD, ROW, OTHERS = 0, 1, 2

HEADER_BYTES = 5
WORD = 8


@compiled
def run(
    code: NDArray[np.int64],
    schemas: NDArray[np.int64],
    texts: NDArray[np.int64],
    address: NDArray[np.int64],
    length: NDArray[np.int64],
    columns: NDArray[np.int64],
    dictionaries: NDArray[np.int64],
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    progress: NDArray[np.int64],
) -> int:
    """Decode from record progress[RECORD] on; gives why it stopped, `progress` says where.

    `schemas` has a row (id, start in `code`, start in `texts`) for each known id, by ascending id; `texts`
    a row (address, bytes) for each constant; `columns` the address of each column's first value;
    `dictionaries` the address of each column's dictionary (0: none). `rows[k]` becomes the record of row k.
    """
    stack = np.empty(2 * MAX_DEPTH, np.int64)
    in_use = dictionaries[dictionaries != 0]
    known_id, start, first_text = -1, 0, 0
    row, other = progress[ROW], progress[OTHERS]
    record, verdict = progress[RECORD], DONE
    while record < len(address):
        at, end = address[record], address[record] + length[record]
        if at == 0 or not HEADER_BYTES <= end - at <= MAX_EVENT_BYTES or load_u8(at) != 0:
            verdict = REFUSED
            break
        schema_id = _big_endian(at + 1)
        if schema_id != known_id:
            place = np.searchsorted(schemas[:, 0], schema_id)
            if place == len(schemas) or schemas[place, 0] != schema_id:
                verdict = UNKNOWN
                break
            known_id = schema_id
            start = _address(code) + WORD * schemas[place, 1]
            first_text = _address(texts) + 2 * WORD * schemas[place, 2]
        verdict = _follow(
            start,
            at + HEADER_BYTES,
            end,
            row,
            _address(columns),
            _address(dictionaries),
            first_text,
            _address(stack),
        )
        if verdict == DONE:
            rows[row] = record
            row += 1
        elif verdict == _OTHER:
            others[other] = record
            other += 1
        else:
            break
        record += 1
        for dictionary in in_use:
            keep(dictionary)
    for dictionary in in_use:
        undo(dictionary)
    progress[RECORD], progress[ROW], progress[OTHERS] = record, row, other
    return verdict if record < len(address) else DONE


@compiled
def _follow(  # noqa: PLR0912, PLR0915 - one switch over all instructions
    pc: int,
    at: int,
    end: int,
    row: int,
    columns: int,
    dictionaries: int,
    texts: int,
    stack: int,
) -> int:
    """Run one event's program over the bytes [at, end): DONE, _OTHER, REFUSED or NO_ROOM.

    All are addresses, as arrays would be counted in and out of every function; `pc` is the instruction's.
    """
    while at != BAD:
        op = load_i64(pc)
        if op == Op.NULLABLE_DOUBLES:
            at = _nullable_doubles(pc, at, end, row, columns)
            pc += WORD * (3 + _word(pc, 1))
        elif op == Op.DOUBLES:
            at = _doubles(pc, at, end, row, columns)
            pc += WORD * (2 + _word(pc, 1))
        elif op == Op.LONG:
            value, at = read_varint(at, end)
            store_i64(_cell(columns, _word(pc, 1), row, 8), value)
            pc += WORD * 2
        elif op == Op.STRING_CODE:
            text, at = read_string(at, end)
            if at == BAD:
                break
            column = _word(pc, 1)
            found = intern(_word(dictionaries, column), text, at - text, False)
            if found == FULL:
                return NO_ROOM
            if found == NOT_UTF8:
                break
            store_i32(_cell(columns, column, row, 4), found)
            pc += WORD * 2
        elif op == Op.STRING_ID:
            text, at = read_string(at, end)
            if at == BAD or not identify(text, at - text, _cell(columns, _word(pc, 1), row, 16)):
                break
            pc += WORD * 2
        elif op == Op.STRING_TEXT:
            text, at = read_string(at, end)
            if at == BAD or not valid_utf8(text, at - text):
                break
            _store_pair(_cell(columns, _word(pc, 1), row, 16), text, at - text)
            pc += WORD * 2
        elif op == Op.OPTION:
            tag, at = read_byte(at, end)
            if tag == _word(pc, 1):
                pc += WORD * _word(pc, 3)
            elif tag == _word(pc, 2):
                pc += WORD * 4
            else:
                break
        elif op == Op.SKIP_STRING:
            text, at = read_string(at, end)
            if at == BAD or not valid_utf8(text, at - text):
                break
            pc += WORD
        elif op == Op.SKIP_VARINT:
            _, at = read_varint(at, end)
            pc += WORD
        elif op == Op.SKIP_BYTES:
            at = skip(at, end, _word(pc, 1))
            pc += WORD * 2
        elif op == Op.SKIP_OPTIONS:
            at = _skip_options(pc, at, end)
            pc += WORD * 4
        elif op == Op.LONG_TO_DOUBLE:
            value, at = read_varint(at, end)
            store_f64(_cell(columns, _word(pc, 1), row, 8), np.float64(value))
            pc += WORD * 2
        elif op == Op.FLOAT_TO_DOUBLE:
            if end - at < 4:
                break
            store_f64(_cell(columns, _word(pc, 1), row, 8), load_f32(at))
            at += 4
            pc += WORD * 2
        elif op == Op.BOOLEAN_TO_DOUBLE:
            tag, at = read_byte(at, end)
            store_f64(_cell(columns, _word(pc, 1), row, 8), 1.0 if tag != 0 else 0.0)
            pc += WORD * 2
        elif op == Op.BOOLEAN_TO_LONG:
            tag, at = read_byte(at, end)
            store_i64(_cell(columns, _word(pc, 1), row, 8), 1 if tag != 0 else 0)
            pc += WORD * 2
        elif op == Op.SKIP_BLOB:
            _, at = read_string(at, end)
            pc += WORD
        elif op == Op.SKIP_ENUM:
            value, at = read_varint(at, end)
            if not 0 <= value < _word(pc, 1):
                break
            pc += WORD * 2
        elif op == Op.BRANCH:
            tag, at = read_byte(at, end)
            if tag % 2 != 0 or tag >= 2 * _word(pc, 1) or tag >= 128:
                break
            pc += WORD * _word(pc, 2 + tag // 2)
        elif op == Op.JUMP:
            pc += WORD * _word(pc, 1)
        elif op == Op.BLOCK:
            count, size, at = read_block(at, end)
            if at == BAD:
                break
            frame = stack + 2 * WORD * _word(pc, 1)
            _store_pair(frame, count, at + size if size >= 0 else -1)
            pc += WORD * (_word(pc, 2) if count == 0 else 3)
        elif op == Op.AGAIN:
            frame = stack + 2 * WORD * _word(pc, 1)
            left, expected = load_i64(frame) - 1, load_i64(frame + WORD)
            store_i64(frame, left)
            if left > 0:
                pc += WORD * _word(pc, 2)
            elif expected in (-1, at):
                pc += WORD * _word(pc, 3)
            else:
                break
        elif op == Op.STORE_WORD:
            store_i64(_cell(columns, _word(pc, 1), row, 8), _word(pc, 2))
            pc += WORD * 3
        elif op == Op.STORE_CODE:
            store_i32(_cell(columns, _word(pc, 1), row, 4), _word(pc, 2))
            pc += WORD * 3
        elif op == Op.STORE_PAIR:
            _store_pair(_cell(columns, _word(pc, 1), row, 16), _word(pc, 2), _word(pc, 3))
            pc += WORD * 4
        elif op == Op.CONSTANT_CODE:
            column, text = _word(pc, 1), texts + 2 * WORD * _word(pc, 2)
            found = intern(_word(dictionaries, column), load_i64(text), _word(text, 1), False)
            if found == FULL:
                return NO_ROOM
            store_i32(_cell(columns, column, row, 4), found)
            pc += WORD * 3
        elif op == Op.CONSTANT_ID:
            text = texts + 2 * WORD * _word(pc, 2)
            identify(load_i64(text), _word(text, 1), _cell(columns, _word(pc, 1), row, 16))
            pc += WORD * 3
        elif op == Op.CONSTANT_TEXT:
            text = texts + 2 * WORD * _word(pc, 2)
            _store_pair(_cell(columns, _word(pc, 1), row, 16), load_i64(text), _word(text, 1))
            pc += WORD * 3
        elif op == Op.END:
            return DONE if at == end else REFUSED
        elif op == Op.END_OTHER:
            return _OTHER if at == end else REFUSED
        else:
            break
    return REFUSED


@compiled
def _address(array: NDArray[np.int64]) -> int:
    return signed(np.uint64(array.ctypes.data))


@compiled
def _word(at: int, place: int) -> int:
    return load_i64(at + WORD * place)


@compiled
def _cell(columns: int, column: int, row: int, size: int) -> int:
    """The address of a column's value, `size` bytes each."""
    return _word(columns, column) + size * row


@compiled
def _store_pair(target: int, first: int, second: int) -> None:
    store_i64(target, first)
    store_i64(target + WORD, second)


@compiled
def _big_endian(at: int) -> int:
    return (load_u8(at) << 24) | (load_u8(at + 1) << 16) | (load_u8(at + 2) << 8) | load_u8(at + 3)


@compiled
def _doubles(pc: int, at: int, end: int, row: int, columns: int) -> int:
    count = _word(pc, 1)
    if end - at < 8 * count:
        return BAD
    for place in range(count):
        store_f64(_cell(columns, _word(pc, 2 + place), row, 8), load_f64(at))
        at += 8
    return at


@compiled
def _nullable_doubles(pc: int, at: int, end: int, row: int, columns: int) -> int:
    count, null = _word(pc, 1), _word(pc, 2)
    roomy = end - at >= 9 * count  # checked once for all where it can be
    for place in range(count):
        if not roomy and at >= end:
            return BAD
        tag, target = load_u8(at), _cell(columns, _word(pc, 3 + place), row, 8)
        if tag == 2 - null and (roomy or end - at >= 9):
            store_f64(target, load_f64(at + 1))
            at += 9
        elif tag == null:
            store_i64(target, NULL_BITS)
            at += 1
        else:
            return BAD
    return at


@compiled
def _skip_options(pc: int, at: int, end: int) -> int:
    count, null, size = _word(pc, 1), _word(pc, 2), _word(pc, 3)
    for _ in range(count):
        if at >= end:
            return BAD
        tag = load_u8(at)
        if tag == 2 - null:
            at += 1 + size
        elif tag == null:
            at += 1
        else:
            return BAD
    return at if at <= end else BAD
