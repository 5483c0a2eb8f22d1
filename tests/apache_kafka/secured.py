"""A node of Apache Kafka that demands TLS, client certificates or a login, each on a port of its own."""

from pathlib import Path

from tests.apache_kafka.server import ApacheKafka
from tests.certificates import Certificates

USER, PASSWORD = "agentlog", "hunter2-over-kafka"
DOORS = {"TLS": "SSL", "MUTUAL": "SSL", "LOGIN": "SASL_SSL", "CLEAR": "SASL_PLAINTEXT"}
"""Name of a door -> protocol spoken there; MUTUAL demands a client certificate."""
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_PLAIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class SecuredKafka(ApacheKafka):
    """A node that also keeps the open port, for its own requests and for tests that check from outside."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        super().__init__(folder, len(DOORS), group_min_session_timeout_ms="500")
        self.doors = dict(zip(DOORS, self.door_ports, strict=True))
        keystore = folder / "keystore.pem"
        keystore.touch(0o600)
        keystore.write_bytes(certificates.server_key.read_bytes() + certificates.server.read_bytes())
        self.configure(self._listeners() | _logins() | _tls(keystore, certificates.ca))
        users = [f"{name}=[name={USER},password={PASSWORD}]" for name in MECHANISMS if name.startswith("SCRAM")]
        self.format_words = tuple(word for user in users for word in ("--add-scram", user))

    def door(self, name: str) -> str:
        """Return the address of a door."""
        return f"127.0.0.1:{self.doors[name]}"

    def _listeners(self) -> dict[str, str]:
        open_doors = {"PLAINTEXT": self.port, **self.doors}
        advertised = ",".join(f"{name}://127.0.0.1:{port}" for name, port in open_doors.items())
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **DOORS}
        return {
            "listeners": f"{advertised},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": advertised,
            "listener.security.protocol.map": ",".join(f"{name}:{how}" for name, how in protocols.items()),
        }


def _logins() -> dict[str, str]:
    found = {"sasl.enabled.mechanisms": ",".join(MECHANISMS)}
    for door in ("login", "clear"):
        for name in MECHANISMS:
            module = _PLAIN if name == "PLAIN" else _SCRAM
            found[f"listener.name.{door}.{name.lower()}.sasl.jaas.config"] = module
    return found


def _tls(keystore: Path, ca: Path) -> dict[str, str]:
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ca),
        "listener.name.mutual.ssl.client.auth": "required",
    }
