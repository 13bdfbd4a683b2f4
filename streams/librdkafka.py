"""librdkafka's C functions: those of the very library that confluent-kafka has loaded."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from typing import Any

from confluent_kafka import cimpl

OLDEST, NEWEST = (1, 9), (2, 99)
"""Versions whose functions and message layout are the ones written here (C interface 1, librdkafka.so.1)."""
CONSUMER = 1  # rd_kafka_type_t
NO_CONSUMER_CLOSE = 8  # RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE
_TEXT_BYTES = 512

_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "rd_kafka_version": (c_int, ()),
    "rd_kafka_version_str": (c_char_p, ()),
    "rd_kafka_conf_new": (c_void_p, ()),
    "rd_kafka_conf_destroy": (None, (c_void_p,)),
    "rd_kafka_conf_set": (c_int, (c_void_p, c_char_p, c_char_p, c_char_p, c_size_t)),
    "rd_kafka_new": (c_void_p, (c_int, c_void_p, c_char_p, c_size_t)),
    "rd_kafka_destroy_flags": (None, (c_void_p, c_int)),
    "rd_kafka_poll": (c_int, (c_void_p, c_int)),
    "rd_kafka_last_error": (c_int, ()),
    "rd_kafka_err2str": (c_char_p, (c_int,)),
    "rd_kafka_topic_new": (c_void_p, (c_void_p, c_char_p, c_void_p)),
    "rd_kafka_topic_destroy": (None, (c_void_p,)),
    "rd_kafka_queue_new": (c_void_p, (c_void_p,)),
    "rd_kafka_queue_destroy": (None, (c_void_p,)),
    "rd_kafka_queue_length": (c_size_t, (c_void_p,)),
    "rd_kafka_queue_io_event_enable": (None, (c_void_p, c_int, c_char_p, c_size_t)),
    "rd_kafka_consume_start_queue": (c_int, (c_void_p, c_int32, c_int64, c_void_p)),
    "rd_kafka_consume_stop": (c_int, (c_void_p, c_int32)),
    "rd_kafka_consume_batch_queue": (ctypes.c_ssize_t, (c_void_p, c_int, c_void_p, c_size_t)),
    "rd_kafka_message_errstr": (c_char_p, (c_void_p,)),
    "rd_kafka_message_destroy": (None, (c_void_p,)),
    "rd_kafka_message_timestamp": (c_int64, (c_void_p, POINTER(c_int))),
    "rd_kafka_get_watermark_offsets": (
        c_int,
        (c_void_p, c_char_p, c_int32, POINTER(c_int64), POINTER(c_int64)),
    ),
    "rd_kafka_query_watermark_offsets": (
        c_int,
        (c_void_p, c_char_p, c_int32, POINTER(c_int64), POINTER(c_int64), c_int),
    ),
}


class LibrdkafkaUnusable(Exception):
    """There is no librdkafka that this process could call; the message says what was found."""


@cache
def library() -> Any:
    """The functions of `_FUNCTIONS`, typed; raises LibrdkafkaUnusable.

    A symbol is looked up in confluent-kafka's extension module and in what that was linked to: the
    library bundled with the wheel, or the system's where the wheel was built against it.
    """
    path = str(cimpl.__file__)
    if sys.maxsize < 2**63 - 1 or sys.byteorder != "little":
        raise LibrdkafkaUnusable("the record reader needs a 64-bit little-endian machine")
    loaded = ctypes.CDLL(path)
    try:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise LibrdkafkaUnusable(
            f"{path} does not lead to librdkafka's functions ({error}): install the confluent-kafka "
            "wheel of this platform, or build it against a shared librdkafka"
        ) from error
    check_version(loaded.rd_kafka_version(), loaded.rd_kafka_version_str().decode())
    return loaded


def check_version(number: int, text: str) -> None:
    """`number` is 0xMMmmrrxx; raises LibrdkafkaUnusable for one outside OLDEST to NEWEST."""
    if not OLDEST <= (number >> 24, number >> 16 & 0xFF) <= NEWEST:
        raise LibrdkafkaUnusable(
            f"librdkafka {text} is not one of the versions {_dotted(OLDEST)} to {_dotted(NEWEST)} "
            "that the record reader knows: install a confluent-kafka that bundles one"
        )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def address_of(function: Any) -> int:
    """Where a C function lies, for calls from compiled loops."""
    found = ctypes.cast(function, c_void_p).value
    assert found is not None
    return found


def new_consumer(settings: Mapping[str, object]) -> int:
    """A consumer handle; raises ValueError for a setting that librdkafka refuses."""
    lib = library()
    why = ctypes.create_string_buffer(_TEXT_BYTES)
    conf = lib.rd_kafka_conf_new()
    for name, value in settings.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if lib.rd_kafka_conf_set(conf, name.encode(), text.encode(), why, _TEXT_BYTES):
            lib.rd_kafka_conf_destroy(conf)
            raise ValueError(f"{name}={text}: {why.value.decode()}")
    handle: int | None = lib.rd_kafka_new(CONSUMER, conf, why, _TEXT_BYTES)
    if handle is None:
        lib.rd_kafka_conf_destroy(conf)
        raise ValueError(f"librdkafka refuses the settings: {why.value.decode()}")
    return handle
