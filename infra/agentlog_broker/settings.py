"""Settings of the server: every limit and default, with its unit."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from .errors import Misconfigured

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Settings of one server; sizes in bytes, times in the unit of the name."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    node_id: int = 1
    partitions_default: int = 8
    partitions_per_topic_max: int = 1024
    auto_create_topics: bool = False
    max_message_bytes: int = 8 * MIB
    max_request_bytes: int = 32 * MIB
    max_connections: int = 512
    max_pipelined_requests: int = 64
    max_unwritten_bytes: int = 64 * MIB
    max_fetch_bytes: int = 64 * MIB
    wal_file_bytes: int = 32 * MIB
    wal_max_age_s: float = 600.0
    segment_bytes: int = 64 * MIB
    retention_ms: int = -1
    retention_check_s: float = 30.0
    storage_retry_s: float = 1.0
    producers_per_partition_max: int = 1024
    group_initial_delay_s: float = 0.1
    group_session_max_s: float = 1800.0
    offset_metadata_max_bytes: int = 4096
    secret_file: Path | None = None
    """File with the password of the user `agentlog`; None: no login."""
    undeletable_topics: frozenset[str] = frozenset()
    """Topics that no client may delete, grow, or delete records of."""
    endless_topics: frozenset[str] = frozenset()
    """Topics that are undeletable and whose settings must keep every record for ever."""

    def __post_init__(self) -> None:
        """Check that the server can work with these settings. Raises: Misconfigured."""
        if not is_loopback(self.host):
            raise Misconfigured(
                f"host {self.host!r}: this server listens on loopback only; use Apache Kafka beyond one machine"
            )
        if not 0 <= self.port <= 65535:
            raise Misconfigured(f"port {self.port}: expected 0 to 65535")
        if self.max_request_bytes <= self.max_message_bytes:
            raise Misconfigured(
                f"max_request_bytes {self.max_request_bytes}: "
                f"expected more than max_message_bytes {self.max_message_bytes}"
            )
        for name in ("partitions_default", "max_message_bytes", "max_connections", "max_pipelined_requests"):
            if getattr(self, name) < 1:
                raise Misconfigured(f"{name} {getattr(self, name)}: expected at least 1")
        if not 1 << 16 <= self.wal_file_bytes <= 1 << 30:
            raise Misconfigured(f"wal_file_bytes {self.wal_file_bytes}: expected 64 KiB to 1 GiB")

    def keeps_whole(self, topic: str) -> bool:
        """Return whether no client may delete or grow a topic, or delete records of it."""
        return topic in self.undeletable_topics or topic in self.endless_topics


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
