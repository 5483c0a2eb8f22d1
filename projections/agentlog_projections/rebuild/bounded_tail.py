"""Tail of the log that ends at given offsets, for a fold that must not run ahead of another one."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from agentlog_facts.envelope import Draft
from agentlog_facts.ports import EventTail, RawRecord


class BoundedTail:
    """Implements `ports.EventTail`; partitions end at `bounds`, even if the log is longer.

    Records after a bound are read and dropped, so raise bounds only between sessions of the fold, which seek again.
    """

    def __init__(self, tail: EventTail) -> None:
        self._tail = tail
        self.bounds: Mapping[int, int] = {}

    def seek(self, partition: int, offset: int) -> None:
        """Continue reading `partition` at `offset`."""
        self._tail.seek(partition, offset)

    def drop(self, partition: int) -> None:
        """Stop reading a partition."""
        self._tail.drop(partition)

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        """Return the records before the bounds. Raises: Unavailable, Diverged."""
        found = await self._tail.poll(max_records, patience)
        return [raw for raw in found if raw.place.offset < self.bounds.get(raw.place.partition, 0)]

    async def ends(self) -> Mapping[int, int]:
        """Return the bounds."""
        return self.bounds

    async def resolve(self, raw: RawRecord) -> Draft:
        """Decode a record, fetching its blobs. Raises: Corrupt, UnknownSchema, Unavailable."""
        return await self._tail.resolve(raw)
