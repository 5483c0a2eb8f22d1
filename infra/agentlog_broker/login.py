"""Login of clients with SCRAM-SHA-256: both sides prove that they know the secret, and neither sends it.

So a program that takes the port of a stopped server learns no secret. Source: RFC 5802, RFC 7677.
"""

import base64
import hashlib
import hmac
import secrets

from .errors import Code
from .requests import Request
from .wire import Writer

MECHANISM = "SCRAM-SHA-256"
USER = "agentlog"
_ITERATIONS = 4096


class Secret:
    """The password of the one user, and the keys that follow from it; made once for all connections."""

    def __init__(self, password: str) -> None:
        self.salt = secrets.token_bytes(16)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), self.salt, _ITERATIONS)
        self.stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        self.server_key = _hmac(salted, b"Server Key")


class LoginFailed(Exception):
    """The client does not know the secret, or its message is not valid."""


class Login:
    """Login of one connection, in two steps; `done` is set after the second one."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._first = ""
        self._nonce = ""
        self.done = False

    def handshake(self, request: Request) -> bytes:
        """Answer SaslHandshake: the mechanism, and an error for any other one."""
        known = request.reader().string() == MECHANISM
        out = Writer().i16(Code.NONE if known else Code.UNSUPPORTED_SASL_MECHANISM)
        return out.array([MECHANISM], out.string).done()

    def authenticate(self, request: Request) -> bytes:
        """Answer SaslAuthenticate; after a failure the client has to connect again."""
        out = Writer()
        try:
            message = self._step(request.reader().blob().decode())
        except (LoginFailed, ValueError, KeyError):
            out.i16(Code.SASL_AUTHENTICATION_FAILED).string("the login of this server is not known").blob(b"")
        else:
            out.i16(Code.NONE).string(None).blob(message.encode())
        return (out.i64(0) if request.version >= 1 else out).done()

    def _step(self, message: str) -> str:
        return self._server_first(message) if not self._first else self._server_final(message)

    def _server_first(self, message: str) -> str:
        bare = message.removeprefix("n,,")
        fields = _fields(bare)
        if bare == message or fields["n"] != USER or not fields["r"]:
            raise LoginFailed
        self._nonce = fields["r"] + secrets.token_urlsafe(18)
        salt = base64.b64encode(self._secret.salt).decode()
        answer = f"r={self._nonce},s={salt},i={_ITERATIONS}"
        self._first = f"{bare},{answer}"
        return answer

    def _server_final(self, message: str) -> str:
        without_proof, _, proof = message.rpartition(",p=")
        fields = _fields(without_proof)
        if self.done or fields["c"] != "biws" or fields["r"] != self._nonce:
            raise LoginFailed
        signed = f"{self._first},{without_proof}".encode()
        signature = _hmac(self._secret.stored_key, signed)
        given = base64.b64decode(proof, validate=True)
        if len(given) != len(signature):
            raise LoginFailed
        client_key = bytes(one ^ other for one, other in zip(given, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._secret.stored_key):
            raise LoginFailed
        self.done = True
        return f"v={base64.b64encode(_hmac(self._secret.server_key, signed)).decode()}"


def _fields(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(","))
    return {name: value for name, _, value in pairs}


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
