"""An asyncio event loop without time or sockets: a seed chooses the next process, and the clock jumps.

Inside one process callbacks keep asyncio's order; between processes the seed decides at every step. A killed process
never runs again, not even its `finally`; a paused process runs nothing until it continues.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
END_S = 60.0
"""The time for cancelled tasks to end, per cancellation."""


class Process:
    """A process that can be killed or paused; `skew_s` is the offset of its wall clock."""

    def __init__(self, name: str, skew_s: float = 0.0) -> None:
        self.name = name
        self.skew_s = skew_s
        self.alive = True
        self.paused = False
        self.ready: deque[Handle] = deque()
        self.kill_in_calls = 0
        """The process dies at the call over the network with this number; 0: at none."""
        self.on_death: list[Callable[[], None]] = []


OUTSIDE = Process("world")
"""The process of everything outside: servers, network, the test itself. It never dies."""
PROCESS: ContextVar[Process] = ContextVar("process", default=OUTSIDE)


class Handle:
    """A callback with its process; it has the attributes of handles that asyncio uses."""

    __slots__ = ("_args", "_at", "_callback", "_cancelled", "_context", "process")

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...], context: Context, at: float) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._at = at
        self._cancelled = False
        self.process: Process = context.get(PROCESS, OUTSIDE)

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._at

    def run(self) -> None:
        if not self._cancelled:
            self._context.run(self._callback, *self._args)


class SimFuture(asyncio.Future[T]):
    """A future whose order in a set does not depend on its address in memory."""

    def __init__(self, loop: "SimLoop") -> None:
        super().__init__(loop=loop)
        self._number = loop.count()

    def __hash__(self) -> int:
        return self._number


class SimTask(asyncio.Task[T]):
    """A task whose order in a set does not depend on its address in memory."""

    def __init__(self, loop: "SimLoop", coro: Coroutine[Any, Any, T], context: Context | None) -> None:
        self._number = loop.count()
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._number


async def passes(length_s: float) -> None:
    """Return after this much virtual time."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()

    def over() -> None:
        if not waiting.done():
            waiting.set_result(None)

    timer = loop.call_later(length_s, over)
    try:
        await waiting
    finally:
        timer.cancel()


class Deadlock(AssertionError):
    """No callback is ready and no timer is set: the simulation itself is wrong."""


class SimLoop(asyncio.BaseEventLoop):
    """Runs callbacks one by one, in an order that only the seed determines."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance
        self._now = 0.0
        self._numbers = 0
        self._timers: list[tuple[float, int, Handle | Callable[[], object]]] = []
        self._runnable: list[Process] = []
        self._tasks: list[tuple[Process, asyncio.Task[Any]]] = []
        self.steps = 0
        self.failures: list[str] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._failed)

    def count(self) -> int:
        """Return a new number."""
        self._numbers += 1
        return self._numbers

    def time(self) -> float:
        """Return virtual seconds since the start."""
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        """Create a future."""
        return SimFuture(self)

    def call_soon(  # type: ignore[override]  # a handle of its own class
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Handle:
        """Run a callback at a time that the seed chooses."""
        handle = Handle(callback, args, copy_context() if context is None else context, self._now)
        self._add(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # a handle of its own class
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Handle:
        """Run a callback soon; there is one thread only."""
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]  # a handle of its own class
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Handle:
        """Run a callback at a virtual time."""
        timer = Handle(callback, args, copy_context() if context is None else context, when)
        heapq.heappush(self._timers, (when, self.count(), timer))
        return timer

    def call_later(  # type: ignore[override]  # a handle of its own class
        self, delay: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Handle:
        """Run a callback after a delay."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def happen(self, delay_s: float, happening: Callable[[], object]) -> None:
        """Run a callback outside of all processes after a delay."""
        heapq.heappush(self._timers, (self._now + delay_s, self.count(), happening))

    def start(self, process: Process, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a task of a process."""
        context = Context()
        context.run(PROCESS.set, process)
        return self.create_task(coro, context=context)

    def kill(self, process: Process) -> None:
        """Kill a process; its messages that are already sent still arrive."""
        process.alive = False
        for tell in process.on_death:
            tell()

    def pause(self, process: Process) -> None:
        """Pause a process."""
        process.paused = True

    def resume(self, process: Process) -> None:
        """Continue a paused process with all its pending callbacks."""
        process.paused = False
        if process.ready and process.alive and process not in self._runnable:
            self._runnable.append(process)

    def revive(self, process: Process) -> None:
        """Make a killed process runnable again, so that its tasks can be cancelled."""
        process.alive = True
        self.resume(process)

    def unretrieved(self) -> list[str]:
        """Return the unretrieved exceptions of tasks of living processes.

        asyncio reports them only when a task is deleted, and here every task is kept.
        """
        return [
            f"unretrieved {task.exception()!r} in {getattr(task.get_coro(), '__qualname__', '')} of {process.name}"
            for process, task in self._tasks
            if process.alive and task.done() and task._log_traceback  # pyright: ignore[reportPrivateUsage]  # the only place
        ]

    def end(self) -> None:
        """Cancel every task of every process until all have ended, and close; none is left to the garbage collector."""
        for _ in range(20):
            left = [task for _, task in self._tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=END_S))
        self.close()

    def _add(self, handle: Handle) -> None:
        process = handle.process
        if not process.ready and not process.paused and process.alive:
            self._runnable.append(process)
        process.ready.append(handle)

    def _run_once(self) -> None:
        """Run one step of one process, or advance the time to the next step."""
        runnable = self._runnable
        while not runnable:
            self._pass_time()
        at = int(self._chance.random() * len(runnable)) if len(runnable) > 1 else 0
        process = runnable[at]
        ready = process.ready
        if process.paused or not process.alive or not ready:
            runnable[at] = runnable[-1]
            runnable.pop()
            return
        handle = ready.popleft()
        if not ready:
            runnable[at] = runnable[-1]
            runnable.pop()
        self.steps += 1
        handle.run()

    def _pass_time(self) -> None:
        """Advance the time to the next timer."""
        if not self._timers:
            raise Deadlock(f"nothing is left to happen at {self._now:.3f} s")
        when, _, timer = heapq.heappop(self._timers)
        if not isinstance(timer, Handle):
            self._now = max(self._now, when)
            self.steps += 1
            timer()
        elif not timer.cancelled():
            self._now = max(self._now, when)
            self._add(timer)

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        assert asyncio.iscoroutine(coro)
        task: SimTask[T] = SimTask(self, coro, context)
        self._tasks.append((PROCESS.get() if context is None else context.get(PROCESS, OUTSIDE), task))
        return task

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Record the exception of a task that was not retrieved."""
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")
