"""Read model `store_items`: the items of the store, and the queries of graphs and clients on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import ClassVar

import asyncpg

from agentlog_facts.errors import Quarantined
from agentlog_facts.ids import Key
from agentlog_facts.json_value import dump, load_object
from agentlog_facts.store import StoreItemDeleted, StoreItemPut, store_key
from agentlog_facts.store_ports import Condition, Namespace, StoredItem
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.caught_up import key_is_authoritative, require
from agentlog_projections.sql.columns import encoded
from agentlog_projections.sql.read_model import Commit
from agentlog_projections.sql.schema import PRELUDE, searchable, without_nul

_DELETE = """
DELETE FROM read_v1.store_items i USING unnest($1::text[], $2::text[]) AS gone(store, item_key)
 WHERE i.store = gone.store AND i.item_key = gone.item_key
"""
_PUT = """
INSERT INTO read_v1.store_items AS t
       (store, item_key, partition, namespace, value, created_at, updated_at, thread_id, run_id, epoch)
SELECT store, item_key, partition, ARRAY(
           SELECT label FROM json_array_elements_text(labels) WITH ORDINALITY AS l(label, place) ORDER BY place
       ), value, created_at, updated_at, thread_id, run_id, epoch
  FROM unnest($1::text[], $2::text[], $3::int[], $4::json[], $5::json[], $6::timestamptz[], $7::timestamptz[],
              $8::text[], $9::text[], $10::int[])
    AS r(store, item_key, partition, labels, value, created_at, updated_at, thread_id, run_id, epoch)
