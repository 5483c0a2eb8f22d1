"""Bridge from threads and other event loops to the loop that owns an object."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def blocking(loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]], instead: str) -> T:
    """Run `work()` on the loop from another thread and wait. Raises RuntimeError(instead) on the loop's own thread."""
    if _running() is loop:
        raise RuntimeError(instead)
    return asyncio.run_coroutine_threadsafe(work(), loop).result()


async def here(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop also when another loop awaits it (a node with a loop of its own)."""
    if asyncio.get_running_loop() is loop:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
