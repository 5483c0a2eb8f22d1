"""Ports to clock, ids, logs, ledger, hints and queue; one contract suite per port tests all of its adapters."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from agentlog_facts.envelope import Draft, LogPosition, Recorded
from agentlog_facts.frame import FrameRecord
from agentlog_facts.guard import Verdict
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.json_value import Json
from agentlog_facts.notification import Hint


class Clock(Protocol):
    """Clock, as a port, so that a simulation can control the time."""

    def now(self) -> datetime:
        """Return the aware UTC time, for values that people read."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back, for deadlines."""
        ...


class Ids(Protocol):
    """Source of ids, as a port, so that a simulation can control the randomness."""

    def uuid7(self) -> str:
        """Return a new time-ordered id."""
        ...


@dataclass(frozen=True, slots=True)
class RawRecord:
    """Record of `agentlog.events` as the broker holds it; `timestamp` is the broker's append time."""

    place: LogPosition
    key: bytes | None
    value: bytes | None
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class PositionedFrames:
    """Flush with the position (see `frame.position`) of its first slot, and the offset of its record on the partition.

    `checksum` covers the stored bytes: a log that was restored and grew again has another record at the same offset.
    `size_bytes` is the size of the stored value.
    """

    partition: int
    offset: int
    position: int
    record: FrameRecord
    checksum: int = 0
    size_bytes: int = 0


class EventLog(Protocol):
    """Write side of `agentlog.events`, and random access to its records."""

    def partition_of(self, key: Key) -> int:
        """Return the partition of an aggregate key (murmur2, as Java and aiokafka compute it)."""
        ...

    async def append(self, draft: Draft) -> LogPosition:
        """Append one record and wait until it is durable (acks=all); values that are too large go to `blobs` first.

        Raises:
            Unavailable: nothing was handed to the producer.
            OutcomeUnknown: the record was handed over, but no acknowledgement came; look for its `append_id`.
        """
        ...

    async def read(self, place: LogPosition) -> Recorded:
        """Return the commit at `place`, blobs resolved. Raises: Unavailable, Corrupt, UnknownSchema."""
        ...


class RecordDecoder(Protocol):
    """Decoder of the records of `agentlog.events`."""

    async def resolve(self, raw: RawRecord) -> Draft:
        """Decode a record, fetching its blobs. Raises: Corrupt, UnknownSchema, BlobMissing, Unavailable."""
        ...


class EventRecords(RecordDecoder, Protocol):
    """Random access to the records of `agentlog.events`, also to those that cannot be decoded."""

    def partition_of(self, key: Key) -> int:
        """Return the partition of an aggregate key."""
        ...

    async def raw(self, place: LogPosition) -> RawRecord:
        """Return the record at `place`. Raises: Unavailable, Corrupt (there is none)."""
        ...

    async def ends(self) -> Mapping[int, int]:
        """Return the offset after the last record of every partition. Raises: Unavailable."""
        ...


class EventTail(RecordDecoder, Protocol):
    """All records of assigned partitions, in order, each at least once; the caller keeps the offsets."""

    def seek(self, partition: int, offset: int) -> None:
        """Continue to read `partition` at `offset`."""
        ...

    def drop(self, partition: int) -> None:
        """Stop reading a partition."""
        ...

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        """Return the next records, at most `max_records`, after waiting up to `patience` for the first one.

        Raises: Unavailable; Diverged when the next offset lies past the end of the log.
        """
        ...

    async def ends(self) -> Mapping[int, int]:
        """Return the offset after the last record of every partition of the topic. Raises: Unavailable."""
        ...


class Verdicts(Protocol):
    """Verdicts on appended records, for their writers."""

    async def wait(self, place: LogPosition, append_id: str, deadline: float) -> Verdict:
        """Return the verdict on the append at `place`, from a hint or `log_index`; never the verdict on another record.

        `deadline` is in seconds of `Clock.monotonic`. Raises: OutcomeUnknown at the deadline.
        """
        ...


@dataclass(frozen=True, slots=True)
class Indexed:
    """Row of `log_index`: the position and the verdict of a commit."""

    place: LogPosition
    event_id: str
    append_id: str
    body_sha256: str
    verdict: Verdict


