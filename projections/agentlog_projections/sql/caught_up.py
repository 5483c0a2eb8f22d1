"""Catch-up state of partitions: which rows are authoritative, as a query and as SQL conditions.

A row counts only while its partition is present. The absence of a row counts only once the partition of its aggregate
is present; for an aggregate that the ledger does not know, once all partitions are.

The projector does not wait for the disk, so a crash of PostgreSQL, or a standby that takes over, may take back commits
whose verdicts were told already. Both empty unlogged tables and end all connections. So a missing mark in the unlogged
table `crash_marks` tells a new connection that rows may be older than an answer (decision 0050).
"""

from collections.abc import Mapping

import asyncpg

from agentlog_facts.errors import Unavailable
from agentlog_postgres.connection import MISSING, Executor, Pool, open_pool, reading

NEWER_RELEASE = "unknown schema"
"""Beginning of the reason of a stop at a record of a newer release."""
DIVERGED = "log diverged"
"""Beginning of the reason of a stop because the log is not the one that was folded."""
_REVERTED = """
SELECT p.partition FROM ledger.positions p
 WHERE p.present AND p.stopped IS NULL
   AND NOT EXISTS (SELECT FROM ledger.crash_marks m WHERE m.partition = p.partition)
 ORDER BY p.partition LIMIT 1
"""
_PRESENT = "SELECT partition, present AND stopped IS NULL AS present FROM ledger.positions"
_ALL = """
(SELECT coalesce(bool_and(present AND stopped IS NULL) AND count(*) >= coalesce(max(partitions), 1), false)
   FROM ledger.positions)
"""
RUN_OR_NONE = """
LEFT JOIN read_v1.runs r ON r.run_id = k.run_id LEFT JOIN ledger.positions p ON p.partition = r.partition
"""
"""Joins runs `r` to the ids `k.run_id`; `RUN_IS_AUTHORITATIVE` tells whether the row, or its absence, counts."""
RUN_IS_AUTHORITATIVE = f"CASE WHEN r.run_id IS NULL THEN {_ALL} ELSE p.present AND p.stopped IS NULL END"


def key_is_authoritative(key: str) -> str:
    """Return the SQL that tells whether rows of an aggregate, or their absence, count; a null key means all of them."""
    own = f"""SELECT p.present AND p.stopped IS NULL
                FROM ledger.heads h JOIN ledger.positions p USING (partition) WHERE h.key = {key}"""
    return f"coalesce(({own}), {_ALL})"


def require(authoritative: object, what: str) -> None:
    """Raise Unavailable unless `authoritative` is true: until then the rows are being built."""
    if authoritative is not True:
        raise Unavailable(f"{what}: the projection is being built, retry later")


async def open_rows(uri: str, size: int) -> Pool:
    """Open a pool whose connections show no row that is older than a verdict which a projector has told.

    `size` is the maximum number of connections. As long as rows may be older, taking a connection raises Unavailable.
    """
    return await open_pool(uri, size, require_no_reverted_rows)


async def require_no_reverted_rows(connection: Executor) -> None:
    """Require that no crash has taken rows back which are not folded again. It holds as long as the connection lives.

    Raises: Unavailable.
    """
    try:
        partition = await connection.fetchval(_REVERTED)
    except MISSING:
        return  # without tables, or with those of an earlier release, there is nothing to protect
    except asyncpg.FeatureNotSupportedError as error:  # a standby has no unlogged tables
        raise Unavailable(f"PostgreSQL is a standby, its rows may be older than an answer: {error}") from error
    if partition is not None:
        raise Unavailable(f"PostgreSQL has restarted after a crash, partition {partition} is folded again, retry later")


class PartitionCatchUp:
    """Query of the catch-up state of all partitions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def caught_up(self) -> Mapping[int, bool]:
        """Return for each known partition whether it is present; a stopped one is not. Raises: Unavailable."""
        async with reading(self._pool, "caught_up") as connection:
            rows = await connection.fetch(_PRESENT)
        return {row["partition"]: row["present"] for row in rows}
