"""How a run's frames get to `outputs`: in batches, in order, bounded in memory, without ever failing the run.

A flush takes what came within FLUSH_S of its first frame, at most FLUSH_BYTES or MAX_FRAMES. While `outputs` cannot be
written the frames wait; past PATIENCE_S all that wait are given up, the run goes on and a `gap` frame marks the place.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.frame import MAX_FRAMES, Frame, FrameRecord
from agentlog_facts.json_value import dump
from agentlog_facts.ports import Clock, FrameLog
from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_projections.queries.worker import ExecutableRun

log = logging.getLogger(__name__)

FLUSH_S = 0.008
FLUSH_BYTES = 64 * 1024
HELD_BYTES = 8 * 1024 * 1024
"""Bytes of frames that may wait before the run itself has to wait."""
PATIENCE_S = 10.0
RETRY_S = 0.25
LEAVE_S = 2.0
"""How long an attempt that is given back may take to flush what it has; its release must not wait longer."""


@dataclass(frozen=True, slots=True)
class _Held:
    frame: Frame
    size_bytes: int


class FrameWriter:
    """Writes the frames of one attempt; `emit` is awaited on the job's loop, everything else on the service loop."""

    def __init__(self, outputs: FrameLog, bridge: LoopBridge, clock: Clock, work: ExecutableRun, epoch: int) -> None:
        self._outputs = outputs
        self._bridge = bridge
        self._clock = clock
        self._thread_id = work.thread_id
        self._run_id = work.run_id
        self._epoch = epoch
        self._n = 0
        self._held: deque[_Held] = deque()
        self._bytes_in = 0  # written by the job's thread only
        self._bytes_out = 0  # written by the service's thread only
        self._awake = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._ending = asyncio.Event()
        self._signalled = False
        self._away = False  # frames were given up, and nothing could be written since
        self.lost = 0
        """Frames given up that no gap on the log tells of yet."""

    async def emit(self, frame: Frame) -> None:
        """Hand over a frame; waits while HELD_BYTES are waiting. Frames after the end are dropped."""
        if self._ending.is_set():
            return
        self._hold(frame)
        if not self._signalled or self._held_bytes >= FLUSH_BYTES:
            self._signalled = True
            self._bridge.home.call_soon_threadsafe(self._signal)
        if self._held_bytes > HELD_BYTES:
            await self._bridge.call(self._wait_for_room)

    @property
    def _held_bytes(self) -> int:
        return self._bytes_in - self._bytes_out

    def _hold(self, frame: Frame) -> None:
        size_bytes = len(dump(frame.data))
        self._held.append(_Held(frame, size_bytes))
        self._bytes_in += size_bytes

    def _signal(self) -> None:
        self._awake.set()
        if self._held_bytes >= FLUSH_BYTES:
            self._full.set()

    async def _wait_for_room(self) -> None:
        while self._held_bytes > HELD_BYTES:
            self._room.clear()
            await self._room.wait()

    async def run(self) -> None:
        """Flush until `finish` is called."""
        while not self._ending.is_set():
            await self._awake.wait()
            await self._gather()
            self._signalled = False  # before the queue is emptied: what comes later signals again
            self._awake.clear()
            self._full.clear()
            while self._held and not self._ending.is_set():
                await self._write(self._take(), None)
                self._give_up_held()

    async def finish(self, writing: "asyncio.Task[None]", last: Sequence[Frame], end: str | None) -> int | None:
        """Flush what is left with `last`, flagged with `end` (event id of the run's end); return the position behind.

        `writing` is the task of `run`. None when `outputs` could not be written: readers then end by the fact.
        """
        self._ending.set()
        self._awake.set()
        self._full.set()
        await writing
        for frame in last:
            self._hold(frame)
        while True:
            frames = self._take()
            final = not self._held
            behind = await self._write(frames, end if final else None)
            if final:
                return behind
            self._give_up_held(keep=len(last))

    async def leave(self, writing: "asyncio.Task[None]") -> None:
        """Flush what is left of an attempt that others continue, within LEAVE_S; `writing` is the task of `run`."""
        self._ending.set()
        self._awake.set()
        self._full.set()
        try:
            async with asyncio.timeout(LEAVE_S):
                await writing
                while self._held:
                    await self._write(self._take(), None)
        except TimeoutError:
            log.error("outputs.not_flushed", extra=self._fields(len(self._held), "not written in time"))

    async def _gather(self) -> None:
        """Let a batch grow for FLUSH_S, less when it is full or the run ends."""
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._full.wait()
        except TimeoutError:
            return

    def _take(self) -> list[Frame]:
        frames: list[Frame] = []
        size_bytes = 0
        while self._held and len(frames) < MAX_FRAMES - 1:  # one is left for a gap
            if frames and size_bytes + self._held[0].size_bytes > FLUSH_BYTES:
                break
            held = self._held.popleft()
            self._bytes_out += held.size_bytes
            size_bytes += held.size_bytes
            frames.append(held.frame)
        self._room.set()
        return frames

    async def _write(self, frames: list[Frame], end: str | None) -> int | None:
        """Append one record; after PATIENCE_S without success count its frames as lost. Repeats carry the same n.

        That patience is for an outage, not for each record: until something is written again there are no more repeats.
        """
        n, self._n = self._n, self._n + 1
        until = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                behind = await self._outputs.append(self._thread_id, self._record(n, frames, end))
            except Unavailable as error:
                if self._away or self._clock.monotonic() >= until:
                    self._away = True
                    self._give_up(len(frames), error)
                    return None
                await asyncio.sleep(RETRY_S)
            except AgentlogError as error:  # of these frames, not of the log
                self._give_up(len(frames), error)
                if end is None or not frames:
                    return None
                frames = []
            else:
                self.lost, self._away = 0, False
                return behind

    def _record(self, n: int, frames: list[Frame], end: str | None) -> FrameRecord:
        gap = [Frame("gap", {"reason": "outputs_unwritable", "frames": self.lost})] if self.lost else []
        return FrameRecord(self._run_id, self._epoch, n, (*gap, *frames), end)

    def _give_up_held(self, keep: int = 0) -> None:
        """While `outputs` is away, give up what waits but the last `keep` frames: each further try could take long."""
        lost = 0
        while self._away and len(self._held) > keep:
            self._bytes_out += self._held.popleft().size_bytes
            lost += 1
        if lost:
            self._room.set()
            self._give_up(lost, "outputs are away")

    def _give_up(self, frames: int, error: AgentlogError | str) -> None:
        self.lost += frames
        log.error("outputs.frames_lost", extra=self._fields(frames, error))

    def _fields(self, frames: int, error: AgentlogError | str) -> dict[str, object]:
        return {
            "stream": f"thread-{self._thread_id}",
            "run_id": self._run_id,
            "epoch": self._epoch,
            "frames": frames,
            "error": str(error),
        }
