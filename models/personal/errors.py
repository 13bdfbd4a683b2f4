"""What can be wrong with keys and with what they encrypted; no message holds a value of a request."""

from __future__ import annotations


class PersonalDataError(Exception):
    """The root."""


class KeysUnavailable(PersonalDataError):
    """The keys cannot be had now: nothing personal is taken, and nothing shown."""


class NotSealed(PersonalDataError):
    """What should be encrypted under a key is not, was changed, or was encrypted for something else."""
