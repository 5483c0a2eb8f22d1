"""AES-GCM for the secrets of runs, with keys from the settings and from a file of the data directory.

LANGGRAPH_AES_KEY seals if it is set; else the first key of the file does, which is made when it is needed. Each line of
the file is one key in base64. The file is read again at each use, so that erasing a key ends its secrets at once, and
mending it needs no restart.
"""

import base64
import binascii
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_facts.json_value import Json, JsonObject, dump, load
from agentlog_facts.secret_values import SecretUnreadable

log = logging.getLogger(__name__)

KEY_BYTES = 32
KEY_SIZES = (16, 24, 32)
NONCE_BYTES = 12
FILE_NAME = "secrets.key"


class AesGcmCipher:
    """Implements `secret_values.SecretCipher`."""

    def __init__(self, key: str | None, data_dir: Path) -> None:
        """Raises: Misconfigured for a key, or a file that holds keys, that AES cannot use."""
        self._key = None if key is None else key.encode()
        self._file = data_dir / FILE_NAME
        if self._key is not None and len(self._key) not in KEY_SIZES:
            raise Misconfigured(f"LANGGRAPH_AES_KEY: expected 16, 24 or 32 bytes, found {len(self._key)}")
        try:
            if not self._of_file() and self._key is None and self._file.exists():
                raise self._without_a_key()
        except Unavailable as error:
            raise Misconfigured(str(error)) from error

    def seal(self, value: Json, owner: str) -> JsonObject:
        """Return {key_id, nonce, ciphertext}. Raises: Unavailable when the key file cannot be read or made."""
        key, nonce = self.sealing_key(), os.urandom(NONCE_BYTES)
        return {
            "key_id": key_id(key),
            "nonce": base64.b64encode(nonce).decode(),
            "ciphertext": base64.b64encode(AESGCM(key).encrypt(nonce, dump(value), owner.encode())).decode(),
        }

    def sealing_key(self) -> bytes:
        """Return the key that seals now. Raises: Unavailable when the key file cannot be read or made."""
        return self._key or self._first_of_file()

    def open(self, sealed: JsonObject, owner: str) -> Json:
        """Return the value. Raises: SecretUnreadable."""
        try:
            key = self._known().get(str(sealed.get("key_id")))
        except Unavailable as error:
            raise SecretUnreadable(str(error)) from error
        if key is None:
            raise SecretUnreadable(
                f"a secret of the run cannot be read: its key {sealed.get('key_id')} was erased, or gateway and worker "
                f"have different keys; expected it in LANGGRAPH_AES_KEY or {FILE_NAME} of the data directory"
            )
        try:
            nonce, data = (base64.b64decode(str(sealed.get(name)), validate=True) for name in ("nonce", "ciphertext"))
            return load(AESGCM(key).decrypt(nonce, data, owner.encode()))
        except (InvalidTag, ValueError) as error:  # binascii.Error is a ValueError
            raise SecretUnreadable(
                "a secret of the run cannot be read: it was changed, or is of another thread"
            ) from error

    def _known(self) -> Mapping[str, bytes]:
        keys = self._of_file() if self._key is None else [self._key, *self._of_file()]
        return {key_id(key): key for key in keys}

    def _first_of_file(self) -> bytes:
        keys = self._of_file()
        if not keys:
            self._make_file()
            keys = self._of_file()
        if not keys:
            raise self._without_a_key()
        return keys[0]

    def _without_a_key(self) -> Unavailable:
        return Unavailable(f"{self._file}: expected a key in base64, found none; delete the file to get a new key")

    def _of_file(self) -> Sequence[bytes]:
        try:
            lines = self._file.read_text().split()
            keys = [base64.b64decode(line, validate=True) for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError, binascii.Error) as error:
            raise Unavailable(f"{self._file}: the key of secrets cannot be read: {error}") from error
        for number, key in enumerate(keys, 1):
            if len(key) not in KEY_SIZES:
                raise Unavailable(f"{self._file}: key {number}: expected 16, 24 or 32 bytes, found {len(key)}")
        return keys

    def _make_file(self) -> None:
        """Make the file with a new key, readable by its owner only; another process may make it first."""
        folder = self._file.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=folder)  # mode 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.link(name, self._file)
                log.info("secrets.key_made", extra={"file": str(self._file)})
            except FileExistsError:
                log.debug("secrets.key_exists", extra={"file": str(self._file)})
            finally:
                os.unlink(name)
            _sync(folder)
        except OSError as error:
            raise Unavailable(f"{self._file}: the key of secrets cannot be made: {error}") from error


def key_id(key: bytes) -> str:
    """Return the name of a key, which does not tell the key."""
    return hashlib.sha256(b"agentlog key id:" + key).hexdigest()[:16]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
