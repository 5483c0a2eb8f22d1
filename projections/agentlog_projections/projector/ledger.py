"""Ledger of the projector: aggregate heads, the index of all records with their verdicts, positions of partitions.

Migrations create its tables. It holds all data that verdicts need; they need no read model.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from agentlog_facts.decoding import MOST_NAMES, key_text
from agentlog_facts.envelope import Actor, LogPosition
from agentlog_facts.guard import EMPTY, Accepted, Prior, Verdict
from agentlog_facts.ids import Key
from agentlog_facts.json_value import Json, dump, load_object
from agentlog_facts.lru import Lru
from agentlog_facts.notification import decode_verdict, encode_verdict
from agentlog_facts.ports import Indexed, RawRecord
from agentlog_facts.system import PartitionOpened
from agentlog_facts.vocabulary import NAMES
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.projector.verdicts import Judged, Known, Read, decode_head, encode_head
from agentlog_projections.sql.batch import Transaction, Write
from agentlog_projections.sql.cache_shares import cache_shares
from agentlog_projections.sql.caught_up import key_is_authoritative, require

HEAD_BYTES, PLACE_BYTES = 1024, 300
"""Approximate sizes of a cached head and of each commit, stream or run that it names."""

_KNOWN = """
SELECT h.key, h.head, h.facts, NULL::text AS event_id, NULL::text AS body_sha256, NULL::bigint AS version
  FROM unnest($1::text[]) AS k(key)
 CROSS JOIN LATERAL (SELECT * FROM ledger.heads h WHERE h.key = k.key LIMIT 1) h
UNION ALL
SELECT i.key, NULL, NULL, i.event_id, i.body_sha256, i.version
  FROM unnest($2::text[], $3::text[]) AS p(key, event_id)
 CROSS JOIN LATERAL (SELECT * FROM ledger.log_index i
                      WHERE i.key = p.key AND i.event_id = p.event_id AND i.verdict = 'accepted' LIMIT 1) i
"""
_INDEX = """
INSERT INTO ledger.log_index (partition, "offset", key, event_id, append_id, body_sha256, stream, version, types, actor,
                              occurred_at, recorded_at, verdict, detail)
SELECT partition, "offset", key, event_id, append_id, body_sha256, stream, version, string_to_array(types, ','), actor,
       occurred_at, recorded_at, verdict, detail
  FROM unnest($1::int[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
              $9::text[], $10::json[], $11::timestamptz[], $12::timestamptz[], $13::text[], $14::json[])
       AS r(partition, "offset", key, event_id, append_id, body_sha256, stream, version, types, actor,
            occurred_at, recorded_at, verdict, detail)
"""
_HEADS = """
INSERT INTO ledger.heads (key, partition, facts, head)
SELECT key, partition, facts, head FROM unnest($1::text[], $2::int[], $3::bigint[], $4::json[])
       AS r(key, partition, facts, head)
ON CONFLICT (key) DO UPDATE SET facts = excluded.facts, head = excluded.head
"""
FENCE = """
UPDATE ledger.positions p
   SET next_offset = n.next_offset, digest = n.digest, present = p.present OR n.present, stopped = NULL,
       moved_at = clock_timestamp(),
       log_id = coalesce(n.log_id, p.log_id), generation = coalesce(n.generation, p.generation),
       base = coalesce(n.base, p.base), partitions = coalesce(n.partitions, p.partitions)
  FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::text[], $5::bool[], $6::text[], $7::int[], $8::bigint[],
              $9::int[]) AS n(partition, previous, next_offset, digest, present, log_id, generation, base, partitions)
 WHERE p.partition = n.partition AND p.next_offset = n.previous AND p.owner = $10
