"""Event loops for user code, in threads of their own, and the choice of a loop for each run.

Runs share one loop while it answers, because clients that user code keeps in module variables (HTTP pools of model
libraries) belong to one loop. A loop that user code blocks gets no new runs. Jobs that it has not started in time move
to another loop, and the graph that blocked it gets a loop for each of its later runs. With `isolated`, every run has
its own loop.

User code may raise SystemExit or KeyboardInterrupt, stop its loop, or fork. The first two end only its run. A loop that
it stops goes on. A forked child ends where user code returns in it: it has the sockets and the loops of this process.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from functools import partial
from types import FrameType
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakMethod

from agentlog_processors import timeouts
from agentlog_processors.runtime.job_tasks import JobOwner, JobTask, own_context, owned

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")
THREADS = 64
"""Most threads for the synchronous nodes of the runs on one loop."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Job(Generic[T]):
    """A coroutine on a loop for user code, as seen from the service loop; `done` is set after its real end.

    `threads` are its synchronous calls that still run: a cancellation of their caller does not end them.
    """

    def __init__(
        self, home: asyncio.AbstractEventLoop, graph_id: str, make: Callable[[], Coroutine[object, object, T]]
    ) -> None:
        self.done: asyncio.Future[T] = home.create_future()
        self.graph_id = graph_id
        self._owner = JobOwner(graph_id)
        self.threads: set[Future[object]] = set()
        self._home = home
        self._make = make
        self._loop: JobLoop | None = None
        self._starting: asyncio.Task[None] | None = None
        self._task: asyncio.Task[object] | None = None
        self._ticket: list[bool] = []
        self._cancelled = False

    @property
    def was_disturbed(self) -> bool:
        """Return whether the code of another job has cancelled a task of this one."""
        return self._owner.disturbed

    def put(self, loop: "JobLoop") -> None:
        """Schedule the job on a loop."""
        self._loop = loop
        loop.active += 1
        # the thread that pops this item starts or moves the job; a pop is atomic between threads
        ticket = self._ticket = [True]
        loop.call(lambda: self._start(ticket))

    def take_back(self) -> "JobLoop | None":
        """Withdraw the job from a loop that has not started it, and return that loop; None if it has started."""
        loop = self._loop
        if loop is None or not _won(self._ticket):
            return None
        loop.active -= 1
        return loop

    def ended(self) -> None:
        """Count the job as ended on its loop."""
        if self._loop is not None:
            self._loop.active -= 1

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the job's loop."""
        if self._loop is not None:
            self._loop.call(function)

    def cancel(self) -> None:
        """Cancel the coroutine; it may end late or never."""
        self._cancelled = True
        self.call(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _start(self, ticket: list[bool]) -> None:
        own_context(self._owner)
        _threads.set(self.threads)
        self._starting = asyncio.get_running_loop().create_task(self._run(ticket))

    async def _run(self, ticket: list[bool]) -> None:
        """Run the coroutine, unless the job has moved to another loop."""
        if not _won(ticket):
            return
        self._task = self._owner.root = asyncio.current_task()
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            result = await self._make()
        except asyncio.CancelledError as error:
            if self._cancelled:
                self._home.call_soon_threadsafe(self.done.cancel)
                raise
            self._home.call_soon_threadsafe(self._fail, RuntimeError(f"user code raised {error!r}"))
        except BaseException as error:  # noqa: BLE001 - user code may raise anything; it is passed to the service loop
            failure = error if isinstance(error, Exception) else RuntimeError(f"user code raised {error!r}")
            self._home.call_soon_threadsafe(self._fail, failure)
        else:
            self._home.call_soon_threadsafe(self._settle, result)

    def _settle(self, result: T) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


_threads: ContextVar[set[Future[object]] | None] = ContextVar("agentlog_threads", default=None)


class _JobThreads(ThreadPoolExecutor):
    """Threads that record for which job they run."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in a thread, and add it to the threads of its job."""
        future = super().submit(_ending_in_parent(fn), *args, **kwargs)
        mine: set[Future[object]] | None = _threads.get()
        if mine is not None:
            mine.add(future)  # type: ignore[arg-type]  # Future is invariant, but only `done` is called
            future.add_done_callback(mine.discard)
        return future


def _ending_in_parent(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that never returns in a child that it forked."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        pid = os.getpid()
        try:
            return function(*args, **kwargs)
        finally:
            if os.getpid() != pid:
                os._exit(0)

    return call


def _won(ticket: list[bool]) -> bool:
    try:
        return ticket.pop()
    except IndexError:
        return False


class JobLoop:
    """One daemon thread with an event loop; `active` is the number of its runs."""

    def __init__(self, number: int, factory: LoopFactory) -> None:
        self.active = 0
        self._loop = factory()
        self._pinged = self._answered = time.monotonic()
        self._closing = False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run_loop, name=f"jobs-{number}", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the loop."""
        self._loop.call_soon_threadsafe(function)

    def ping(self) -> None:
        """Send a ping to the loop, unless an answer is outstanding."""
        if self._answered >= self._pinged:
            self._pinged = time.monotonic()
            self._loop.call_soon_threadsafe(self._answer)

    @property
    def silent_s(self) -> float:
        """Return for how long the loop has not answered a ping, in seconds."""
        return 0.0 if self._answered >= self._pinged else time.monotonic() - self._pinged

    @property
    def blocker(self) -> str:
        """Return the graph whose code runs on the loop now, "" if unknown."""
        task = asyncio.current_task(self._loop)
        owner = task.owner if isinstance(task, JobTask) else None
        return "" if owner is None else owner.graph_id

    def close(self) -> None:
        """Stop the loop; a thread that user code blocks remains until the process ends."""
        self._closing = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def after_fork(self) -> None:
        """In a child that code on its thread forked, end the process where that code returns to the loop.

        The child must not go on in the loop: it would execute steps of the parent's runs and take wake-ups from it.
        """
        if threading.get_ident() == self._thread.ident:
            sys.setprofile(partial(_exit_at_end_of, self._frame_below_the_loop()))

    def _frame_below_the_loop(self) -> FrameType | None:
        """Return the frame that the loop has called: the coroutine of a task, or a callback."""
        task = asyncio.current_task(self._loop)
        coroutine = None if task is None else task.get_coro()
        frame: FrameType | None = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        found = sys._getframe() if frame is None else frame  # pyright: ignore[reportPrivateUsage]  # as `inspect` has it
        while frame is None and found.f_back is not None and found.f_back.f_code is not _LOOP_CODE:
            found = found.f_back
        return found

    def _answer(self) -> None:
        self._answered = time.monotonic()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_default_executor(_JobThreads(THREADS, thread_name_prefix=f"{self._thread.name}-sync"))
        self._loop.set_task_factory(self._task)
        while not self._closing:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - asyncio raises SystemExit of a task here; the task has it too
                log.warning("run.interrupted_loop", extra={"error": repr(error)})
            if os.getpid() != self._pid:
                os._exit(0)
        self._loop.close()

    def _task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],  # Any: as asyncio types it
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> "asyncio.Task[T]":
        return owned(JobTask(coro, loop=loop, name=name, context=context), context)


_LOOP_CODE = JobLoop._run_loop.__code__  # pyright: ignore[reportPrivateUsage]  # of this module


def _exit_at_end_of(last: FrameType | None, frame: FrameType, event: str, arg: object) -> None:
    """End the process when a frame returns or yields; a profile function (`sys.setprofile`)."""
    if frame is last and event == "return":
        os._exit(0)


class JobLoops:
    """All loops of a process; used on the service loop only."""

    def __init__(self, home: asyncio.AbstractEventLoop, factory: LoopFactory, *, isolated: bool = False) -> None:
        self._home = home
        self._factory = factory
        self._isolated = isolated
        self._shared: list[JobLoop] = []
        self._separate: list[JobLoop] = []
        self._blocking: set[str] = set()
        os.register_at_fork(after_in_child=partial(_call, WeakMethod(self._after_fork)))

    def _after_fork(self) -> None:
        for loop in (*self._shared, *self._separate):
            loop.after_fork()

    def start(self, graph_id: str, make: Callable[[], Coroutine[object, object, T]]) -> Job[T]:
        """Start a run of a graph on a suitable loop."""
        job = Job(self._home, graph_id, make)
        job.put(self._pick(graph_id))
        job.done.add_done_callback(lambda _: job.ended())
        self._home.call_later(timeouts.LOOP_BLOCKED_S, self._move, job)
        return job

    def _move(self, job: Job[T]) -> None:
        """Move a job to another loop if its loop has not started it in time."""
        blocked = job.take_back()
        if blocked is not None:
            blocked.ping()
            job.put(self._pick(job.graph_id, blocked))
            self._home.call_later(timeouts.LOOP_BLOCKED_S, self._move, job)

    def look(self) -> None:
        """Find blocked loops and the graphs that block them; call this a few times a second while runs are active."""
        for loop in self._shared:
            if loop.silent_s > timeouts.LOOP_TOLERATED_S:
                self._blame(loop.blocker)
            if loop.active:
                loop.ping()

    def close(self) -> None:
        """Stop all loops without waiting for the runs on them."""
        for loop in (*self._shared, *self._separate):
            loop.close()

    def _blame(self, graph_id: str) -> None:
        if graph_id and graph_id not in self._blocking:
            self._blocking.add(graph_id)
            log.warning("run.blocks_loop", extra={"graph_id": graph_id})

    def _pick(self, graph_id: str, blocked: JobLoop | None = None) -> JobLoop:
        separate = self._isolated or graph_id in self._blocking
        loops = self._separate if separate else self._shared
        for loop in loops:
            if loop is not blocked and (loop.active == 0 if separate else loop.silent_s < timeouts.LOOP_BLOCKED_S):
                return loop
        loop = JobLoop(len(self._shared) + len(self._separate), self._factory)
        loops.append(loop)
        return loop


def _call(method: "WeakMethod[Callable[[], None]]") -> None:
    found = method()
    if found is not None:
        found()
