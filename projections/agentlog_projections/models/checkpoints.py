"""Read model `checkpoints`: tables of checkpoints, channel versions and pending writes, and the reads of savers."""

from collections.abc import Sequence
from typing import ClassVar

import asyncpg

from agentlog_facts.checkpoint import ChannelHistory, CheckpointKey
from agentlog_facts.checkpoint_ports import CheckpointQuery, StoredCheckpoint, StoredWrite
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject, load, load_object
from agentlog_facts.thread import ThreadCopied, ThreadCreated
from agentlog_postgres.connection import Pool, PooledConnection, reading
from agentlog_projections.models.channel_chains import ChannelChains
from agentlog_projections.models.checkpoint_fold import ChannelRow, CheckpointBatch, CheckpointRow, WriteRow
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.caught_up import key_is_authoritative, require
from agentlog_projections.sql.columns import encoded
from agentlog_projections.sql.read_model import Commit
from agentlog_projections.sql.schema import PRELUDE, contained, searchable

CACHE_BYTES = 32 * 1024 * 1024
"""JSON of long lists that one process keeps, so that the next read fetches only what was appended since."""

_CHECKPOINTS = """
INSERT INTO read_v1.checkpoints AS t (thread_id, checkpoint_ns, checkpoint_id, seq, run_id, parent_checkpoint_id,
                                      versions, checkpoint, metadata, hidden)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::json[], $8::bytea[],
                     $9::json[], $10::bool[])
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
       seq = excluded.seq, run_id = excluded.run_id, parent_checkpoint_id = excluded.parent_checkpoint_id,
       versions = excluded.versions, checkpoint = excluded.checkpoint, metadata = excluded.metadata,
       hidden = excluded.hidden
 WHERE t.seq < excluded.seq
"""
_CHANNELS = """
INSERT INTO read_v1.channels (thread_id, checkpoint_ns, channel, version, seq, stream, kind, base_stream, base_version,
                              length, payload)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::int[], $11::bytea[])
ON CONFLICT DO NOTHING
"""
_WRITES = """
INSERT INTO read_v1.writes AS t (thread_id, checkpoint_ns, checkpoint_id, run_id, task_id, idx, seq, channel, task_path,
                                 value, hidden)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bigint[], $8::text[],
                     $9::text[], $10::bytea[], $11::bool[])
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, run_id, task_id, idx) DO UPDATE SET
       seq = excluded.seq, channel = excluded.channel, task_path = excluded.task_path, value = excluded.value
 WHERE excluded.idx < 0 AND t.seq < excluded.seq
"""
_HIDE_RUN = """
WITH c AS (UPDATE read_v1.checkpoints SET hidden = true WHERE thread_id = $1 AND run_id = $2 AND NOT hidden)
UPDATE read_v1.writes SET hidden = true WHERE thread_id = $1 AND run_id = $2 AND NOT hidden
"""
# By ctid: see `runs`. Only the primary key finds the first id that is not less than another one without a sort; asked
# for an equal one, the planner may read all checkpoints of the thread by the index on their order.
_HIDE = """
UPDATE read_v1.checkpoints c SET hidden = true
  FROM unnest($1::text[], $2::text[], $3::text[]) AS k(thread_id, checkpoint_ns, checkpoint_id),
       LATERAL (SELECT ctid AS at, o.checkpoint_id FROM read_v1.checkpoints o
                 WHERE o.thread_id = k.thread_id AND o.checkpoint_ns = k.checkpoint_ns
                   AND o.checkpoint_id >= k.checkpoint_id
                 ORDER BY o.checkpoint_id LIMIT 1) o
 WHERE c.ctid = o.at AND o.checkpoint_id = k.checkpoint_id AND NOT c.hidden
"""
_ERASE = tuple(f"DELETE FROM read_v1.{table} WHERE thread_id = $1" for table in ("checkpoints", "channels", "writes"))


class CheckpointsModel:
    """Folds checkpoints; it caches no rows between batches."""

    name: ClassVar[str] = "checkpoints"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[str, ...]] = ("checkpoints", "channels", "writes")
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.checkpoints (
    thread_id text NOT NULL, checkpoint_ns text NOT NULL, checkpoint_id text NOT NULL, seq bigint NOT NULL, run_id text,
    parent_checkpoint_id text, versions json NOT NULL, checkpoint bytea NOT NULL, metadata json NOT NULL,
    hidden bool NOT NULL, PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
);
CREATE INDEX IF NOT EXISTS checkpoints_order ON read_v1.checkpoints (thread_id, checkpoint_ns, seq);
CREATE TABLE IF NOT EXISTS read_v1.channels (
    thread_id text NOT NULL, checkpoint_ns text NOT NULL, channel text NOT NULL, version text NOT NULL,
    seq bigint NOT NULL, stream text NOT NULL, kind text NOT NULL, base_stream text, base_version text, length int,
    payload bytea NOT NULL, PRIMARY KEY (thread_id, checkpoint_ns, channel, version, seq)
);
CREATE TABLE IF NOT EXISTS read_v1.writes (
    thread_id text NOT NULL, checkpoint_ns text NOT NULL, checkpoint_id text NOT NULL, run_id text NOT NULL,
    task_id text NOT NULL, idx int NOT NULL, seq bigint NOT NULL, channel text NOT NULL, task_path text NOT NULL,
    value bytea NOT NULL, hidden bool NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, run_id, task_id, idx)
);
"""

    def forget(self) -> None:
        """Do nothing: no rows are cached."""

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect the new rows; earlier ones are hidden and erased first."""
        folded = CheckpointBatch()
        for commit in batch:
            first = commit.draft.facts[0]
            copied = any(isinstance(fact, ThreadCopied) for fact in commit.draft.facts)  # its checkpoints came before
            if isinstance(first, ThreadCreated) and commit.ordinal and not copied:
                folded.begin_again(first.thread_id)
            folded.fold(commit)
        _write(tx, folded)


