"""Gate of reads: it refuses rows of a partition that the projection has not caught up with."""

from collections.abc import Collection, Mapping
from typing import Protocol

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key
from agentlog_facts.ports import Clock, EventLog
from agentlog_gateway import timeouts


class PartitionStates(Protocol):
    """State of each partition; implemented by `agentlog_projections.sql.caught_up`."""

    async def caught_up(self) -> Mapping[int, bool]:
        """Return for each known partition whether it is present. Raises: Unavailable."""
        ...


class CatchUpGate:
    """Caches the state of the partitions for a moment, so that most requests cost no extra query."""

    def __init__(self, states: PartitionStates, log: EventLog, clock: Clock, partitions: int) -> None:
        self._states = states
        self._log = log
        self._clock = clock
        self._partitions = partitions
        self._known: Mapping[int, bool] = {}
        self._refreshed_at = float("-inf")
        self._queries = self._answered = 0

    async def require(self, key: str, *, fresh: bool = False) -> None:
        """Require all rows of an aggregate; `fresh`: query now. Raises: Unavailable while some are missing."""
        await self._require([self._log.partition_of(Key(key))], fresh)

    async def require_all(self) -> None:
        """Require all rows of all aggregates, for a search. Raises: Unavailable while some are missing."""
        await self._require(range(self._partitions), False)

    async def refresh(self) -> None:
        """Query the database now: afterwards the cache is no older than this call. Raises: Unavailable."""
        self._queries += 1
        query = self._queries
        known = await self._states.caught_up()
        if query > self._answered:  # else a later query was answered sooner
            self._answered, self._known, self._refreshed_at = query, known, self._clock.monotonic()

    async def _require(self, partitions: Collection[int], fresh: bool) -> None:
        stale = self._clock.monotonic() - self._refreshed_at > timeouts.CAUGHT_UP_CACHE_S
        if fresh or stale or self._missing(partitions):
            await self.refresh()
        missing = self._missing(partitions)
        if missing:
            raise Unavailable(f"the projection is being built for partition {missing[0]}, retry later")

    def _missing(self, partitions: Collection[int]) -> list[int]:
        return [number for number in partitions if not self._known.get(number, False)]
