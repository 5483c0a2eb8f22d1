"""Reader of channel versions: resolves stored appends, and caches the end of each list so that a long one is read once.

A list that only grew is stored as a full copy and the items appended since (`channel_delta`). A read fetches the
versions that it needs and, for a list, the rows back to the last full copy or to the cached end, whichever is nearer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal

import asyncpg

from agentlog_facts.checkpoint import ChannelEntry, ChannelHistory, ChannelKind, EncodedChannel, VersionKey, evolve
from agentlog_facts.errors import Corrupt
from agentlog_facts.growing_list import GrowingList
from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import Json, load
from agentlog_facts.lru import Lru
from agentlog_postgres.connection import PooledConnection
from agentlog_projections.sql.caught_up import key_is_authoritative, require

MIN_CACHED_BYTES = 4096
"""Shorter lists are not cached: fetching them costs as little."""

_LIST = b'{"items":['
_COLUMNS = "channel, version, seq, stream, kind, base_stream, base_version, length, payload, tableoid"
_OF_THREAD = "c.thread_id = $1 AND c.checkpoint_ns = $2"
_LAST_COPY = f"""
coalesce((SELECT max(c.seq) FROM read_v1.channels c
           WHERE {_OF_THREAD} AND c.channel = {{channel}} AND c.seq < {{before}} AND c.kind <> 'append'), 0)
"""
_AUTHORITATIVE = f"""
SELECT f.is_authoritative, c.* FROM (SELECT {key_is_authoritative("$1::text")} AS is_authoritative) f
  LEFT JOIN ({{what}}) c ON true
"""
"""The last queries of a read: the results of the earlier one count only if the partition is still present."""
_STATED = f"""
WITH stated AS MATERIALIZED (
    SELECT c.*, c.tableoid FROM unnest($3::text[], $4::text[], $5::bigint[]) AS w(channel, version, seq)
      JOIN read_v1.channels c ON {_OF_THREAD} AND c.channel = w.channel AND c.version = w.version AND c.seq <= w.seq
), appended AS (
    SELECT s.channel, min(s.seq) AS seq, max(s.seq) AS last, max(k.seq) AS cached
      FROM stated s LEFT JOIN unnest($6::text[], $7::bigint[]) AS k(channel, seq) USING (channel)
     WHERE s.kind = 'append' GROUP BY s.channel
), ranges AS MATERIALIZED (
    SELECT a.channel, a.last, CASE WHEN a.cached IS NOT NULL THEN a.cached + 1
                                   ELSE {_LAST_COPY.format(channel="a.channel", before="a.seq")} END AS start
      FROM appended a
)
SELECT {_COLUMNS} FROM stated s
 WHERE NOT EXISTS (SELECT FROM ranges r WHERE r.channel = s.channel AND s.seq BETWEEN r.start AND r.last)
UNION ALL
SELECT {", ".join(f"c.{name}" for name in _COLUMNS.split(", "))}
  FROM ranges r JOIN read_v1.channels c
    ON {_OF_THREAD} AND c.channel = r.channel AND c.seq >= r.start AND c.seq <= r.last
"""
_ROWS = _AUTHORITATIVE.format(what=_STATED)
_BEFORE = f"""
SELECT {_COLUMNS} FROM read_v1.channels c
 WHERE {_OF_THREAD} AND c.channel = $3 AND c.seq < $4 AND c.seq >= {_LAST_COPY.format(channel="$3", before="$4")}
