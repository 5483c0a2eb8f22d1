"""Event loops for the code of graphs in a process that serves requests: code that blocks delays its own call only."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST_LOOPS = 32
"""With more calls at once than this, calls share loops."""


class CodeLoops:
    """Loops in threads of their own, made when needed. Each call gets one that runs nothing else, the first if it can.

    Clients that user code keeps in module variables belong to one loop, so calls change it only when they must.
    """

    def __init__(self) -> None:
        self._loops: list[_CodeLoop] = []

    async def run(self, make: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run a coroutine on a loop for user code. It runs to its end even if this call is cancelled."""
        home, loop = asyncio.get_running_loop(), self._pick()
        loop.calls += 1

        async def call() -> T:
            try:
                return await make()
            finally:
                home.call_soon_threadsafe(loop.ended)

        return await asyncio.shield(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop.loop)))

    def close(self) -> None:
        """Stop all loops, without waiting for code that blocks them."""
        for one in self._loops:
            one.close()

    def _pick(self) -> "_CodeLoop":
        idle = min(self._loops, key=lambda one: one.calls, default=None)
        if idle is not None and (idle.calls == 0 or len(self._loops) >= MOST_LOOPS):
            return idle
        made = _CodeLoop(len(self._loops))
        self._loops.append(made)
        return made


class _CodeLoop:
    """One daemon thread with an event loop; `calls` is the number of its calls that have not ended."""

    def __init__(self, number: int) -> None:
        self.calls = 0
        self._closing = False
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, name=f"graph-code-{number}", daemon=True).start()

    def ended(self) -> None:
        """Count a call as ended."""
        self.calls -= 1

    def close(self) -> None:
        """Stop the loop."""
        self._closing = True
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._closing:
            try:
                self.loop.run_forever()  # it returns when the code of a graph stops it
            except BaseException as error:  # noqa: BLE001 - asyncio raises SystemExit of a task here; the call has it too
                log.warning("graph.interrupted_loop", extra={"error": repr(error)})
        self.loop.close()
