"""Implements `CopyReads` over the projected tables, and finds copies that nobody has finished.

A part of a copy has what the rows of the source hold, hidden checkpoints too: a visible one may build on them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from agentlog_commands.thread_copies import CopyPart, CopyProgress, CopyState, OpenCopy, copy_stream
from agentlog_facts.checkpoint import CheckpointFact, CheckpointSaved, CheckpointsHidden, WritesSaved
from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import Json, JsonObject, load, load_object
from agentlog_facts.thread_copy import ThreadCopyAsked
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.sql.caught_up import key_is_authoritative, require

PART_BYTES = 512 * 1024
PART_ROWS = 200
"""A part is about this large, and has at most this many facts of the source."""

_PROGRESS = "SELECT state, version, copied_to FROM read_v1.thread_copies WHERE thread_id = $1"
_OPEN = """
SELECT c.thread_id, c.event_id, c.asked_at FROM read_v1.thread_copies c JOIN ledger.positions p USING (partition)
 WHERE c.state = 'open' AND c.asked_at < $1 AND p.present AND p.stopped IS NULL
   AND NOT EXISTS (SELECT FROM ledger.quarantine q WHERE q.key = c.thread_id)
 ORDER BY c.asked_at LIMIT $2
"""
_SOURCE = f"""
SELECT {key_is_authoritative("$1::text")} AS is_authoritative, t.created_at
  FROM (SELECT 1) AS one LEFT JOIN read_v1.threads t ON t.thread_id = $1
"""
_SIZES = """
SELECT seq, sum(size)::bigint AS size FROM (
    SELECT seq, octet_length(checkpoint) + octet_length(metadata::text) AS size
      FROM read_v1.checkpoints WHERE thread_id = $1 AND seq >= $2 AND seq < $3
    UNION ALL
    SELECT seq, octet_length(payload) FROM read_v1.channels WHERE thread_id = $1 AND seq >= $2 AND seq < $3
    UNION ALL
    SELECT seq, octet_length(value) FROM read_v1.writes WHERE thread_id = $1 AND seq >= $2 AND seq < $3
) AS s GROUP BY seq ORDER BY seq LIMIT $4
"""
_CHECKPOINTS = """
SELECT checkpoint_ns, checkpoint_id, seq, parent_checkpoint_id, checkpoint, metadata, hidden
  FROM read_v1.checkpoints WHERE thread_id = $1 AND seq >= $2 AND seq < $3 ORDER BY seq
"""
# A checkpoint that was saved again has one row, at its last place: channels of the first place go with the next row.
_CHANNELS = """
SELECT c.checkpoint_ns, c.channel, c.version, c.seq, c.kind, c.base_version, c.length, c.payload
  FROM read_v1.channels c
  LEFT JOIN (SELECT checkpoint_ns, max(seq) AS seq FROM read_v1.checkpoints
              WHERE thread_id = $1 AND seq < $2 GROUP BY checkpoint_ns) before USING (checkpoint_ns)
 WHERE c.thread_id = $1 AND c.seq > coalesce(before.seq, -1) AND c.seq < $3 ORDER BY c.seq
"""
# The writes of a run that was taken back stay away from the checkpoints of other runs.
_WRITES = """
SELECT w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx, w.seq, w.channel, w.task_path, w.value
  FROM read_v1.writes w
  LEFT JOIN read_v1.checkpoints c USING (thread_id, checkpoint_ns, checkpoint_id)
 WHERE w.thread_id = $1 AND w.seq >= $2 AND w.seq < $3 AND (NOT w.hidden OR c.run_id = w.run_id)
 ORDER BY w.seq, w.idx
"""


class ThreadCopying:
    """Implements `CopyReads`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def progress(self, thread_id: ThreadId) -> CopyProgress | None:
        async with reading(self._pool, "copies.progress") as connection:
            row = await connection.fetchrow(_PROGRESS, thread_id)
        return None if row is None else CopyProgress(_state(row["state"]), row["version"], row["copied_to"])

    async def part(self, asked: ThreadCopyAsked, start: int) -> CopyPart | None:
        source = asked.source_thread_id
        async with reading(self._pool, "copies.part") as connection:
            if not await _is_there(connection, asked):
                return None
            sizes = await connection.fetch(_SIZES, source, start, asked.as_of, PART_ROWS)
            end = _end(sizes, asked.as_of)
            checkpoints = await connection.fetch(_CHECKPOINTS, source, start, end)
            channels = await connection.fetch(_CHANNELS, source, start, end)
            writes = await connection.fetch(_WRITES, source, start, end)
            if not await _is_there(connection, asked):  # the rows were of an earlier thread, or are gone by now
                return None
        return CopyPart(_Part(asked.thread_id, checkpoints, channels, writes).facts(), end)

    async def open_copies(self, asked_before: datetime, limit: int) -> list[OpenCopy]:
        """Return copies that are neither done nor given up, the oldest first. Raises: Unavailable."""
        async with reading(self._pool, "copies.open") as connection:
            rows = await connection.fetch(_OPEN, asked_before, limit)
        return [OpenCopy(ThreadId(row["thread_id"]), row["event_id"], row["asked_at"]) for row in rows]


