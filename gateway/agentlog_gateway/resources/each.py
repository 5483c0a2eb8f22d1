"""Several commits of one request at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

AT_ONCE = 16
"""Number of commits of one request that are on their way at the same time."""

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


async def each(items: Sequence[_Item], act: Callable[[_Item], Awaitable[_Done]], at_once: int = AT_ONCE) -> list[_Done]:
    """Return the results in order, after all have ended; `at_once` run at the same time. Raises: the first error."""
    turns = asyncio.Semaphore(at_once)

    async def one(item: _Item) -> _Done:
        async with turns:
            return await act(item)

    results = await asyncio.gather(*map(one, items), return_exceptions=True)
    done: list[_Done] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
