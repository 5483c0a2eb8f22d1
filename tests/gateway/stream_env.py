"""Test environment of run streams, without worker, projector and Redis."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

from agentlog_facts.errors import Unavailable
from agentlog_facts.frame import Frame, FrameRecord
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject, load
from agentlog_facts.notification import Hint
from agentlog_facts.ports import FrameLog, FrameReads
from agentlog_facts.thread import RunStatus
from agentlog_gateway.streaming.run_stream import RunStream
from agentlog_gateway.streaming.run_streams import RunStreams
from agentlog_gateway.streaming.run_watcher import RunWatcher
from agentlog_gateway.streaming.sse import Framer, SseEncoder
from agentlog_gateway.streaming.stream_modes import Modes
from agentlog_projections.queries.run_status import RunStatusRow

THREAD = ThreadId("thread-1")
OTHER_THREAD = ThreadId("thread-2")
RUN = RunId("run-1")
DEADLINE_S = 20.0
Event = tuple[str | None, str, Json]
"""(id, event, data)"""


class Rows:
    """Rows of runs in memory; `away` makes them unavailable."""

    def __init__(self) -> None:
        self.by_id: dict[RunId, RunStatusRow] = {}
        self.asked = 0
        self.away = False
        self.built = False
        self._asking = asyncio.Condition()

    async def asked_again(self, count: int) -> None:
        """Wait until the rows have been read `count` times in all."""
        async with self._asking:
            await self._asking.wait_for(lambda: self.asked >= count)

    async def rows(
        self, run_ids: Sequence[RunId], with_values: Collection[RunId] = ()
    ) -> Mapping[RunId, RunStatusRow | None]:
        """Return the rows, None if there is none; while they are `built` the result is empty."""
        async with self._asking:
            self.asked += 1
            self._asking.notify_all()
        if self.away:
            raise Unavailable("rows: switched off")
        return {} if self.built else {run_id: self.by_id.get(run_id) for run_id in run_ids}


class Hints:
    """Hints in memory; `away` loses them, as an emptied Redis does."""

    def __init__(self, listener: Callable[[Hint], None]) -> None:
        self.away = False
        self._listener = listener

    def publish(self, hint: Hint) -> None:
        """Pass a hint to the listener."""
        if not self.away:
            self._listener(hint)


@dataclass
class StreamEnv:
    """One thread, its runs, and the streams of a gateway over them."""

    log: FrameLog
    streams: RunStreams
    rows: Rows
    hints: Hints
    epoch: int = 3
    n: dict[int, int] = field(default_factory=dict[int, int])

    def create(self, run_id: RunId = RUN, *, resumable: bool = True) -> None:
        """Create a pending run."""
        self.rows.by_id[run_id] = RunStatusRow(run_id, THREAD, "pending", resumable)

    async def claim(self, run_id: RunId = RUN) -> int:
        """Start an attempt: a new epoch, and its metadata event."""
        self.epoch += 3
        row = self.rows.by_id[run_id]
        start = await self.log.end(THREAD) if row.outputs_from is None else row.outputs_from
        claimed = replace(row, status="running", epoch=self.epoch, version=self.epoch, outputs_from=start)
        self.rows.by_id[run_id] = claimed
        await self.flush(Frame("metadata", {"run_id": run_id, "epoch": self.epoch}), run_id=run_id)
        return self.epoch

    async def fence(self, run_id: RunId = RUN) -> None:
        """Append the fence record that comes before a release."""
        await self.log.append(THREAD, FrameRecord(run_id, self.epoch, 0, (), release="released"))

    async def release(self, run_id: RunId = RUN) -> None:
        """Release the claim, after a fence."""
        await self.fence(run_id)
        row = self.rows.by_id[run_id]
        self.rows.by_id[run_id] = replace(row, status="pending", epoch=None, version=self.epoch + 1)

    async def flush(
        self,
        *frames: Frame,
        run_id: RunId = RUN,
        epoch: int | None = None,
        n: int | None = None,
        end: str | None = None,
    ) -> int:
        """Flush frames as the worker of an epoch; return the position after them."""
        epoch = self.epoch if epoch is None else epoch
        if n is None:
            n = self.n[epoch] = self.n.get(epoch, -1) + 1
        return await self.log.append(THREAD, FrameRecord(run_id, epoch, n, frames, end))

    async def announce(self, event_id: str, *frames: Frame, run_id: RunId = RUN) -> int:
        """Append the flush with which another process than the worker announces a fact."""
        return await self.log.append(THREAD, FrameRecord(run_id, 0, 0, frames, of=event_id))

    async def accept_end(
        self,
        status: RunStatus = "success",
        *,
        run_id: RunId = RUN,
        event_id: str = "finished",
        outputs_to: int | None = None,
        error: JsonObject | None = None,
    ) -> None:
        """Write the row of a run whose RunFinished was accepted, and send the hint."""
        row = replace(self.rows.by_id[run_id], status=status, finished_event_id=event_id, error=error)
        self.rows.by_id[run_id] = replace(row, outputs_to=outputs_to)
        await self.hint(run_id)

    async def finish(self, *frames: Frame, status: RunStatus = "success", run_id: RunId = RUN) -> None:
        """End the run as its worker does: the end flush, then the fact."""
        outputs_to = await self.flush(*frames, run_id=run_id, end="finished")
        await self.accept_end(status, run_id=run_id, outputs_to=outputs_to)

    async def hint(self, run_id: RunId = RUN) -> None:
        """Publish a hint that the run has ended."""
        self.hints.publish(Hint(0, 0, 1, ended=(run_id,)))


@asynccontextmanager
async def stream_env_over(
    log: FrameLog, reads: FrameReads, heartbeat_s: float = 5.0, poll_s: float = 0.2
) -> AsyncGenerator[StreamEnv]:
    """Run the streams of a gateway."""
    rows = Rows()
    watcher = RunWatcher(rows, poll_s)
    streams = RunStreams(reads, watcher, heartbeat_s)
    serving = asyncio.ensure_future(watcher.run())
    try:
        yield StreamEnv(log, streams, rows, Hints(watcher.on_hint))
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def parsed(data: bytes) -> list[Event]:
    """Return the events of complete SSE text, without comments."""
    found: list[Event] = []
    for block in data.decode().split("\r\n\r\n"):
        if not block or block.startswith(":"):
            continue
        lines = [line.partition(": ") for line in block.split("\r\n")]
        assert [name for name, _, _ in lines] in (["event", "data"], ["event", "data", "id"]), block
        found.append((lines[2][2] if len(lines) == 3 else None, lines[0][2], load(lines[1][2])))
    return found


async def encoded(events: RunStream, modes: Modes | None = None) -> AsyncGenerator[bytes]:
    """Yield the bytes that a client of a stream gets as server-sent events."""
    encoder = SseEncoder(Framer(), modes)
    async for batch in events:
        chunk = encoder.encode(batch)
        if chunk:
            yield chunk


async def everything(events: RunStream, modes: Modes | None = None) -> list[Event]:
    """Read a stream to its end."""
    data = b""
    async with asyncio.timeout(DEADLINE_S):
        async for chunk in encoded(events, modes):
            data += chunk
    await events.aclose()
    return parsed(data)


async def some(events: RunStream, count: int) -> list[Event]:
    """Read a stream up to `count` events or to its end, then disconnect."""
    found: list[Event] = []
    async with asyncio.timeout(DEADLINE_S):
        async with aclosing(encoded(events)) as chunks:
            async for chunk in chunks:
                found += parsed(chunk)
                if len(found) >= count:
                    break
    await events.aclose()
    return found[:count]