def _write(tx: Transaction, folded: CheckpointBatch) -> None:
    for thread_id in folded.erased:
        for sql in _ERASE:
            tx.write_first(sql, thread_id)
    for thread_id, run_id in folded.hidden_runs:
        tx.write_first(_HIDE_RUN, thread_id, run_id)
    if folded.hidden:
        tx.write_first(_HIDE, *zip(*folded.hidden, strict=True))
    if folded.checkpoints:
        tx.write(_CHECKPOINTS, *zip(*map(_checkpoint, folded.checkpoints.values()), strict=True))
    if folded.channels:
        tx.write(_CHANNELS, *zip(*map(_channel, folded.channels), strict=True))
    if folded.writes:
        tx.write(_WRITES, *zip(*map(_pending_write, folded.writes.values()), strict=True))


def _checkpoint(row: CheckpointRow) -> tuple[object, ...]:
    return (
        row.thread_id,
        row.checkpoint_ns,
        row.checkpoint_id,
        row.seq,
        row.run_id,
        row.parent_checkpoint_id,
        encoded(dict(row.versions.items())),
        row.checkpoint,
        row.metadata,
        row.hidden,
    )


def _channel(row: ChannelRow) -> tuple[object, ...]:
    entry = row.entry
    return (
        row.thread_id,
        row.checkpoint_ns,
        entry.channel,
        entry.version,
        row.seq,
        entry.stream,
        entry.kind,
        entry.base_stream,
        entry.base_version,
        entry.base_length,
        row.payload,
    )


def _pending_write(row: WriteRow) -> tuple[object, ...]:
    return (
        row.thread_id,
        row.checkpoint_ns,
        row.checkpoint_id,
        row.run_id,
        row.task_id,
        row.index,
        row.seq,
        row.channel,
        row.task_path,
        row.value,
        row.hidden,
    )


_FOUND = f"""
SELECT f.is_authoritative, c.*, p.writes FROM (SELECT {key_is_authoritative("$1::text")} AS is_authoritative) f
  LEFT JOIN LATERAL ({{what}}) c ON true
  LEFT JOIN LATERAL ({{writes}}) p ON true
 ORDER BY {{order}}
"""
_NOT_HIDDEN_AT = """NOT EXISTS (SELECT FROM read_v1.runs r
                                 WHERE r.run_id = {row}.run_id AND r.deleted AND r.ordinal <= {as_of})"""
"""No fact before number `as_of` of the thread had hidden the row's run: `ordinal` follows the run's last fact."""
_VISIBLE = """
SELECT thread_id, checkpoint_ns, checkpoint_id, seq, run_id, parent_checkpoint_id, versions, checkpoint, metadata
  FROM read_v1.checkpoints c
 WHERE NOT EXISTS (SELECT FROM read_v1.threads t WHERE t.thread_id = {thread} AND t.deleted_at IS NOT NULL)
"""
"""With $1 as the thread, PostgreSQL asks once whether it is deleted; else it would sort all checkpoints for LIMIT 1."""
_MATCHES = f"""NOT EXISTS (SELECT FROM jsonb_each({{}}::jsonb) f
                   WHERE (({searchable("metadata")}) -> f.key) IS DISTINCT FROM f.value)"""
_WRITES_ON = """
SELECT array_agg(ROW(w.task_id, w.idx, w.channel, w.value, w.task_path, w.run_id, w.seq) ORDER BY w.seq, w.idx)
       AS writes
  FROM read_v1.writes w
 WHERE w.thread_id = c.thread_id AND w.checkpoint_ns = c.checkpoint_ns AND w.checkpoint_id = c.checkpoint_id
   AND {conditions}
"""