RETURNING p.partition
"""
MARK = """
INSERT INTO ledger.crash_marks (partition)
SELECT partition FROM unnest($1::int[]) AS r(partition) WHERE set_config('synchronous_commit', 'on', true) = 'on'
ON CONFLICT (partition) DO NOTHING
"""
"""Marks partitions, and makes the transaction wait for the disk: rows of a marked partition stay usable in a crash."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Progress of a partition by one batch: from `previous` to `next_offset`; `last` is the last record folded.

    `usable`: before the batch, the partition was stopped, or not present, or unmarked; after it, it is none of these.
    """

    partition: int
    previous: int
    next_offset: int
    last: RawRecord
    present: bool
    usable: bool
    opened: PartitionOpened | None


def digest(raw: RawRecord) -> str:
    """Return the digest by which a restart recognises the last folded record."""
    return hashlib.sha256((raw.key or b"") + b"\n" + (raw.value or b"")).hexdigest()


class LedgerFold:
    """Cache and writes of the ledger. There is one writer at a time: `fence` makes every other one fail."""

    def __init__(self, cache_bytes: int = cache_shares().ledger) -> None:
        self._known: Lru[Key, Known] = Lru(cache_bytes)

    def forget(self) -> None:
        """Drop the cache: the transaction was lost, or another process wrote."""
        self._known.clear()

    async def known(self, tx: Transaction, reads: Sequence[Read]) -> Mapping[Key, Known]:
        """Return the ledger's knowledge of every aggregate in the batch, by at most one query."""
        drafts = [read.draft for read in reads if read.draft is not None and read.void is None]
        found: dict[Key, Known] = {}
        missing: dict[Key, None] = {}
        lookups: list[tuple[Key, str]] = []
        for draft in drafts:
            aggregate = found.get(draft.key) or self._known.get(draft.key)
            if aggregate is None:
                missing[draft.key] = None
            else:
                found[draft.key] = aggregate
            if aggregate is None or not aggregate.complete:
                lookups.append((draft.key, draft.event_id))
        if missing or lookups:
            await self._load(tx, found, list(missing), lookups)
        return found

    async def _load(
        self, tx: Transaction, found: dict[Key, Known], missing: Sequence[Key], lookups: Sequence[tuple[Key, str]]
    ) -> None:
        for key in missing:
            found[key] = Known(EMPTY, priors={})
        rows = await tx.fetch(_KNOWN, missing, [key for key, _ in lookups], [event_id for _, event_id in lookups])
        for row in rows:
            aggregate = found[Key(row["key"])]
            if row["head"] is not None:
                aggregate.head, aggregate.facts, aggregate.complete = decode_head(row["head"]), row["facts"], False
            else:
                aggregate.priors[row["event_id"]] = Prior(row["body_sha256"], row["version"])
        for key in missing:
            self._known.put(key, found[key], _weight(found[key]))

    def write(self, tx: Transaction, judged: Sequence[Judged], known: Mapping[Key, Known]) -> None:
        """Collect the index rows of all judged records and the heads of all aggregates that accepted something."""
        rows = [_index_row(one, one.verdict) for one in judged if one.verdict is not None]
        if rows:
            tx.write(_INDEX, *zip(*rows, strict=True))
        touched = {one.commit.draft.key: one.commit.place.partition for one in judged if one.commit is not None}
        if touched:
            heads = [known[key] for key in touched]
            facts, stored = [head.facts for head in heads], [encode_head(head.head) for head in heads]
            tx.write(_HEADS, list(touched), list(touched.values()), facts, stored)

    def settle(self, known: Mapping[Key, Known]) -> None:
        """Keep the cache small once the batch is committed."""
        for key, aggregate in known.items():
            aggregate.settle()
            self._known.put(key, aggregate, _weight(aggregate))


def _weight(known: Known) -> int:
    return HEAD_BYTES + PLACE_BYTES * (len(known.priors) + len(known.head.versions) + len(known.head.runs))


def fence(steps: Sequence[Advance], owner: str) -> list[Write]:
    """Return the write that advances the positions, and the one that marks partitions, if any became usable.

    The first updates only partitions that still have this owner and the previous position: if there are fewer rows than
    steps, another process has written.
    """
    opened = [step.opened for step in steps]
    usable = [step.partition for step in steps if step.usable]
    advance = Write(
        FENCE,
        (
            [step.partition for step in steps],
            [step.previous for step in steps],
            [step.next_offset for step in steps],
            [digest(step.last) for step in steps],
            [step.present for step in steps],
            [None if o is None else o.log_id for o in opened],
            [None if o is None else o.generation for o in opened],
            [None if o is None else o.base for o in opened],
            [None if o is None else o.partitions for o in opened],
            owner,
        ),
    )
    return [advance, Write(MARK, (usable,))] if usable else [advance]


