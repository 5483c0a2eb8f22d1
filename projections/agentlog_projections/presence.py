"""Answers which partitions are folded so far that their rows may be believed."""

from collections.abc import Mapping

from agentlog_projections.database import Pool, reading

_PRESENT = "SELECT partition, present AND stopped IS NULL AS present FROM ledger.positions"


class PartitionPresence:
    """One question for all partitions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def presence(self) -> Mapping[int, bool]:
        """Return for each known partition whether it is present; a stopped one is not. Raises: Unavailable."""
        async with reading(self._pool, "presence") as connection:
            rows = await connection.fetch(_PRESENT)
        return {row["partition"]: row["present"] for row in rows}
