"""Digest of a value that may be personal: keyed with a salt of its subject, so that erasing the salt ends what it says.

Source: infra/decisions/0054.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyedDigest:
    """HMAC-SHA-256 (hex) of a value under the salt `salt_id`. Without a salt it is a plain SHA-256, of spec 1 only."""

    digest: str
    salt_id: str | None = None


class Salts(Protocol):
    """The salts of subjects. A subject is a person or a service: issuer and sub of an actor."""

    def digest(self, value: bytes, subject: str) -> KeyedDigest:
        """Return the digest of a value under the subject's salt. Raises: Unavailable without a key."""
        ...

    def ip_hash(self, address: str) -> str:
        """Return the keyed hash of an IP address, the same for every subject. Raises: Unavailable without a key."""
        ...


def subject_of(iss: str | None, sub: str) -> str:
    """Return the subject of an actor."""
    return f"{len(iss or '')}:{iss or ''}{sub}"