"""
_EARLIER = _AUTHORITATIVE.format(what=_BEFORE)


@dataclass(frozen=True, slots=True)
class _Version:
    """A stored version of a channel. Kind `list`: the payload is the whole list, resolved by an earlier read.

    `table` is PostgreSQL's id of the table: a rebuild makes another one, whose rows may be of another copy of the log.
    """

    version: str
    stream: str
    seq: int
    kind: ChannelKind | Literal["list"]
    payload: bytes
    table: int
    base: tuple[str, str] | None = None
    base_length: int | None = None
    wanted: bool = False
    full_length: int = 0
    parts: int = 0


class ChannelChains:
    """Reads of channel versions. A stored version never changes, so a cached list stays true for the same table."""

    def __init__(self, cache_bytes: int) -> None:
        self._ends: Lru[tuple[ThreadId, str, str], _Version] = Lru(cache_bytes)

    async def read(
        self, connection: PooledConnection, thread_id: ThreadId, ns: str, wanted: Mapping[tuple[str, str], int]
    ) -> ChannelHistory:
        """Return the wanted versions of the channels of one graph (namespace).

        `wanted` is {(channel, version): order number of the newest checkpoint with it}. Raises: Corrupt, Unavailable.
        """
        ends = self._ends_before(thread_id, ns, wanted)
        names, versions = [name for name, _ in wanted], [version for _, version in wanted]
        known = list(ends), [end.seq for end in ends.values()]
        rows = await _fetch(connection, _ROWS, thread_id, ns, names, versions, list(wanted.values()), *known)
        by_channel: dict[str, list[_Version]] = {}
        for row in rows:
            seq = wanted.get((row["channel"], row["version"]), -1)
            by_channel.setdefault(row["channel"], []).append(_version(row, wanted=row["seq"] <= seq))
        history = ChannelHistory()
        for channel, found in by_channel.items():
            end = ends.get(channel)
            chains = _Chains(found, end if end is not None and end.table == found[0].table else None)
            while (before := chains.lacks_before()) is not None:
                earlier = await _fetch(connection, _EARLIER, thread_id, ns, channel, before)
                chains.add_earlier([_version(row, wanted=False) for row in earlier])
            chains.fold_into(history, thread_id, ns, channel)
            self._keep((thread_id, ns, channel), chains)
        return history

    def _ends_before(self, thread_id: ThreadId, ns: str, wanted: Mapping[tuple[str, str], int]) -> dict[str, _Version]:
        """Return the cached ends that are no newer than all wanted versions."""
        oldest = min(wanted.values(), default=0)
        found = {channel: self._ends.get((thread_id, ns, channel)) for channel, _ in wanted}
        return {channel: end for channel, end in found.items() if end is not None and end.seq <= oldest}

    def _keep(self, key: tuple[ThreadId, str, str], chains: "_Chains") -> None:
        newest, cached = chains.newest(), self._ends.get(key)
        if newest is None or (cached is not None and cached.table == newest.table and cached.seq >= newest.seq):
            return
        end = chains.long_list(newest)
        if end is not None:
            self._ends.put(key, end, len(end.payload))


async def _fetch(
    connection: PooledConnection, sql: str, thread_id: ThreadId, *arguments: object
) -> list[asyncpg.Record]:
    """Return rows of channels. Raises: Unavailable if the partition of the thread is not present."""
    rows = await connection.fetch(sql, thread_id, *arguments)
    require(rows[0]["is_authoritative"], f"channels of {thread_id}")
    return [row for row in rows if row["channel"] is not None]


class _Chains:
    """Versions of one channel, and the chains of appends through them."""

    def __init__(self, found: Sequence[_Version], end: _Version | None) -> None:
        self._versions: dict[int, _Version] = {}
        self._stated: dict[tuple[str, str], list[_Version]] = {}
        self._whole: set[int] = set()
        self._earliest: int | None = None
        wanted_end = next((one for one in found if end is not None and one.seq == end.seq and one.wanted), None)
        if end is not None:
            self._add([replace(end, wanted=wanted_end is not None)])
        self._add(found)
        self._wanted = sorted((one for one in self._versions.values() if one.wanted), key=attrgetter("seq"))

    def _add(self, versions: Sequence[_Version]) -> None:
        for one in versions:
            if one.seq not in self._versions:
                self._versions[one.seq] = one
                self._stated.setdefault((one.version, one.stream), []).append(one)

    def add_earlier(self, earlier: Sequence[_Version]) -> None:
        """Add versions that were fetched because something was lacking."""
        self._earliest = min((one.seq for one in earlier), default=0)
        self._add(earlier)

    def lacks_before(self) -> int | None:
        """Return the order number before which a base is lacking; None if there is none, or nothing earlier."""
        for one in self._wanted:
            broken = self._broken_at(one)
            if broken is not None:
                return (broken if self._earliest is None else min(broken, self._earliest)) or None
        return None

    def _broken_at(self, one: _Version) -> int | None:
        walked: list[int] = []
        at: _Version | None = one
        while at is not None and at.kind == "append" and at.seq not in self._whole:
            walked.append(at.seq)
            at = self._base(at)
        if at is None:
            return walked[-1]
        self._whole.update(walked)
        return None

    def _base(self, one: _Version) -> _Version | None:
        """Return the last statement of the base before a version; it is on the base's own stream."""
        stated = self._stated.get(one.base, ()) if one.base is not None else ()
        return max((found for found in stated if found.seq < one.seq), key=attrgetter("seq"), default=None)

    def fold_into(self, history: ChannelHistory, thread_id: ThreadId, ns: str, channel: str) -> None:
        """Fold the wanted versions in their order. Raises: Corrupt."""
        placed: set[int] = set()

        def place(one: _Version) -> None:
            if one.seq not in placed:
                placed.add(one.seq)
                key: VersionKey = (thread_id, ns, channel, one.version)
                history.place(key, one.seq, self._resolved(one))

        for one in self._wanted:
            base = self._base(one) if one.kind == "append" else None
            if base is not None and not base.wanted:
                place(base)
            if one.kind == "list":
                place(one)
            else:
                history.fold(thread_id, ns, _entry(channel, one), one.seq)

    def _resolved(self, one: _Version) -> EncodedChannel | None:
        """Return a version with all its items, from one parse of its chain. Raises: Corrupt."""
        whole = self._joined(one)
        if whole is None:
            return None
        return EncodedChannel(
            "list",
            whole.version,
            Stream(whole.stream),
            None,
            GrowingList(_items(whole)),
            whole.full_length,
            whole.parts,
        )

    def _joined(self, one: _Version) -> _Version | None:
        """Return a list version with its whole payload; None for a version that is no list."""
        parts: list[bytes] = []
        at: _Version | None = one
        while at is not None and at.kind == "append":
            parts.append(at.payload)
            at = self._base(at)
        if at is None or at.kind == "empty":
            return None
        root, full_length, before = (at.payload, at.full_length, at.parts) if at.kind == "list" else _copied(at)
        if root is None:
            return None
        payload = b",".join([inner for part in (root, *reversed(parts)) if (inner := part[1:-1])])
        return replace(
            one, kind="list", payload=b"[" + payload + b"]", full_length=full_length, parts=before + len(parts)
        )

    def newest(self) -> _Version | None:
        """Return the newest wanted version."""
        return self._wanted[-1] if self._wanted else None

    def long_list(self, one: _Version) -> _Version | None:
        """Return a version with its whole payload if it is a list worth caching that was not cached yet."""
        if one.kind not in ("append", "full"):
            return None
        whole = self._joined(one)
        return whole if whole is not None and len(whole.payload) >= MIN_CACHED_BYTES else None


