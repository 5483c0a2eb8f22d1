"""Salts of subjects, derived from the key that seals the secrets of runs; erasing that key ends what all digests say.

Until there is a key for each subject, `salt_id` names the key and the subject: `<key id>.<keyed hash of the subject>`.
Source: infra/decisions/0054.
"""

import hmac
from collections.abc import Callable

from agentlog_facts.keyed_digest import KeyedDigest
from agentlog_facts.lru import Lru
from agentlog_infra.aes_cipher import key_id

ADDRESSES = 4096
"""Addresses whose hashes are remembered."""


class SubjectSalts:
    """Implements `keyed_digest.Salts` with one key; `key` returns it, and raises Unavailable if there is none."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key
        self._addresses: Lru[str, str] = Lru(ADDRESSES)

    def digest(self, value: bytes, subject: str) -> KeyedDigest:
        """Return the digest of a value under the subject's salt. Raises: Unavailable without a key."""
        key = self._key()
        salt = hmac.digest(key, b"agentlog salt:" + subject.encode(), "sha256")
        salt_id = f"{key_id(key)}.{_hex(key, b'agentlog salt id:' + subject.encode())[:16]}"
        return KeyedDigest(_hex(salt, value), salt_id)

    def ip_hash(self, address: str) -> str:
        """Return the keyed hash of an IP address, the same for every subject. Raises: Unavailable without a key."""
        found = self._addresses.get(address)
        if found is None:
            key = self._key()
            found = f"{key_id(key)}.{_hex(key, b'agentlog ip:' + address.encode())[:32]}"
            self._addresses.put(address, found)
        return found


def _hex(key: bytes, value: bytes) -> str:
    return hmac.digest(key, value, "sha256").hex()
