"""Catch-up state of partitions: which rows are authoritative, as a query and as SQL conditions.

A row counts only while its partition is present. The absence of a row counts only once the partition of its aggregate
is present; for an aggregate that the ledger does not know, once all partitions are.
"""

from collections.abc import Mapping

from agentlog_facts.errors import Unavailable
from agentlog_postgres.connection import Pool, reading

NEWER_RELEASE = "unknown schema"
"""Beginning of the reason of a stop at a record of a newer release."""
DIVERGED = "log diverged"
"""Beginning of the reason of a stop because the log is not the one that was folded."""
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


class PartitionCatchUp:
    """Query of the catch-up state of all partitions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def caught_up(self) -> Mapping[int, bool]:
        """Return for each known partition whether it is present; a stopped one is not. Raises: Unavailable."""
        async with reading(self._pool, "caught_up") as connection:
            rows = await connection.fetch(_PRESENT)
        return {row["partition"]: row["present"] for row in rows}
