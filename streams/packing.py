"""States as bytes and back: MessagePack, read by the type hints of the dataclasses that they are made of."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

Reader = Callable[[Any], Any]
_MAPS = (dict, Mapping, MutableMapping)
_LISTS = (list, Sequence)
_SETS = (set, frozenset, AbstractSet)
_PLAIN = (int, float, str, bytes, bool, type(None), object)


def pack(state: object) -> bytes:
    """Raises TypeError, ValueError or OverflowError for what MessagePack has no form for."""
    return msgspec.msgpack.encode(state, enc_hook=_array)


def unpack(content: bytes, hint: Any) -> Any:
    """The value of type `hint`; raises ValueError for other bytes, TypeError for a type that is not known."""
    read = _reader(hint)
    try:
        value = msgspec.msgpack.decode(content)
        return value if read is None else read(value)
    except (msgspec.DecodeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a packed {hint}: {error}") from error


def _array(value: Any) -> Any:
    if isinstance(value, np.ndarray) and not value.dtype.hasobject and value.dtype.names is None:
        return [value.dtype.str, list(value.shape), value.tobytes()]
    raise TypeError(f"{type(value).__name__} cannot be packed")


def _read_array(value: Any) -> Any:
    dtype, shape, raw = value
    return np.frombuffer(raw, dtype).reshape(shape).copy()


@cache
def _reader(hint: Any) -> Reader | None:  # noqa: PLR0911 - a case a type
    """What makes the type of plain data; None where plain data are what is wanted."""
    origin, arguments = get_origin(hint), get_args(hint)
    kind = origin or hint
    if hint is Any or kind in _PLAIN or origin is Literal or isinstance(hint, TypeVar):
        return None
    if kind is np.ndarray:
        return _read_array
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(kind, arguments)
    if origin in (Union, types.UnionType):
        return _union_reader(hint, arguments)
    if kind in _MAPS:
        return _map_reader(*(arguments or (Any, Any)))
    if kind in _LISTS:
        return _list_reader(arguments)
    if kind in _SETS:
        made = frozenset if kind is frozenset else set
        each = _reader(arguments[0]) if arguments else None
        return lambda value: made(value if each is None else map(each, value))
    if kind is tuple:
        return _tuple_reader(arguments)
    raise TypeError(f"no way to read {hint}")


def _dataclass_reader(kind: Any, arguments: tuple[Any, ...]) -> Reader:
    bound = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=False))
    readers: dict[str, Reader | None] | None = None

    def read(value: Any) -> Any:
        nonlocal readers
        if readers is None:  # not before: a type may hold itself
            hints = get_type_hints(kind)
            readers = {
                spec.name: _reader(_bound(hints[spec.name], bound))
                for spec in dataclasses.fields(kind)
            }
        return kind(
            **{
                name: value[name] if each is None else each(value[name])
                for name, each in readers.items()
            }
        )

    return read


def _bound(hint: Any, bound: Mapping[Any, Any]) -> Any:
    """The hint with its type variables filled in."""
    if isinstance(hint, TypeVar):
        return bound.get(hint, Any)
    parameters = getattr(hint, "__parameters__", ())
    return hint[tuple(bound.get(each, Any) for each in parameters)] if parameters else hint


def _union_reader(hint: Any, arguments: tuple[Any, ...]) -> Reader | None:
    """Of plain types (MessagePack tells them apart), or of one other type and None."""
    others = [each for each in map(_reader, arguments) if each is not None]
    if not others:
        return None
    (first, *more) = others
    if more or len(arguments) != 2 or type(None) not in arguments:
        raise TypeError(f"no way to tell the types of {hint} apart")
    return lambda value: None if value is None else first(value)


def _list_reader(arguments: tuple[Any, ...]) -> Reader | None:
    each = _reader(arguments[0]) if arguments else None
    if each is None:
        return None
    read = each
    return lambda value: [read(item) for item in value]


def _map_reader(key: Any, item: Any) -> Reader | None:
    keys, items = _reader(key), _reader(item)
    if items is None:
        return None if keys is None else lambda value: {keys(k): v for k, v in value.items()}
    if keys is None:
        return lambda value: {k: items(v) for k, v in value.items()}
    return lambda value: {keys(k): items(v) for k, v in value.items()}


def _tuple_reader(arguments: tuple[Any, ...]) -> Reader:
    if len(arguments) != 2 or arguments[1] is not Ellipsis:
        places = [_reader(each) for each in arguments]
        if not any(places):
            return tuple
        return lambda value: tuple(
            item if each is None else each(item) for each, item in zip(places, value, strict=True)
        )
    each = _reader(arguments[0])
    return tuple if each is None else lambda value: tuple(map(each, value))