def _index_row(one: Judged, verdict: Verdict) -> tuple[object, ...]:
    raw, draft = one.read.raw, one.read.draft
    place = raw.place
    kind = encode_verdict(verdict)
    stored = dump(kind).decode()
    if draft is None or (one.read.void is not None and one.read.void.reason == "unreadable"):
        key = key_text(raw.key)
        try_ = one.read.append_id
        try_ = "" if "\x00" in try_ or len(try_) + len(key) > MOST_NAMES else try_
        nothing = (None, "", None, None, raw.timestamp)
        return (place.partition, place.offset, key, "", try_, "", "", *nothing, "void", stored)
    return (
        place.partition,
        place.offset,
        draft.key,
        draft.event_id,
        draft.append_id,
        draft.body_sha256,
        draft.stream,
        verdict.version if isinstance(verdict, Accepted) else None,
        ",".join([NAMES[type(fact)] for fact in draft.facts]),
        _actor(draft.cause.actor),
        draft.occurred_at,
        raw.timestamp,
        kind["verdict"],
        stored,
    )


def _actor(actor: Actor) -> str:
    fields: dict[str, Json] = {"kind": actor.kind, "sub": actor.sub, "iss": actor.iss, "method": actor.method}
    return dump(fields | {"credential_id": actor.credential_id, "ip_hash": actor.ip_hash}).decode()


_ROW = 'SELECT partition, "offset", event_id, append_id, body_sha256, detail FROM ledger.log_index'
_KNOWS = f"""
SELECT EXISTS (SELECT FROM ledger.heads WHERE key = $1) AS known,
       {key_is_authoritative("$1::text")} AS is_authoritative
"""
_AT = """
SELECT i.* FROM unnest($1::int[], $2::bigint[]) AS asked(partition, "offset")
 CROSS JOIN LATERAL (SELECT partition, "offset", event_id, append_id, body_sha256, detail FROM ledger.log_index l
                      WHERE l.partition = asked.partition AND l."offset" = asked."offset" LIMIT 1) i
"""


class Ledger:
    """Implements `ports.LedgerReads`. All methods raise Unavailable when PostgreSQL does not answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def by_append(self, key: Key, append_id: str) -> Indexed | None:
        """Return the verdict on one append, None while it is not projected; its record may be on the log twice."""
        best = "ORDER BY verdict = 'accepted' DESC, \"offset\" LIMIT 1"
        return await self._one(f"{_ROW} WHERE key = $1 AND append_id = $2 {best}", key, append_id)

    async def accepted(self, key: Key, event_id: str) -> Indexed | None:
        """Return the accepted commit of an intent."""
        return await self._one(f"{_ROW} WHERE key = $1 AND event_id = $2 AND verdict = 'accepted'", key, event_id)

    async def at(self, places: Sequence[LogPosition]) -> Sequence[Indexed]:
        """Return the rows of these records, in any order; those that are not projected are missing."""
        numbers, offsets = [place.partition for place in places], [place.offset for place in places]
        async with reading(self._pool, "ledger.at") as connection:
            return [_indexed(row) for row in await connection.fetch(_AT, numbers, offsets)]

    async def knows(self, key: Key) -> bool:
        """Tell whether an aggregate has an accepted commit. Raises: Unavailable also while that is unknown."""
        async with reading(self._pool, "ledger.knows") as connection:
            row = await connection.fetchrow(_KNOWS, key)
        require(row is not None and (row["known"] or row["is_authoritative"]), f"aggregate {key}")
        return row is not None and bool(row["known"])

    async def position(self, partition: int) -> int:
        """Return the next offset to fold."""
        async with reading(self._pool, "ledger.position") as connection:
            found = await connection.fetchval(
                "SELECT next_offset FROM ledger.positions WHERE partition = $1", partition
            )
        return int(found or 0)

    async def _one(self, sql: str, *arguments: object) -> Indexed | None:
        async with reading(self._pool, "ledger") as connection:
            row = await connection.fetchrow(sql, *arguments)
        return None if row is None else _indexed(row)


def _indexed(row: asyncpg.Record) -> Indexed:
    verdict = decode_verdict(load_object(row["detail"]))
    place = LogPosition(row["partition"], row["offset"])
    return Indexed(place, row["event_id"], row["append_id"], row["body_sha256"], verdict)