def _copied(one: _Version) -> tuple[bytes | None, int, int]:
    """Return the list in a full copy, its length and 0 parts; None for another value."""
    channel = evolve(None, _entry("", one)) if one.payload.startswith(_LIST) else None
    if channel is None or channel.kind != "list":
        return None, 0, 0
    return one.payload[len(_LIST) - 1 : -1], channel.full_length, 0


def _items(whole: _Version) -> list[Json]:
    items = load(whole.payload)
    if not isinstance(items, list):
        raise Corrupt(f"channel version {whole.version}: expected a list")
    return items


def _version(row: asyncpg.Record, *, wanted: bool) -> _Version:
    named = (row["base_version"], row["base_stream"])
    return _Version(
        row["version"],
        row["stream"],
        row["seq"],
        row["kind"],
        row["payload"],
        row["tableoid"],
        named if row["kind"] == "append" else None,
        row["length"],
        wanted,
    )


def _entry(channel: str, one: _Version) -> ChannelEntry:
    base_version, base_stream = one.base or (None, None)
    return ChannelEntry(
        channel,
        one.version,
        Stream(one.stream),
        "full" if one.kind == "list" else one.kind,
        load(one.payload),
        base_version,
        None if base_stream is None else Stream(base_stream),
        one.base_length,
    )
