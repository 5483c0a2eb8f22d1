"""Queries on the stored checkpoints of one thread: how much storage they use, and which of them are not the last."""

from collections.abc import Mapping
from dataclasses import dataclass

from agentlog_facts.checkpoint import CheckpointKey
from agentlog_facts.ids import ThreadId
from agentlog_postgres.connection import Pool, reading

_STORAGE = """
SELECT 'checkpoints' AS kind, NULL AS channel, count(*) AS number,
       coalesce(sum(octet_length(checkpoint) + octet_length(metadata::text)), 0)::bigint AS bytes
  FROM read_v1.checkpoints WHERE thread_id = $1 AND NOT hidden
UNION ALL
SELECT 'writes', NULL, count(*), coalesce(sum(octet_length(w.value)), 0)::bigint
  FROM read_v1.writes w JOIN read_v1.checkpoints c USING (thread_id, checkpoint_ns, checkpoint_id)
 WHERE w.thread_id = $1 AND NOT w.hidden AND NOT c.hidden
UNION ALL
(SELECT 'channel', c.channel, count(*), sum(octet_length(c.payload))::bigint
   FROM (SELECT DISTINCT s.checkpoint_ns, v.key AS channel, v.value AS version
           FROM read_v1.checkpoints s, json_each_text(s.versions) v WHERE s.thread_id = $1 AND NOT s.hidden) named
   JOIN read_v1.channels c ON c.thread_id = $1 AND c.checkpoint_ns = named.checkpoint_ns
        AND c.channel = named.channel AND c.version = named.version
  WHERE c.kind <> 'empty' GROUP BY c.channel ORDER BY c.channel)
"""
_EARLIER = """
SELECT checkpoint_ns, checkpoint_id FROM read_v1.checkpoints c
 WHERE thread_id = $1 AND NOT hidden
   AND EXISTS (SELECT FROM read_v1.checkpoints l
                WHERE l.thread_id = $1 AND l.checkpoint_ns = c.checkpoint_ns AND l.seq > c.seq AND NOT l.hidden)
 ORDER BY seq
"""


@dataclass(frozen=True, slots=True)
class Size:
    """A number of stored things and their bytes."""

    number: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ThreadStorage:
    """Storage of a thread's visible checkpoints: their own, of the channel versions that they name, and of writes."""

    checkpoints: Size
    channels: Mapping[str, Size]
    writes: Size

    @property
    def channel_values(self) -> Size:
        """Return the sum over all channels."""
        found = self.channels.values()
        return Size(sum(one.number for one in found), sum(one.size_bytes for one in found))

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all parts."""
        return self.checkpoints.size_bytes + self.channel_values.size_bytes + self.writes.size_bytes


class StoredCheckpoints:
    """Queries on the rows of one thread's checkpoints, without hidden ones. All raise Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def storage(self, thread_id: ThreadId) -> ThreadStorage:
        """Return the storage of a thread."""
        async with reading(self._pool, "checkpoints.storage") as connection:
            rows = await connection.fetch(_STORAGE, thread_id)
        sizes = {row["kind"]: Size(row["number"], row["bytes"]) for row in rows}
        channels = {row["channel"]: Size(row["number"], row["bytes"]) for row in rows if row["kind"] == "channel"}
        return ThreadStorage(sizes["checkpoints"], channels, sizes["writes"])

    async def earlier(self, thread_id: ThreadId) -> list[CheckpointKey]:
        """Return all checkpoints but the last of each namespace, in the order of acceptance."""
        async with reading(self._pool, "checkpoints.earlier") as connection:
            rows = await connection.fetch(_EARLIER, thread_id)
        return [CheckpointKey(thread_id, row["checkpoint_ns"], row["checkpoint_id"]) for row in rows]
