"""Batching writer of a run's frames to `outputs`: in order, bounded in memory; it never fails the run.

A flush takes the frames that come within FLUSH_S after its first one, at most FLUSH_BYTES or MAX_FRAMES. Frames wait
while `outputs` cannot be written. After FLUSH_PATIENCE_S all waiting frames are dropped, the run goes on, and a `gap`
frame marks the place.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.frame import MAX_FRAMES, Frame, FrameRecord
from agentlog_facts.ports import Clock, FrameLog
from agentlog_processors import timeouts
from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_projections.queries.worker import ExecutableRun

log = logging.getLogger(__name__)

FLUSH_BYTES = 64 * 1024
HELD_BYTES = 8 * 1024 * 1024
"""With more bytes of frames than this, the run waits."""


@dataclass(frozen=True, slots=True)
class _Held:
    frame: Frame
    size_bytes: int


class FrameWriter:
    """Writes the frames of one attempt; only `emit` runs on the job's loop, all other methods on the service loop."""

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
        self._away = False  # frames were dropped, and no write has succeeded since
        self.lost = 0
        """Number of dropped frames that no `gap` frame on the log counts yet."""

    async def emit(self, frame: Frame) -> None:
        """Add a frame; wait while more than HELD_BYTES are held. Frames after the end are dropped."""
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
        size_bytes = len(frame.json)
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
            self._signalled = False  # before the queue is emptied: a later frame signals again
            self._awake.clear()
            self._full.clear()
            while self._held and not self._ending.is_set():
                await self._write(self._take(), None)
                self._give_up_held()

    async def finish(self, flushing: "asyncio.Task[None]", last: Sequence[Frame], end: str | None) -> int | None:
        """Flush the remaining frames and `last`, with `end`, the event id of the run's end.

        `flushing` is the task of `run`. Return the position after the last frame, or None when `outputs` could not be
        written: readers then end by the fact.
        """
        self._ending.set()
        self._awake.set()
        self._full.set()
        await flushing
        for frame in last:
            self._hold(frame)
        while True:
            frames = self._take()
            final = not self._held
            after = await self._write(frames, end if final else None)
            if final:
                return after
            self._give_up_held(keep=len(last))

    async def leave(self, flushing: "asyncio.Task[None]") -> None:
        """Flush the remaining frames of an attempt that is given back, within FLUSH_BEFORE_RELEASE_S.

        `flushing` is the task of `run`.
        """
        self._ending.set()
        self._awake.set()
        self._full.set()
        try:
            async with asyncio.timeout(timeouts.FLUSH_BEFORE_RELEASE_S):
                await flushing
                while self._held:
                    await self._write(self._take(), None)
        except TimeoutError:
            log.error("outputs.not_flushed", extra=self._fields(len(self._held), "not written in time"))

    async def _gather(self) -> None:
        """Wait while the batch grows: FLUSH_S, or until it is full or the run ends."""
        try:
            async with asyncio.timeout(timeouts.FLUSH_S):
                await self._full.wait()
        except TimeoutError:
            return

    def _take(self) -> list[Frame]:
        frames: list[Frame] = []
        size_bytes = 0
        while self._held and len(frames) < MAX_FRAMES - 1:  # one place is left for a gap
            if frames and size_bytes + self._held[0].size_bytes > FLUSH_BYTES:
                break
            held = self._held.popleft()
            self._bytes_out += held.size_bytes
            size_bytes += held.size_bytes
            frames.append(held.frame)
        self._room.set()
        return frames

    async def _write(self, frames: list[Frame], end: str | None) -> int | None:
        """Append one record and repeat it with the same `n`; count its frames as lost after FLUSH_PATIENCE_S.

        That limit is for an outage, not for each record: until a write succeeds again, no record is repeated.
        """
        n, self._n = self._n, self._n + 1
        until = self._clock.monotonic() + timeouts.FLUSH_PATIENCE_S
        while True:
            try:
                after = await self._outputs.append(self._thread_id, self._record(n, frames, end))
            except Unavailable as error:
                if self._away or self._clock.monotonic() >= until:
                    self._away = True
                    self._give_up(len(frames), error)
                    return None
                await asyncio.sleep(timeouts.FLUSH_RETRY_S)
            except AgentlogError as error:  # an error of these frames, not of the log
                self._give_up(len(frames), error)
                if end is None or not frames:
                    return None
                frames = []
            else:
                self.lost, self._away = 0, False
                return after

    def _record(self, n: int, frames: list[Frame], end: str | None) -> FrameRecord:
        gap = [Frame("gap", {"reason": "outputs_unwritable", "frames": self.lost})] if self.lost else []
        return FrameRecord(self._run_id, self._epoch, n, (*gap, *frames), end)

    def _give_up_held(self, keep: int = 0) -> None:
        """While `outputs` is away, drop all held frames but the last `keep`: each further try could take long."""
        lost = 0
        while self._away and len(self._held) > keep:
            self._bytes_out += self._held.popleft().size_bytes
            lost += 1
        if lost:
            self._room.set()
            self._give_up(lost, "outputs is away")

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
