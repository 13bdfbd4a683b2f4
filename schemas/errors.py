"""What can go wrong between bytes and events. `retriable` is the only word a runner reads."""

from __future__ import annotations


class SchemaError(Exception):
    """Root of this house's errors."""

    retriable = False


class UndecodableEvent(SchemaError):
    """The bytes are no event that this process can read: they belong on the dead-letter topic."""


class InvalidEvent(SchemaError):
    """The values do not fit the schema; the message names the field."""


class RegistryUnavailable(SchemaError):
    """The schema registry did not answer (or answered 5xx): nothing is known about the bytes yet."""

    retriable = True


class UnknownSchema(UndecodableEvent):
    """The registry answered that there is no schema with this id."""


class IncompatibleSchema(SchemaError):
    """A schema breaks the subject's compatibility rule; the message names field and rule."""


class InvalidSchemaText(SchemaError):
    """The registry refuses the text: no Avro schema, or one that could crash or drown a reader."""
