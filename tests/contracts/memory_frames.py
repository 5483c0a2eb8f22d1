"""`FrameLog` and `FrameReads` in memory, under the same contract suite as Kafka."""

from collections.abc import AsyncGenerator

from agentlog_facts.errors import Gap, Unavailable
from agentlog_facts.frame import SLOTS, FrameRecord, decode_record, encode_record, position
from agentlog_facts.ids import ThreadId
from agentlog_facts.ports import FrameTail, PositionedFrames
from agentlog_infra.kafka.outputs.buffer import FrameBuffer

PARTITION = 0


class MemoryFrames:
    """Implements `ports.FrameLog` and `ports.FrameReads` over one list; `base` as in a later generation."""

    def __init__(self, base: int = 7) -> None:
        self._base = base
        self._flushes: list[tuple[ThreadId, PositionedFrames]] = []
        self._oldest = 0
        self._readers: list[tuple[ThreadId, FrameBuffer]] = []

    async def append(self, thread_id: ThreadId, record: FrameRecord) -> int:
        """Append one flush; return the position after it."""
        value, headers = encode_record(record)
        offset = len(self._flushes)
        at, stored = position(self._base, offset), decode_record(value, [(n, v) for n, v in headers])
        flush = PositionedFrames(PARTITION, offset, at, stored, size_bytes=len(value))
        self._flushes.append((thread_id, flush))
        for listening, buffer in list(self._readers):
            if listening == thread_id:
                buffer.put(flush, len(value))
        return flush.position + SLOTS

    def of(self, thread_id: ThreadId) -> list[FrameRecord]:
        """Return all flushes of a thread."""
        return [flush.record for listening, flush in self._flushes if listening == thread_id]

    async def end(self, thread_id: ThreadId) -> int:
        """Return the position after the last flush."""
        return position(self._base, len(self._flushes))

    async def tail(self, thread_id: ThreadId) -> FrameTail:
        """Open a tail of a thread at the end of the log."""
        buffer = FrameBuffer(await self.end(thread_id), self._leave)
        self._readers.append((thread_id, buffer))
        return buffer

    async def read(self, thread_id: ThreadId, start: int, end: int) -> AsyncGenerator[PositionedFrames]:
        """Yield the thread's flushes of a range. Raises: Gap, Unavailable."""
        at = -(-start // SLOTS) - self._base
        if at < self._oldest and start < end:
            raise Gap(f"{start} has expired", position(self._base, self._oldest))
        for listening, flush in self._flushes[at:]:
            if flush.position < end and listening == thread_id:
                yield flush
        if start < end and position(self._base, len(self._flushes)) < end:
            raise Unavailable(f"{end} is after the end of the log")

    async def expire(self, thread_id: ThreadId, before: int) -> None:
        """Expire all flushes before a position."""
        self._oldest = before // SLOTS - self._base

    def listeners(self) -> int:
        """Return the number of open tails."""
        return len(self._readers)

    def _leave(self, left: FrameBuffer) -> None:
        self._readers = [(thread_id, buffer) for thread_id, buffer in self._readers if buffer is not left]
