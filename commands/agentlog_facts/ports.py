"""What the core needs from the world: each port is a promise, each adapter keeps it under one contract suite."""

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
    """Time as a port, so that a simulation can own it."""

    def now(self) -> datetime:
        """Return the aware UTC time, for what people read."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards, for deadlines."""
        ...


class Ids(Protocol):
    """Identities and randomness as a port."""

    def uuid7(self) -> str:
        """Return a new time-ordered id."""
        ...


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record of `agentlog.events` as the broker holds it; `timestamp` is the broker's append time."""

    place: LogPosition
    key: bytes | None
    value: bytes | None
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class PositionedFrames:
    """A flush with the position (see `frame.position`) of its first slot, and the record's offset on its partition.

    `checksum` is one of the stored bytes: a log that was restored and grew again has another record at the same offset.
    `size_bytes` is the size of the stored value.
    """

    partition: int
    offset: int
    position: int
    record: FrameRecord
    checksum: int = 0
    size_bytes: int = 0


class EventLog(Protocol):
    """The write side of `agentlog.events` and random access to what lies there."""

    def partition_of(self, key: Key) -> int:
        """Return the partition of an aggregate key (murmur2, as Java and aiokafka compute it)."""
        ...

    async def append(self, draft: Draft) -> LogPosition:
        """Append one record and wait until it is durable (acks=all); values too large for it go to `blobs` first.

        Raises:
            Unavailable: nothing was handed to the producer.
            OutcomeUnknown: the record was handed over and no answer came; look for its `append_id`.
        """
        ...

    async def read(self, place: LogPosition) -> Recorded:
        """Return the commit at `place`, blobs resolved. Raises: Unavailable, Corrupt, UnknownSchema."""
        ...


class EventTail(Protocol):
    """All records of assigned partitions, in order, each at least once; offsets are kept by the caller."""

    def seek(self, partition: int, offset: int) -> None:
        """Read `partition` on from `offset`."""
        ...

    def drop(self, partition: int) -> None:
        """Stop reading a partition."""
        ...

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        """Return what is there, at most `max_records`, waiting up to `patience` for the first.

        Raises: Unavailable, Diverged when the next record lies behind the end of the log.
        """
        ...

    async def ends(self) -> Mapping[int, int]:
        """Return the offset behind the last record of every partition of the topic. Raises: Unavailable."""
        ...

    async def resolve(self, raw: RawRecord) -> Draft:
        """Decode a record, fetching its blobs. Raises: Corrupt, UnknownSchema, Unavailable."""
        ...


class Verdicts(Protocol):
    """How a writer learns what became of its record."""

    async def wait(self, place: LogPosition, append_id: str, deadline: float) -> Verdict:
        """Return the verdict over the try at `place`, by hint or from `log_index`; never that over another record.

        `deadline` in `Clock.monotonic` seconds. Raises: OutcomeUnknown at the deadline.
        """
        ...


@dataclass(frozen=True, slots=True)
class Indexed:
    """A row of `log_index`: where a commit lies and what became of it."""

    place: LogPosition
    event_id: str
    append_id: str
    body_sha256: str
    verdict: Verdict


class LedgerReads(Protocol):
    """Questions to the projector's ledger in PostgreSQL. All raise Unavailable when it does not answer."""

    async def by_append(self, key: Key, append_id: str) -> Indexed | None:
        """Return what became of one try, None while it is not projected."""
        ...

    async def accepted(self, key: Key, event_id: str) -> Indexed | None:
        """Return the accepted commit of an intent."""
        ...

    async def at(self, places: Sequence[LogPosition]) -> Sequence[Indexed]:
        """Return the rows of those of the records that are projected, in any order."""
        ...

    async def knows(self, key: Key) -> bool:
        """Tell whether anything was ever accepted of an aggregate. Raises: Unavailable also while that is unknown."""
        ...

    async def position(self, partition: int) -> int:
        """Return the next offset to be folded."""
        ...


class HintFeed(Protocol):
    """Hints from the projector to everybody. Losing one costs latency, never a fact."""

    async def publish(self, hints: Sequence[Hint]) -> None:
        """Announce; faults of the feed are logged, never raised."""
        ...

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """Yield hints from now on; ends never, reconnects by itself."""
        ...


class RunQueue(Protocol):
    """Ready runs and leases. A cache of what the log says: it may be emptied at any time."""

    async def push(self, graph_id: str, run_ids: Sequence[RunId]) -> None:
        """Append to the list of a graph. Raises: Unavailable."""
        ...

    async def pop(self, graph_ids: Sequence[str], patience: timedelta) -> RunId | None:
        """Take the next run of these graphs, waiting at most `patience` (<= 2 s). Raises: Unavailable."""
        ...

    async def queued(self, graph_id: str) -> frozenset[RunId]:
        """Return what lies in the list of a graph. Raises: Unavailable."""
        ...

    async def renew_lease(self, run_id: RunId, epoch: int, worker: str, ttl: timedelta) -> None:
        """Set or prolong the lease of a claim. Raises: Unavailable."""
        ...

    async def leased(self, claims: Sequence[tuple[RunId, int]]) -> Sequence[bool]:
        """Tell for each (run, epoch) whether its lease is there. Raises: Unavailable."""
        ...

    async def instance(self) -> str:
        """Return an id of the Redis instance's present contents; it changes when it was restarted or emptied.

        Raises: Unavailable.
        """
        ...


class FrameLog(Protocol):
    """The write side of `agentlog.outputs`."""

    async def append(self, thread_id: ThreadId, record: FrameRecord) -> int:
        """Append one flush, durable; return the position behind it. Raises: Unavailable."""
        ...

    async def end(self, thread_id: ThreadId) -> int:
        """Return the position behind the last record of the thread's partition. Raises: Unavailable."""
        ...


class FrameTail(Protocol):
    """One reader's bounded window on the live end of a thread; a single task reads it."""

    @property
    def start(self) -> int:
        """Return the position from which on every flush of the thread is seen here."""
        ...

    async def next(self) -> Sequence[PositionedFrames]:
        """Return what has arrived, in order, waiting for the first; nothing when poked.

        Raises: SlowReader once the buffer's bound was passed: what it held is dropped, read on with `read`.
        """
        ...

    def poke(self) -> None:
        """Make `next` return."""
        ...

    def close(self) -> None:
        """Stop listening; may be called more than once."""
        ...


class FrameReads(Protocol):
    """The read side of `agentlog.outputs`: ranges from the log, and a live tail shared by all readers."""

    async def tail(self, thread_id: ThreadId) -> FrameTail:
        """Listen to a thread: every flush that is acknowledged after this returned is seen. Raises: Unavailable."""
        ...

    def read(self, thread_id: ThreadId, start: int, end: int) -> AsyncGenerator[PositionedFrames]:
        """Yield the thread's flushes with start <= position < end, in order.

        Raises: Gap when records from `start` on have expired (before the first flush is yielded), Unavailable, also
        when the range reaches behind the end of the log (after what is there was yielded).
        """
        ...

    async def end(self, thread_id: ThreadId) -> int:
        """Return the position behind the last record of the thread's partition. Raises: Unavailable."""
        ...


class Blobs(Protocol):
    """Large values by digest."""

    async def read(self, sha256: str) -> Json:
        """Return a value after checking its digest. Raises: Unavailable, Corrupt."""
        ...
