"""How a personal text becomes what the log holds. Pure: secrets are given.

AES-SIV (RFC 5297) is deterministic: a request that is sent again makes the equal event. The event's id is
associated data and so acts as the nonce: equal texts of two events look different. Keys are derived by HKDF
(RFC 5869, its expand step: secrets are 256 random bits). Texts are padded (ISO/IEC 7816-4), so that their
length shows in steps of BLOCK bytes alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from models.personal.errors import NotSealed

SECRET_BYTES = 32
BLOCK = 32
SIV_BYTES = 16
MARK = "s1."
"""Begins every sealed text, and says how it was made."""
_SEALED = re.compile(r"s1\.[A-Za-z0-9_-]{64,}")
_PURPOSE = b"driftlog personal 1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed text stands; it opens nowhere else."""

    task: str
    field: str
    event_id: str

    @property
    def associated(self) -> list[bytes]:
        return [_PURPOSE, self.task.encode(), self.field.encode(), self.event_id.encode()]


@dataclass(frozen=True)
class PersonKey:
    """The keys of one person in one task, from its 32 random bytes."""

    secret: bytes

    @cached_property
    def person(self) -> str:
        """The pseudonym, 32 hex digits. Without the secret nothing leads from the person to it."""
        return _expand(self.secret, b"person", 16).hex()

    @cached_property
    def _siv(self) -> AESSIV:
        return AESSIV(_expand(self.secret, b"seal", 64))

    def seal(self, text: str, place: Place) -> str:
        """The text as the log may hold it."""
        plain = text.encode() + b"\x80"
        plain += bytes(-len(plain) % BLOCK)
        sealed = self._siv.encrypt(plain, place.associated)
        return MARK + base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def unseal(self, sealed: str, place: Place) -> str:
        """The text; raises NotSealed if it was not sealed with this key for this place."""
        try:
            if not is_sealed(sealed):
                raise ValueError
            body = sealed.removeprefix(MARK)
            raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
            plain = self._siv.decrypt(raw, place.associated)
            return plain.rstrip(b"\0")[:-1].decode()
        except (InvalidTag, ValueError, binascii.Error):
            raise NotSealed(
                f"{place.field} of event {place.event_id} does not open: it was changed, or it was"
                " not encrypted for this event"
            ) from None


class MasterKey:
    """Wraps the keys of persons and finds them; from 32 random bytes that are kept apart from the log."""

    def __init__(self, secret: bytes) -> None:
        self._wrap = AESSIV(_expand(secret, b"wrap", 64))
        self._lookup = _expand(secret, b"lookup", 32)
        self._fingerprint = _expand(secret, b"fingerprint", 32)
        self.check = _expand(secret, b"check", 16)
        """Tells this master key from others; nothing else follows from it."""

    def lookup(self, task: str, subject: str) -> bytes:
        """Under what the key of a person stands in the store, 32 bytes."""
        return _hmac(self._lookup, task.encode() + b"\0" + subject.encode())

    def fingerprint(self, body: bytes) -> bytes:
        """Tells request bodies apart, 32 bytes; without the key nobody can guess at a body by it."""
        return _hmac(self._fingerprint, body)

    def wrap(self, key: PersonKey, lookup: bytes) -> bytes:
        return self._wrap.encrypt(key.secret, [lookup])

    def unwrap(self, wrapped: bytes, lookup: bytes) -> PersonKey:
        """Raises NotSealed."""
        try:
            return PersonKey(self._wrap.decrypt(wrapped, [lookup]))
        except (InvalidTag, ValueError):
            raise NotSealed("a key in the key store was changed: restore the store") from None


def is_sealed(text: object) -> bool:
    """Whether a value has the form of a sealed text."""
    return isinstance(text, str) and _SEALED.fullmatch(text) is not None


def _expand(secret: bytes, purpose: bytes, length: int) -> bytes:
    return HKDFExpand(hashes.SHA512(), length, _PURPOSE + b" " + purpose).derive(secret)


def _hmac(key: bytes, data: bytes) -> bytes:
    made = hmac.HMAC(key, hashes.SHA256())
    made.update(data)
    return made.finalize()