class Checkpoints:
    """Implements `CheckpointReads` over the projected tables; raises Unavailable until the partition has caught up."""

    def __init__(self, pool: Pool, cache_bytes: int = CACHE_BYTES) -> None:
        self._pool = pool
        self._chains = ChannelChains(cache_bytes)

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Return checkpoints, newest first: by order of acceptance, across threads by id. Raises: Unavailable."""
        sql, arguments = _sql_of(query)
        async with reading(self._pool, "checkpoints") as connection:
            return await self._complete(connection, await connection.fetch(sql, *arguments), query)

    async def _complete(
        self, connection: PooledConnection, found: Sequence[asyncpg.Record], query: CheckpointQuery
    ) -> list[StoredCheckpoint]:
        """Add channels to checkpoints, by one query for each graph. Raises: Unavailable."""
        require(found[0]["is_authoritative"], f"checkpoints of {query.thread_id or 'all threads'}")
        by_graph: dict[tuple[str, str], list[asyncpg.Record]] = {}
        for row in found:
            if row["thread_id"] is not None:
                by_graph.setdefault((row["thread_id"], row["checkpoint_ns"]), []).append(row)
        complete: dict[CheckpointKey, StoredCheckpoint] = {}
        for (thread_id, ns), rows in by_graph.items():
            versions = [load_object(row["versions"]) for row in rows]
            channels = await self._chains.read(connection, ThreadId(thread_id), ns, _wanted(rows, versions))
            for row, named in zip(rows, versions, strict=True):
                complete[_key(row)] = _stored(row, named, channels)
        return [complete[_key(row)] for row in found if row["thread_id"] is not None]


def _wanted(rows: Sequence[asyncpg.Record], versions: Sequence[JsonObject]) -> dict[tuple[str, str], int]:
    """Return each (channel, version) with the order number of the newest checkpoint that names it."""
    newest: dict[tuple[str, str], int] = {}
    for row, named in zip(rows, versions, strict=True):
        seq = row["seq"]
        for channel, version in named.items():
            key = (channel, str(version))
            if newest.get(key, 0) < seq:
                newest[key] = seq
    return newest


def _sql_of(query: CheckpointQuery) -> tuple[str, list[object]]:
    """Return SQL with one condition for each field that a query sets, and its arguments; the thread is $1."""
    arguments: list[object] = [query.thread_id]
    conditions = [_VISIBLE.format(thread="c.thread_id" if query.thread_id is None else "$1")]

    def demand(condition: str, value: object) -> None:
        if value is not None:
            arguments.append(value)
            conditions.append(condition.format(f"${len(arguments)}"))

    demand("checkpoint_ns = {}", query.ns)
    if query.thread_id is None:
        demand("checkpoint_id < {}", query.before)
        order = "c.checkpoint_id DESC, c.thread_id, c.checkpoint_ns"
    else:
        conditions.append("thread_id = $1")
        within = "thread_id = $1" if query.ns is None else "thread_id = $1 AND checkpoint_ns = $2"
        first = f"SELECT min(seq) FROM read_v1.checkpoints WHERE {within} AND checkpoint_id = {{}}"
        demand(f"seq < ({first})", query.before)
        order = "c.seq DESC"
    demand("checkpoint_id = {}", query.checkpoint_id)
    of_writes: list[str] = []
    demand("run_id IS DISTINCT FROM {}", query.exclude_run)
    if query.exclude_run is not None:
        of_writes.append(f"w.run_id <> ${len(arguments)}")
    demand(_MATCHES, contained(query.metadata))
    demand(f"(NOT hidden OR {_NOT_HIDDEN_AT.format(row='c', as_of='{}')})", query.as_of)
    if query.as_of is None:
        conditions.append("NOT hidden")
        of_writes.append("NOT w.hidden")
    else:
        as_of = f"${len(arguments)}"
        of_writes.append(f"w.seq < {as_of} AND (NOT w.hidden OR {_NOT_HIDDEN_AT.format(row='w', as_of=as_of)})")
    arguments.append(query.limit)
    what = f"{' AND '.join(conditions)} ORDER BY {order} LIMIT ${len(arguments)}"
    writes = _WRITES_ON.format(conditions=" AND ".join(of_writes))
    return _FOUND.format(what=what, writes=writes, order=order), arguments


def _key(row: asyncpg.Record) -> CheckpointKey:
    return CheckpointKey(row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"])


def _stored_write(row: tuple[str, int, str, bytes, str, str | None, int]) -> StoredWrite:
    task_id, index, channel, value, task_path, run_id, seq = row
    return StoredWrite(task_id, index, channel, load(value), task_path, RunId(run_id) if run_id else None, seq)


def _stored(row: asyncpg.Record, versions: JsonObject, channels: ChannelHistory) -> StoredCheckpoint:
    key = _key(row)
    named = {channel: str(version) for channel, version in versions.items()}
    return StoredCheckpoint(
        *key,
        parent_checkpoint_id=row["parent_checkpoint_id"],
        run_id=RunId(row["run_id"]) if row["run_id"] else None,
        seq=row["seq"],
        checkpoint=load_object(row["checkpoint"]),
        metadata=load_object(row["metadata"]),
        channels=channels.held(key.thread_id, key.checkpoint_ns, named, row["seq"]),
        writes=tuple(map(_stored_write, row["writes"] or ())),
    )