class LedgerReads(Protocol):
    """Queries of the ledger in PostgreSQL. Each raises Unavailable when PostgreSQL does not answer."""

    async def by_append(self, key: Key, append_id: str) -> Indexed | None:
        """Return the row of one append, None while it is not projected."""
        ...

    async def accepted(self, key: Key, event_id: str) -> Indexed | None:
        """Return the row of the accepted commit of an intent, None if there is none."""
        ...

    async def at(self, places: Sequence[LogPosition]) -> Sequence[Indexed]:
        """Return the rows of the records at `places` that are projected, in any order."""
        ...

    async def knows(self, key: Key) -> bool:
        """Return whether an aggregate ever had an accepted commit. Raises: Unavailable, also while that is unknown."""
        ...

    async def position(self, partition: int) -> int:
        """Return the next offset to fold."""
        ...


class HintFeed(Protocol):
    """Hints from the projector to all other processes. A lost hint costs latency, never a fact."""

    async def publish(self, hints: Sequence[Hint]) -> None:
        """Publish hints; faults of the feed are logged, never raised."""
        ...

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """Open an endless iterator of the hints from now on; it reconnects by itself."""
        ...


class RunQueue(Protocol):
    """Queue of ready runs, and leases. It is a cache of the log, so it may be emptied at any time."""

    async def push(self, queue: str, run_ids: Sequence[RunId]) -> None:
        """Append runs to a queue: that of a graph, or that of its suspects. Raises: Unavailable."""
        ...

    async def pop(self, queues: Sequence[str], patience: timedelta) -> RunId | None:
        """Remove and return the next run of these queues, waiting at most `patience` (<= 2 s). Raises: Unavailable."""
        ...

    async def queued(self, queue: str) -> frozenset[RunId]:
        """Return the runs in a queue. Raises: Unavailable."""
        ...

    async def renew_lease(self, run_id: RunId, epoch: int, worker: str, ttl: timedelta) -> None:
        """Set or extend the lease of a claim. Raises: Unavailable."""
        ...

    async def leased(self, claims: Sequence[tuple[RunId, int]]) -> Sequence[bool]:
        """Return for each (run, epoch) whether it has a lease. Raises: Unavailable."""
        ...

    async def instance(self) -> str:
        """Return an id of the contents of the Redis instance; it changes when the instance is restarted or emptied.

        Raises: Unavailable.
        """
        ...


class FrameLog(Protocol):
    """Write side of `agentlog.outputs`."""

    async def append(self, thread_id: ThreadId, record: FrameRecord) -> int:
        """Append one flush durably and return the position after it. Raises: Unavailable."""
        ...

    async def end(self, thread_id: ThreadId) -> int:
        """Return the position after the last record of the thread's partition. Raises: Unavailable."""
        ...


class FrameTail(Protocol):
    """Bounded buffer of one reader at the live end of a thread's frames; a single task reads it."""

    @property
    def start(self) -> int:
        """Return the position from which on this tail gets every flush of the thread."""
        ...

    async def next(self) -> Sequence[PositionedFrames]:
        """Return the flushes that have arrived, in order, after waiting for the first one; return none after a `poke`.

        Raises: SlowReader once the buffer is full; its contents are dropped, so continue with `FrameReads.read`.
        """
        ...

    def poke(self) -> None:
        """Make `next` return."""
        ...

    def close(self) -> None:
        """Stop listening; a second call does nothing."""
        ...


class FrameReads(Protocol):
    """Read side of `agentlog.outputs`: ranges from the log, and a live tail shared by all readers."""

    async def tail(self, thread_id: ThreadId) -> FrameTail:
        """Listen to a thread; the tail gets each flush that is acknowledged after this returns. Raises: Unavailable."""
        ...

    def read(self, thread_id: ThreadId, start: int, end: int) -> AsyncGenerator[PositionedFrames]:
        """Yield the thread's flushes with start <= position < end, in order.

        Raises: Gap when records from `start` on have expired, before it yields a flush; Unavailable, also when the
        range reaches past the end of the log, after it has yielded the flushes before that end.
        """
        ...

    async def end(self, thread_id: ThreadId) -> int:
        """Return the position after the last record of the thread's partition. Raises: Unavailable."""
        ...


class Blobs(Protocol):
    """Large values, by digest."""

    async def read(self, sha256: str) -> Json:
        """Return a value after checking its digest. Raises: Unavailable, BlobMissing, Corrupt."""
        ...