async def _is_there(connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", asked: ThreadCopyAsked) -> bool:
    """Return whether the rows are those of the source, deleted or not. Raises: Unavailable."""
    row = await connection.fetchrow(_SOURCE, asked.source_thread_id)
    require(row is not None and row["is_authoritative"], f"thread {asked.source_thread_id}")
    return row is not None and row["created_at"] == asked.source_created_at


def _end(sizes: Sequence[asyncpg.Record], as_of: int) -> int:
    """Return the end of a part: at least one fact, and no more than its limits."""
    total = 0
    for place, row in enumerate(sizes):
        total += row["size"]
        if total > PART_BYTES and place:
            return int(row["seq"])
    return as_of if len(sizes) < PART_ROWS else int(sizes[-1]["seq"]) + 1


def _state(text: str) -> CopyState:
    match text:
        case "open" | "done" | "given_up":
            return text
        case _:
            raise Corrupt(f"copy: expected a state, found {text}")


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a source, and the facts that state them for the thread `target`, in order."""

    target: ThreadId
    checkpoints: Sequence[asyncpg.Record]
    channels: Sequence[asyncpg.Record]
    writes: Sequence[asyncpg.Record]

    def facts(self) -> tuple[CheckpointFact, ...]:
        placed = [*self._saved(), *self._written()]
        facts: list[CheckpointFact] = [fact for _, fact in sorted(placed, key=lambda one: one[0])]
        hidden: tuple[Json, ...] = tuple(
            {"ns": row["checkpoint_ns"], "checkpoint_id": row["checkpoint_id"]}
            for row in self.checkpoints
            if row["hidden"]
        )
        return (*facts, CheckpointsHidden(self.target, hidden, "copy")) if hidden else tuple(facts)

    def _saved(self) -> Iterator[tuple[int, CheckpointFact]]:
        waiting: dict[str, list[asyncpg.Record]] = {}
        for row in self.channels:
            waiting.setdefault(row["checkpoint_ns"], []).append(row)
        for row in self.checkpoints:
            ns, seq = row["checkpoint_ns"], row["seq"]
            stated = [one for one in waiting.get(ns, ()) if one["seq"] <= seq]
            waiting[ns] = [one for one in waiting.get(ns, ()) if one["seq"] > seq]
            metadata = load_object(row["metadata"])
            if "thread_id" in metadata:
                metadata = {**metadata, "thread_id": self.target}
            yield (
                seq,
                CheckpointSaved(
                    thread_id=self.target,
                    run_id=None,
                    checkpoint_ns=ns,
                    checkpoint_id=row["checkpoint_id"],
                    parent_checkpoint_id=row["parent_checkpoint_id"],
                    checkpoint=load_object(row["checkpoint"]),
                    metadata=metadata,
                    channels=tuple(map(self._channel, stated)),
                ),
            )

    def _channel(self, row: asyncpg.Record) -> JsonObject:
        entry: JsonObject = {"channel": row["channel"], "version": row["version"], "kind": row["kind"]}
        match row["kind"]:
            case "full":
                return {**entry, "value": load(row["payload"])}
            case "append":
                base: JsonObject = {
                    "version": row["base_version"],
                    "length": row["length"],
                    "stream": copy_stream(self.target),
                }
                return {**entry, "items": load(row["payload"]), "base": base}
            case _:
                return entry

    def _written(self) -> Iterator[tuple[int, CheckpointFact]]:
        of_fact: dict[tuple[int, str, str, str, str], list[Json]] = {}
        for row in self.writes:
            place = (row["seq"], row["checkpoint_ns"], row["checkpoint_id"], row["task_id"], row["task_path"])
            write: JsonObject = {"index": row["idx"], "channel": row["channel"], "value": load(row["value"])}
            of_fact.setdefault(place, []).append(write)
        for (seq, ns, checkpoint_id, task_id, task_path), writes in of_fact.items():
            yield seq, WritesSaved(self.target, None, ns, checkpoint_id, task_id, task_path, tuple(writes))
