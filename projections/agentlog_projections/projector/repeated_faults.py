"""Faults that repeat at one place of the log without progress: the record's fault, or an outage of PostgreSQL.

A record may provoke a fault that looks like an outage: it ends its connection, exceeds the memory, or takes longer
than a statement may. Folded again for ever, it would stop all writes. So the projector counts faults by the position at
which a partition stands, over sessions and with growing pauses; progress of the partition ends the count. An outage is
told from a record by a write of the same size on another connection, right after the fault: if PostgreSQL refuses it,
the fault does not count, and the count begins again.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import Unavailable
from agentlog_postgres.connection import TRANSIENT, close, connect_projector
from agentlog_projections import timeouts
from agentlog_projections.models.registry import TYPES

log = logging.getLogger(__name__)

BATCH_TRIES = 3
"""A batch that has failed so often is folded record by record, so that one record is left that fails."""
RECORD_TRIES = 6
"""A record that has failed so often is no longer folded. From BATCH_TRIES on only faults of the record alone count, and
only those after which PostgreSQL took another write."""
READ_TRIES = 8
"""A record whose blobs could not be read so often stops its partition, so that the others go on."""
LEAST_PROBE_BYTES, MOST_PROBE_BYTES = 64 * 1024, 8 * 1024 * 1024

_TABLES = ", ".join(["ledger.heads", "ledger.log_index", *(f"read_v1.{t}" for one in TYPES for t in one.tables)])
_LOCK = f"LOCK TABLE {_TABLES} IN ROW EXCLUSIVE MODE"
_WRITE = """
INSERT INTO ledger.quarantine (model, key, partition, "offset", error, version, ordinal, ended)
VALUES ('probe', $1, -1, -1, $2, 0, 0, '{}')
"""
_ERASE = "DELETE FROM ledger.quarantine WHERE model = 'probe'"


@dataclass(slots=True)
class RepeatedFaults:
    """Faults by partition, with the offset at which it stands; a projector keeps them over its sessions."""

    _folds: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    _reads: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    def __bool__(self) -> bool:
        """Tell whether a fault has not been followed by progress yet."""
        return bool(self._folds or self._reads)

    def fold_failed(self, starts: Mapping[int, int], *, outage: bool) -> None:
        """Count a fault of a batch; `starts` has the first offset of each of its partitions.

        `outage`: PostgreSQL took no other write either, so the fault says nothing about the batch.
        """
        for partition, offset in starts.items():
            count = BATCH_TRIES if outage else self._count(self._folds, partition, offset) + 1
            self._folds[partition] = (offset, count)

    def read_failed(self, place: LogPosition) -> bool:
        """Count a fault while a record's blobs were read, and tell whether its partition must stop there."""
        count = self._count(self._reads, place.partition, place.offset) + 1
        self._reads[place.partition] = (place.offset, count)
        return count >= READ_TRIES

    def folded(self, starts: Mapping[int, int]) -> None:
        """Forget the faults of partitions that have made progress."""
        for partition in starts:
            self._folds.pop(partition, None)
            self._reads.pop(partition, None)

    def tries(self, starts: Mapping[int, int]) -> int:
        """Return how often a batch with these first offsets has failed."""
        return max((self._count(self._folds, partition, offset) for partition, offset in starts.items()), default=0)

    def _count(self, counts: Mapping[int, tuple[int, int]], partition: int, offset: int) -> int:
        at, count = counts.get(partition, (offset, 0))
        return count if at == offset else 0


async def takes_writes(database_uri: str, size_bytes: int) -> bool:
    """Tell whether PostgreSQL takes writes on another connection: into every table, of this size, durable."""
    text = secrets.token_hex(min(max(size_bytes, LEAST_PROBE_BYTES), MOST_PROBE_BYTES) // 2)  # cannot be compressed
    try:
        async with asyncio.timeout(timeouts.PROBE_S):
            connection = await connect_projector(database_uri, "agentlog projector probe")
            try:
                async with connection.transaction():  # it leaves no row behind
                    await connection.execute(_LOCK)
                    await connection.execute(_WRITE, text[:64], text)
                    await connection.execute(_ERASE)
            finally:
                await close(connection)
    except (Unavailable, asyncpg.PostgresError, *TRANSIENT) as error:
        log.warning("projector.no_writes", extra={"reason": f"{type(error).__name__}: {error}"})
        return False
    return True
