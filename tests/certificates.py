"""Certificates of a test run: an authority, a server on 127.0.0.1, a client, and an unrelated authority."""

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: authorities (`ca`, and `other_ca`, which signed none of the others), chains and PKCS 8 keys."""

    ca: Path
    other_ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    @classmethod
    def make(cls, folder: Path) -> "Certificates":
        """Create the authorities and certificates in a folder."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
        server = _write(authority.issue_cert("127.0.0.1"), folder / "server")
        client = _write(authority.issue_cert("agentlog@example.test"), folder / "client")
        return cls(folder / "ca.pem", folder / "other-ca.pem", *server, *client)


def _write(made: trustme.LeafCert, path: Path) -> tuple[Path, Path]:
    chain, key = path.with_suffix(".pem"), path.with_suffix(".key")
    chain.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    private = load_pem_private_key(made.private_key_pem.bytes(), None)
    key.touch(0o600)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return chain, key