ON CONFLICT (store, item_key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at,
       thread_id = excluded.thread_id, run_id = excluded.run_id, epoch = excluded.epoch
"""


@dataclass(slots=True)
class _Change:
    """Effect of a batch on an item. `deleted`: at some point of the batch; `row`: written at its end, if any."""

    deleted: bool = False
    row: tuple[object, ...] | None = None
    created_at: datetime | None = None


class StoreItemsModel:
    """Folds the items; it caches no rows between batches."""

    name: ClassVar[str] = "store_items"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[str, ...]] = ("store_items",)
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.store_items (
    store text NOT NULL, item_key text COLLATE "C" NOT NULL, partition int NOT NULL,
    namespace text[] COLLATE "C" NOT NULL,
    value json NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    thread_id text, run_id text, epoch int,
    PRIMARY KEY (store, item_key)
);
CREATE INDEX IF NOT EXISTS store_items_namespace ON read_v1.store_items (namespace);
"""

    def forget(self) -> None:
        """Do nothing: no rows are cached."""

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect the effect of the batch on each item."""
        changes: dict[tuple[Key, str], _Change] = {}
        for commit in batch:
            for fact in commit.draft.facts:
                if isinstance(fact, StoreItemPut | StoreItemDeleted):
                    change = changes.setdefault((commit.draft.key, fact.key), _Change())
                    _fold(change, commit, fact)
        again = [place for place, change in changes.items() if change.deleted and change.row is not None]
        if again:  # a new item under an old name, with its own created_at
            tx.write_first(_DELETE, *zip(*again, strict=True))
        gone = [place for place, change in changes.items() if change.row is None]
        if gone:
            tx.write(_DELETE, *zip(*gone, strict=True))
        rows = [change.row for change in changes.values() if change.row is not None]
        if rows:
            tx.write(_PUT, *zip(*rows, strict=True))


def _fold(change: _Change, commit: Commit, fact: StoreItemPut | StoreItemDeleted) -> None:
    if isinstance(fact, StoreItemDeleted):
        change.deleted, change.row, change.created_at = True, None, None
        return
    at = commit.draft.occurred_at
    change.created_at = change.created_at or at
    labels = dump(list(fact.namespace)).decode()
    who = (fact.thread_id, fact.run_id, fact.epoch)
    place = (commit.draft.key, fact.key, commit.place.partition)
    change.row = (*place, labels, encoded(fact.value), change.created_at, at, *who)


_SHOWN = "namespace, item_key, value, created_at, updated_at"
_ITEM = f"""
SELECT {key_is_authoritative("$1")} AS is_authoritative, i.* FROM (SELECT 1) AS one
  LEFT JOIN read_v1.store_items i ON i.store = $1 AND i.item_key = $2
"""
_WRITABLE = """
SELECT p.present AND p.stopped IS NULL AS present, EXISTS (SELECT FROM ledger.quarantine q WHERE q.key = $1) AS parked
  FROM ledger.positions p WHERE p.partition = $2
"""
_ALL_AUTHORITATIVE = key_is_authoritative("NULL::text")
SEARCH = f"""
SELECT {_ALL_AUTHORITATIVE} AS is_authoritative, f.* FROM (SELECT 1) AS one LEFT JOIN (
    SELECT {_SHOWN}, store FROM read_v1.store_items i
     WHERE namespace >= $1::text[] AND namespace < $7::text[] AND namespace[:cardinality($1::text[])] = $1::text[]
       AND NOT EXISTS (
           SELECT 1 FROM unnest($2::text[], $3::text[], $4::jsonb[]) AS c(field, comparison, operand),
                  LATERAL (SELECT ({searchable("i.value")}) -> c.field AS held) AS v,
                  LATERAL (SELECT CASE WHEN jsonb_typeof(held) = 'number' THEN held::numeric END AS number,
                                  CASE WHEN jsonb_typeof(operand) = 'number' THEN operand::numeric END AS bound) AS n
            WHERE NOT coalesce(CASE comparison
                  WHEN '$eq' THEN held = operand WHEN '$ne' THEN held <> operand
                  WHEN '$gt' THEN number > bound WHEN '$gte' THEN number >= bound
                  WHEN '$lt' THEN number < bound WHEN '$lte' THEN number <= bound END, false))
     ORDER BY updated_at DESC, store, item_key LIMIT $5 OFFSET $6
) AS f ON true ORDER BY f.updated_at DESC, f.store, f.item_key
"""
_SEARCH_ALL = SEARCH.replace(" AND namespace < $7::text[]", "")
_MATCHES = """
NOT EXISTS (
    SELECT 1 FROM unnest({paths}::json[]) AS p(path)
     WHERE json_array_length(path) > cardinality(namespace) OR EXISTS (
           SELECT 1 FROM json_array_elements_text(path) WITH ORDINALITY AS l(label, place)
            WHERE label <> '*' AND label <> namespace[{place}]))
"""
_NEXT = """
SELECT i.namespace FROM read_v1.store_items i
 WHERE i.namespace >= {bound} {end} ORDER BY i.namespace LIMIT 1
"""
_AFTER = """
CASE WHEN $7::int <= cardinality(found.namespace)
     THEN array_append(found.namespace[:$7::int - 1], found.namespace[$7::int] || E'\\x01')
     ELSE array_append(found.namespace, '') END
"""
"""The least bound after a namespace, or after all that are equal to it up to a depth of $7."""
_NAMESPACES = """
WITH RECURSIVE found AS (
    ({first}) UNION ALL SELECT next.namespace FROM found CROSS JOIN LATERAL ({later}) AS next
)
SELECT {authoritative} AS is_authoritative, f.* FROM (SELECT 1) AS one LEFT JOIN (
    SELECT {distinct} namespace[:coalesce($3::int, cardinality(namespace))] AS namespace FROM found
     WHERE {prefixes} AND {suffixes} LIMIT $4 OFFSET $5
) AS f ON true ORDER BY f.namespace
"""


class StoreItems:
    """Implements `StoreReads` over the projected table."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def check_writable(self, namespace: Namespace, partition: int) -> None:
        """Check that puts of a namespace become visible. Raises: Unavailable, Quarantined."""
        async with reading(self._pool, "store.check_writable") as connection:
            row = await connection.fetchrow(_WRITABLE, store_key(namespace), partition)
        require(row is not None and row["present"], "store")
        if row is not None and row["parked"]:
            raise Quarantined(
                f"store {list(namespace)}: its items are in quarantine after an error, an operator must act"
            )

    async def item(self, namespace: Namespace, key: str) -> StoredItem | None:
        """Return an item. Raises: Unavailable."""
        async with reading(self._pool, "store.item") as connection:
            rows = await connection.fetch(_ITEM, store_key(namespace), key)
        return next(iter(_items(rows)), None)

    async def search(
        self, prefix: Namespace, where: Sequence[Condition], limit: int, offset: int
    ) -> Sequence[StoredItem]:
        """Return items of namespaces that begin with `prefix`, the last ones put first. Raises: Unavailable."""
        names = [one.field.replace("\0", "\ufffd") for one in where]
        fields = names, [one.comparison for one in where], [dump(without_nul(one.value)).decode() for one in where]
        async with reading(self._pool, "store.search") as connection:
            if prefix:
                rows = await connection.fetch(SEARCH, list(prefix), *fields, limit, offset, end_of(prefix))
            else:
                rows = await connection.fetch(_SEARCH_ALL, [], *fields, limit, offset)
        return _items(rows)

    async def namespaces(
        self,
        prefixes: Sequence[Namespace],
        suffixes: Sequence[Namespace],
        max_depth: int | None,
        limit: int,
        offset: int,
    ) -> Sequence[Namespace]:
        """Return the namespaces that have items, in order, cut to `max_depth` labels. Raises: Unavailable.

        It reads the index once for each namespace under the fixed labels of `prefixes`, however many items there are.
        """
        sql, arguments = namespaces_query(prefixes, suffixes, max_depth, limit, offset)
        async with reading(self._pool, "store.namespaces") as connection:
            rows = await connection.fetch(sql, *arguments)
        require(rows[0]["is_authoritative"], "store")
        return [tuple(row["namespace"]) for row in rows if row["namespace"] is not None]


def namespaces_query(
    prefixes: Sequence[Namespace], suffixes: Sequence[Namespace], max_depth: int | None, limit: int, offset: int
) -> tuple[str, list[object]]:
    """Return the SQL that lists namespaces, and its arguments.

    Each step of the recursion jumps to the next namespace in the index. If only the first `max_depth` labels decide,
    it jumps over all namespaces that are equal up to there; then there are no repeats, and only the page is read.
    """
    start = max((tuple(takewhile(lambda label: label != "*", path)) for path in prefixes), key=len, default=())
    skips = max_depth is not None and 0 < max_depth and not suffixes and all(len(one) <= max_depth for one in prefixes)
    repeats = max_depth is not None and not skips
    end = "AND i.namespace < $8::text[]" if start else ""
    sql = _NAMESPACES.format(
        first=_NEXT.format(bound="$6::text[]", end=end),
        later=_NEXT.format(bound=_AFTER, end=end),
        authoritative=_ALL_AUTHORITATIVE,
        distinct="DISTINCT" if repeats else "",
        prefixes=_MATCHES.format(paths="$1", place="place"),
        suffixes=_MATCHES.format(paths="$2", place="cardinality(namespace) - json_array_length(path) + place"),
    )
    if repeats:
        sql = sql.replace(" LIMIT $4", " ORDER BY 1 LIMIT $4")
    paths = [[dump(list(path)).decode() for path in several] for several in (prefixes, suffixes)]
    bounds = [list(start), max_depth if skips else None, *([end_of(start)] if start else [])]
    return sql, [*paths, max_depth, limit, offset, *bounds]


def end_of(prefix: Namespace) -> list[str]:
    """Return the bound after all namespaces that begin with `prefix`; a search reads the index only up to it."""
    return [*prefix[:-1], f"{prefix[-1]}\x01"]  # the smallest greater label: labels hold no NUL


def _items(rows: Sequence[asyncpg.Record]) -> list[StoredItem]:
    require(rows[0]["is_authoritative"], "store")
    return [
        StoredItem(
            namespace=tuple(row["namespace"]),
            key=row["item_key"],
            value=load_object(row["value"]),
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )
        for row in rows
        if row["namespace"] is not None
    ]
