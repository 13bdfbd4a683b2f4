"""The refusals of Confluent's REST API: HTTP status, error code and a line that says what to do."""

from __future__ import annotations


class RegistryFault(Exception):
    """A request that is refused; `code` is the API's error_code, its first three digits the status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """HTTP status; an unreachable store (50001, 50003) is 503: the same request may pass later."""
        if self.code in {50001, 50003}:
            return 503
        return self.code if self.code < 1000 else self.code // 100


class StoreUnavailable(RegistryFault):
    """Kafka did not answer: nothing is known about the write, which can be sent again."""


def no_subject(subject: str) -> RegistryFault:
    return RegistryFault(40401, f"Subject '{subject}' not found.")


def no_version(number: int) -> RegistryFault:
    return RegistryFault(40402, f"Version {number} not found.")


def no_schema(schema_id: int | None = None) -> RegistryFault:
    return RegistryFault(
        40403, f"Schema {schema_id} not found" if schema_id else "Schema not found"
    )


def invalid_schema(why: object) -> RegistryFault:
    return RegistryFault(42201, f"Invalid schema: {why}")


def invalid_version(text: str) -> RegistryFault:
    return RegistryFault(
        42202,
        f"The specified version '{text}' is not a valid version id. "
        'Allowed values are between [1, 2^31-1] and the string "latest"',
    )


def invalid_level(text: object, known: tuple[str, ...]) -> RegistryFault:
    return RegistryFault(
        42203, f"Invalid compatibility level {text!r}. Valid values are {', '.join(known)}"
    )


def invalid_mode(text: object, known: tuple[str, ...]) -> RegistryFault:
    return RegistryFault(42204, f"Invalid mode {text!r}. Valid values are {', '.join(known)}")


def incompatible(subject: str, why: list[str]) -> RegistryFault:
    return RegistryFault(
        409,
        "Schema being registered is incompatible with an earlier schema for subject "
        f"'{subject}': {'; '.join(why)}",
    )


def store_unavailable(why: object) -> StoreUnavailable:
    return StoreUnavailable(50001, f"Error in the backend data store: {why}")
